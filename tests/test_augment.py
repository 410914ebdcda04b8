import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional

from lib.train.augment import MEAN, STD, Normalise, crop_and_flip, pad, plan_epoch


def random_images(count, size=32):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def same(one, other):
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def test_plan_is_a_function_of_the_seed_and_the_epoch_alone(make_config):
    plan = plan_epoch(make_config(), 1, 96)
    other = make_config(arm="other", architecture="resnet18", width=0.5, reduction=8, learning_rate=0.3, epochs=9)
    plan_epoch(other, 0, 96)  # an epoch before leaves no trace
    assert all(same(plan, plan_epoch(other, 1, 96)))
    assert not any(same(plan, plan_epoch(make_config(seed=1), 1, 96)))
    assert not any(same(plan, plan_epoch(make_config(), 0, 96)))
    plain = plan_epoch(make_config(crop_padding=0, horizontal_flip=False), 1, 96)
    assert torch.equal(plan.order, plain.order) and not any(choices.any() for choices in plain[1:])


@pytest.mark.parametrize(("count", "used"), [(96, 96), (100, 96), (127, 96), (32, 32)])
def test_each_image_comes_at_most_once_an_epoch_and_others_are_left_out_in_the_next(make_config, count, used):
    plans = [plan_epoch(make_config(), epoch, count) for epoch in range(3)]
    assert all(choices.shape == (used // 32, 32) and choices.dtype == torch.int64 for choices in plans[0])
    seen = [set(plan.order.flatten().tolist()) for plan in plans]
    assert all(len(each) == used and each <= set(range(count)) for each in seen)
    assert seen[0] != seen[1] or count == used


def test_every_offset_and_flip_is_equally_likely_whatever_the_image(make_config):
    plan = plan_epoch(make_config(batch_size=500, crop_padding=4), 0, 50_000)
    cells = (plan.top * 9 + plan.left) * 2 + plan.flip
    assert stats.chisquare(np.bincount(cells.flatten(), minlength=162)).pvalue > 0.01
    for choices in plan[1:]:
        assert abs(np.corrcoef(plan.order.flatten(), choices.flatten())[0, 1]) < 0.02


@pytest.mark.parametrize("padding", [0, 4, 31])
def test_crops_and_flips_equal_torchvision(make_config, padding):
    images, plan = random_images(5003), plan_epoch(make_config(crop_padding=padding), 0, 5003)
    padded, chosen = pad(images, padding), plan.step(2)
    assert padded.dtype == torch.uint8 and set(chosen.flip.tolist()) == {0, 1}
    found = crop_and_flip(padded, *plan.step(2))
    for batch, order, top, left, flip in zip(found, *(choices.tolist() for choices in chosen), strict=True):
        image = images[order].permute(2, 0, 1)
        image = functional.pad(image, [padding], padding_mode="reflect") if padding else image
        image = functional.crop(image, top, left, 32, 32)
        image = functional.hflip(image) if flip else image
        assert torch.equal(batch, image.permute(1, 2, 0))


def test_normalisation_equals_torchvision_with_the_constants_of_cifar10():
    images = random_images(4)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    batch = Normalise()(images)
    torch.testing.assert_close(batch, torch.stack([reference(image.numpy()) for image in images]))
    assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)
    assert (MEAN, STD) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
