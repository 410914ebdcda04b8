import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import stats
from sklearn.datasets import load_sample_image

from lib.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lib.errors import StudyError

NOISES = ["gaussian_noise", "shot_noise", "impulse_noise"]
WITHOUT_NOISE = [name for name in CORRUPTIONS if name not in NOISES]


@pytest.fixture(scope="module")
def photos():
    """65 tiles of 32 × 32 pixels of a photograph: real edges, textures and colours."""
    tiles = load_sample_image("china.jpg")[:416, :640].reshape(13, 32, 20, 32, 3)
    return np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(260, 32, 32, 3)[::4])


def flat(level, images=40):
    return np.full((images, 32, 32, 3), level, np.uint8)


def severities_with(name):
    """(severity, constant) pairs; severities here are counted, not read from the module."""
    return list(enumerate(CORRUPTIONS[name][1], start=1))


def test_constants_are_those_of_the_source():
    # hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py
    assert {name: constants for name, (_, constants) in CORRUPTIONS.items()} == {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "jpeg": (80, 65, 58, 50, 40),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    }
    assert SEVERITIES == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_images_are_new_bytes_of_the_same_shape_and_the_same_at_every_call(name, photos):
    before = photos.copy()
    first, second = corrupt(photos, name, 3), corrupt(photos, name, 3)
    assert (first.dtype, first.shape) == (np.uint8, photos.shape)
    assert not np.shares_memory(first, photos)
    np.testing.assert_array_equal(photos, before)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_read_only_images_are_accepted(name, photos):
    frozen = photos[:2].copy()
    frozen.setflags(write=False)
    assert corrupt(frozen, name, 1).shape == frozen.shape


def test_another_process_makes_the_same_noise_and_needs_no_torch():
    program = (
        "import hashlib, sys, numpy as np; from lib.corruptions import corrupt; "
        "images = np.full((2, 32, 32, 3), 128, np.uint8); "
        f"print(*[hashlib.sha256(corrupt(images, name, 2)).hexdigest() for name in {NOISES}], 'torch' in sys.modules)"
    )
    # hash() of a text differs between these two processes
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    here = [hashlib.sha256(corrupt(flat(128, 2), name, 2)).hexdigest() for name in NOISES]
    assert run.stdout.split() == [*here, "False"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_moves_the_pixels_further_than_the_one_before(name, photos):
    distances = [np.abs(corrupt(photos, name, severity) - photos.astype(float)).mean() for severity in SEVERITIES]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_an_image_is_corrupted_alike_alone_and_among_others(name, photos):
    together = corrupt(photos[:5], name, 5)
    for index in range(5):
        np.testing.assert_array_equal(corrupt(photos[index : index + 1], name, 5)[0], together[index])


@pytest.mark.parametrize("severity, deviation", severities_with("gaussian_noise"))
def test_gaussian_noise_has_the_stated_deviation_and_leaves_the_mean(severity, deviation):
    noisy = corrupt(flat(128), "gaussian_noise", severity).astype(float)
    # rounding to whole levels adds 1/12; 122,880 values tell a deviation to 0.2 %
    assert np.sqrt(noisy.var() - 1 / 12) == pytest.approx(255 * deviation, rel=0.01)
    assert noisy.mean() == pytest.approx(128, abs=0.4)


def test_gaussian_noise_is_independent_between_channels_images_and_severities():
    mild, strong = (corrupt(flat(128), "gaussian_noise", severity).astype(float) - 128 for severity in (1, 2))
    pairs = [(mild[..., 0], mild[..., 1]), (mild[:20], mild[20:]), (mild[:, :16], mild[:, 16:]), (mild, strong)]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("name, half_are_clipped", [("gaussian_noise", True), ("shot_noise", False)])
def test_noise_beyond_black_or_white_is_clipped(name, half_are_clipped):
    white, black = corrupt(flat(255), name, 5), corrupt(flat(0), name, 5)
    # deviations are 25 and 36 levels: a value that wraps around lands on the other side of the middle
    assert white.min() > 80
    assert black.max() < 128
    assert (white == 255).mean() == pytest.approx(0.5, abs=0.05)
    assert (black == 0).mean() == pytest.approx(0.5 if half_are_clipped else 1, abs=0.02)


@pytest.mark.parametrize("level", [64, 128])
@pytest.mark.parametrize("severity, photons", severities_with("shot_noise"))
def test_shot_noise_has_the_mean_and_variance_of_photon_counts(severity, photons, level):
    # n photons, Poisson with mean photons · level/255, are shown as 255 n/photons: variance 255 · level/photons. At 500
    # photons a step is 0.51 levels and whole levels alone shift that by 3 %, so every count is weighted as it is shown.
    counts = np.arange(2 * photons)
    shown = np.clip(np.round(255 * counts / photons), 0, 255)
    weights = stats.poisson.pmf(counts, photons * level / 255)
    mean = weights @ shown
    variance = weights @ (shown - mean) ** 2
    assert variance == pytest.approx(255 * level / photons, rel=0.04)

    noisy = corrupt(flat(level), "shot_noise", severity).astype(float)
    assert noisy.var() == pytest.approx(variance, rel=0.02)
    assert noisy.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / noisy.size))


