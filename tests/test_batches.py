import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms

from lib.batches import MEAN, STD, Normalise, crop_and_flip, pad, plan_epoch

normalise = Normalise()
FIELDS = ("order", "top", "left", "flip")


def random_images(count, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def same(one, other):
    return [torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS]


def slow_crop_and_flip(image, padding, top, left, flip):
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    crop = padded[top : top + 32, left : left + 32]
    return crop[:, ::-1] if flip else crop


def test_plan_depends_on_the_seed_and_not_on_the_arm(make_config):
    plan = plan_epoch(make_config(), 1, 96)
    other = make_config(arm="other", architecture="resnet18", width=0.5, reduction=8, learning_rate=0.3, epochs=9)
    assert all(same(plan, plan_epoch(other, 1, 96)))


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1), (1, 1)])
def test_another_seed_or_epoch_gives_another_plan(make_config, seed, epoch):
    plan, other = plan_epoch(make_config(), 0, 96), plan_epoch(make_config(seed=seed), epoch, 96)
    assert not any(same(plan, other))


def test_plans_do_not_depend_on_the_epochs_before(make_config):
    later = plan_epoch(make_config(), 5, 96)
    for epoch in range(5):
        plan_epoch(make_config(), epoch, 96)
    assert all(same(later, plan_epoch(make_config(), 5, 96)))


def test_order_does_not_depend_on_the_augmentation(make_config):
    plan = plan_epoch(make_config(), 0, 96)
    other = plan_epoch(make_config(crop_padding=2, horizontal_flip=False), 0, 96)
    assert torch.equal(plan.order, other.order)


@pytest.mark.parametrize(("count", "used"), [(96, 96), (100, 96), (127, 96), (32, 32)])
def test_each_image_comes_at_most_once_an_epoch(make_config, count, used):
    plan = plan_epoch(make_config(), 0, count)
    assert plan.order.shape == (used // 32, 32)
    assert len(plan.order.unique()) == used
    assert set(plan.order.flatten().tolist()) <= set(range(count))
    assert all(getattr(plan, name).shape == plan.order.shape for name in FIELDS)


def test_images_left_out_change_with_the_epoch(make_config):
    left_out = [
        set(range(100)) - set(plan_epoch(make_config(), epoch, 100).order.flatten().tolist()) for epoch in (0, 1)
    ]
    assert left_out[0] != left_out[1]


def test_every_offset_and_flip_is_equally_likely(make_config):
    plan = plan_epoch(make_config(batch_size=500, crop_padding=4), 0, 50_000)
    cells = (plan.top * 9 + plan.left) * 2 + plan.flip
    counts = np.bincount(cells.flatten(), minlength=162)
    assert len(counts) == 162
    assert stats.chisquare(counts).pvalue > 0.01


def test_offsets_are_independent_of_the_order(make_config):
    plan = plan_epoch(make_config(batch_size=500), 0, 50_000)
    for name in ("top", "left", "flip"):
        assert abs(np.corrcoef(plan.order.flatten(), getattr(plan, name).flatten())[0, 1]) < 0.02


def test_no_augmentation_leaves_the_images_as_they_are(make_config):
    config = make_config(crop_padding=0, horizontal_flip=False)
    images = torch.from_numpy(random_images(96))
    plan = plan_epoch(config, 0, 96)
    for step in range(3):
        assert torch.equal(crop_and_flip(pad(images, 0), *plan.step(step)), images[plan.order[step]])


@pytest.mark.parametrize("padding", [1, 4, 31])
def test_padding_equals_numpy(padding):
    images = random_images(3)
    widths = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = pad(torch.from_numpy(images), padding)
    assert padded.dtype == torch.uint8
    np.testing.assert_array_equal(padded.numpy(), np.pad(images, widths, mode="reflect"))


def test_padding_many_images_keeps_their_order():
    images = torch.from_numpy(random_images(5003, size=4))
    assert torch.equal(pad(images, 1)[:, 1:-1, 1:-1], images)


@pytest.mark.parametrize("padding", [0, 4, 7])
def test_crops_and_flips_equal_a_slow_reference(make_config, padding):
    images = random_images(96)
    plan = plan_epoch(make_config(crop_padding=padding), 0, 96)
    padded = pad(torch.from_numpy(images), padding)
    assert set(plan.flip.flatten().tolist()) == {0, 1}
    for step, position in itertools.product(range(3), range(32)):
        order, top, left, flip = (int(getattr(plan, name)[step, position]) for name in FIELDS)
        expected = slow_crop_and_flip(images[order], padding, top, left, flip)
        np.testing.assert_array_equal(crop_and_flip(padded, *plan.step(step))[position].numpy(), expected)


def test_flip_mirrors_left_and_right():
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[0, 5, 0] = 255
    zero = torch.zeros(1, dtype=torch.int64)
    flipped = crop_and_flip(image, zero, zero, zero, zero + 1)
    assert flipped[0, 5, 31].tolist() == [255] * 3
    assert flipped.sum() == 3 * 255


def test_images_stay_with_their_labels(make_config):
    labels = torch.arange(96)
    images = labels.to(torch.uint8)[:, None, None, None].expand(96, 32, 32, 3).contiguous()
    plan = plan_epoch(make_config(), 0, 96)
    for step in range(3):
        batch = crop_and_flip(pad(images, 4), *plan.step(step))
        assert torch.equal(batch, labels[plan.order[step]][:, None, None, None].expand(32, 32, 32, 3).to(torch.uint8))


def test_normalisation_equals_torchvision():
    images = random_images(4)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([reference(image) for image in images])
    torch.testing.assert_close(normalise(torch.from_numpy(images)), expected)


def test_normalisation_takes_the_constants_of_cifar10():
    assert (MEAN, STD) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def test_batches_are_float32_in_channels_last_memory():
    batch = normalise(torch.from_numpy(random_images(4)))
    assert (batch.shape, batch.dtype) == ((4, 3, 32, 32), torch.float32)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_plan_moves_to_a_device_as_a_whole(make_config):
    moved = plan_epoch(make_config(), 0, 96).to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in FIELDS} == {"meta"}
