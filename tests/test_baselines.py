import numpy as np
import pytest
import torch

from lib.baselines import EverydayLoop, ResidentLoop, Stopwatch
from lib.models import build_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kind", "how"), [(EverydayLoop, (1,)), (ResidentLoop, ("bf16",))])
def test_each_loop_trains_the_network_it_is_given(kind, how, make_config, dataset):
    config = make_config(learning_rate=0.05)
    model = build_model(config, 10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loop = kind(config, model, dataset.train_images, dataset.train_labels, CPU, *how)
    assert loop.run(2) > 0
    changed = [not torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True)]
    assert all(changed)


def resident(make_config, images, **changes):
    config = make_config(**changes)
    return ResidentLoop(config, build_model(config, 10), images, np.zeros(len(images), dtype=np.uint8), CPU, "fp32")


def test_the_resident_loop_crops_and_flips_each_image_in_its_place(make_config):
    images = np.random.default_rng(0).integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    loop = resident(make_config, images, crop_padding=1)
    augmented = loop._augmented()
    seen = set()
    for index in range(500):
        crops = {}
        for top in range(3):
            for left in range(3):
                crop = loop.padded[index, :, top : top + 32, left : left + 32]
                crops |= {(top, left, False): crop, (top, left, True): crop.flip(-1)}
        seen |= {choice for choice, crop in crops.items() if torch.equal(crop, augmented[index])}
    assert len(seen) == 18


def test_a_stopwatch_measures_its_body():
    with Stopwatch(CPU) as empty:
        pass
    with Stopwatch(CPU) as longer:
        sum(range(100_000))
    assert 0 <= empty.seconds < longer.seconds