def test_shot_noise_comes_in_steps_of_one_photon_and_spares_black():
    steps = np.arange(0, 52) * 255 / 50
    levels = np.unique(corrupt(flat(100), "shot_noise", 5))
    assert all(np.abs(steps - level).min() <= 0.5 for level in levels)
    assert (corrupt(flat(0), "shot_noise", 5) == 0).all()


@pytest.mark.parametrize("severity, share", severities_with("impulse_noise"))
def test_impulse_noise_replaces_the_stated_share_of_values_half_by_black_half_by_white(severity, share):
    noisy = corrupt(flat(128, 100), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0, 128, 255}
    four_errors = 4 * np.sqrt(share / 2 / noisy.size)
    assert (noisy == 0).mean() == pytest.approx(share / 2, abs=four_errors)
    assert (noisy == 255).mean() == pytest.approx(share / 2, abs=four_errors)
    # values, not whole pixels: a pixel is touched unless each of its three channels is spared
    assert (noisy != 128).any(-1).mean() == pytest.approx(1 - (1 - share) ** 3, rel=0.1)


@pytest.mark.parametrize("severity, sigma", severities_with("gaussian_blur"))
def test_blur_spreads_a_point_as_a_gaussian_within_its_image_and_channel(severity, sigma):
    images = flat(0, 3)
    images[1, 16, 12, 1] = 255
    profile = np.exp(-0.5 * ((np.arange(32)[:, None] - [16, 12]) / sigma) ** 2)
    profile /= profile.sum(0)
    expected = np.zeros(images.shape)
    expected[1, :, :, 1] = 255 * np.outer(profile[:, 0], profile[:, 1])
    assert np.abs(corrupt(images, "gaussian_blur", severity) - expected).max() < 0.55


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [0, 1, 100, 255])
def test_blur_leaves_a_flat_image_alone_up_to_its_edges(severity, level):
    np.testing.assert_array_equal(corrupt(flat(level, 2), "gaussian_blur", severity), flat(level, 2))


def test_blur_repeats_the_edge():
    images = flat(0, 1)
    images[0, 0] = 200  # the first row, continued outwards as if it had no end
    weights = np.exp(-0.5 * np.arange(-6, 7) ** 2)
    weights /= weights.sum()
    expected = [200 * weights[6 + row :].sum() for row in range(4)]  # the share of the kernel at or above row 0
    assert corrupt(images, "gaussian_blur", 5)[0, :4, 7, 0] == pytest.approx(expected, abs=0.55)


def test_contrast_of_hand_computed_pixels():
    images = flat(77, 2)
    images[0, :16], images[0, 16:] = (100, 0, 10), (200, 40, 10)  # channel means 150, 20, 10
    halved = corrupt(images, "contrast", 2)
    assert (halved[0, :16] == (125, 10, 10)).all()
    assert (halved[0, 16:] == (175, 30, 10)).all()
    assert (halved[1] == 77).all()


def test_brightness_of_hand_computed_pixels():
    images = flat(0, 1)
    images[0, :5, 0] = [(100, 20, 0), (250, 100, 0), (255, 255, 255), (0, 0, 10), (60, 60, 60)]
    # severity 4 adds 0.2, 51 levels, to the largest channel: 100 → 151 (× 1.51), 250 → 255 (× 1.02), 10 → 61, 60 → 111
    expected = [(151, 30, 0), (255, 102, 0), (255, 255, 255), (0, 0, 61), (111, 111, 111)]
    bright = corrupt(images, "brightness", 4)
    assert bright[0, :5, 0].tolist() == [list(pixel) for pixel in expected]
    assert (bright[0, 5:] == 51).all()  # black becomes grey


@pytest.mark.parametrize("severity, shift", severities_with("brightness"))
def test_brightness_equals_the_way_through_hsv(severity, shift, photos):
    images = photos[:40].copy()
    images[0, :8] = 0
    hsv = rgb_to_hsv(images / 255)
    hsv[..., 2] = np.minimum(hsv[..., 2] + shift, 1)
    assert np.abs(corrupt(images, "brightness", severity) - 255 * hsv_to_rgb(hsv)).max() < 0.501


@pytest.mark.parametrize("severity, quality", severities_with("jpeg"))
def test_jpeg_rounds_flat_images_as_its_quantisation_table_says(severity, quality):
    # DC of an 8 × 8 block is 8 (level − 128); its table entry, 16, is scaled by quality as the IJG library does
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    step = (16 * percent + 50) // 100 / 8  # grey levels
    levels = np.arange(256)
    images = np.broadcast_to(levels[:, None, None, None], (256, 32, 32, 3)).astype(np.uint8)
    compressed = corrupt(images, "jpeg", severity).astype(float)
    assert (compressed == compressed[:, :1, :1, :1]).all()
    compressed = compressed[:, 0, 0, 0]
    assert np.abs(compressed - levels).max() <= step / 2 + 0.5
    nearest_step = np.clip(128 + np.round((compressed - 128) / step) * step, 0, 255)
    assert np.abs(compressed - nearest_step).max() <= 0.5


@pytest.mark.parametrize("severity, small", [(1, 30), (2, 28), (3, 27), (4, 24), (5, 20)])
def test_pixelate_averages_boxes_and_repeats_them(severity, small, photos):
    # Pillow's box filter takes every pixel whose centre lies in the box, all with the same weight
    step = 32 / small
    offsets = ((np.arange(32) + 0.5) - (np.arange(small)[:, None] + 0.5) * step) / step
    weights = (offsets > -0.5) & (offsets <= 0.5)
    weights = weights / weights.sum(1, keepdims=True)
    repeated = weights[((np.arange(32) + 0.5) * small / 32).astype(int)]
    expected = np.einsum("ij,njkc,lk->nilc", repeated, photos[:20], repeated, optimize=True)
    assert np.abs(corrupt(photos[:20], "pixelate", severity) - expected).max() <= 1  # two roundings


def test_an_unknown_corruption_is_named_with_the_nearest():
    with pytest.raises(StudyError, match="unknown corruption 'gausian_noise': did you mean 'gaussian_noise'"):
        corrupt(flat(0, 1), "gausian_noise", 1)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, "3", None])
def test_a_severity_that_does_not_exist_is_refused(severity):
    with pytest.raises(StudyError, match=f"severity = {severity!r} is out of range: take 1, 2, 3, 4 or 5"):
        corrupt(flat(0, 1), "contrast", severity)
