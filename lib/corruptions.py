"""CIFAR-10-C-style corruptions of test images, made in the process: one fixed corrupted set for all runs.

Recipe and constants: hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py (Hendrycks & Dietterich 2019, ICLR).
Two departures: each condition has a seed of its own, and values are rounded to the nearest grey level; the original
truncates, which darkens by half a level. These are therefore not the images of the published CIFAR-10-C.

Each function takes images uint8 (N, 32, 32, 3), its constant and a NumPy generator, and returns a new uint8 array of
the same shape. Constants that are intensities are shares of the full scale, 255 grey levels.
"""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from lib.config import suggestion
from lib.errors import StudyError

SEVERITIES = (1, 2, 3, 4, 5)
WHITE = 255


def corrupt(images, name, severity):
    """Images under one corruption, the same at every call, as a new array.

    images: uint8 (N, 32, 32, 3), left as they are; returns uint8 of the same shape. name: a key of CORRUPTIONS;
    severity: 1 (mild) to 5. The generator is seeded by name and severity alone.
    Raises StudyError for an unknown name or severity.
    """
    if name not in CORRUPTIONS:
        raise StudyError(f"unknown corruption {name!r}{suggestion(name, CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise StudyError(f"severity = {severity!r} is out of range: take 1, 2, 3, 4 or 5")
    function, constants = CORRUPTIONS[name]
    generator = np.random.default_rng([*name.encode(), severity])
    return function(images, constants[SEVERITIES.index(severity)], generator)


def gaussian_noise(images, deviation, generator):
    """Independent normal noise on every value; deviation: its standard deviation."""
    noisy = generator.standard_normal(images.shape, np.float32)
    noisy *= WHITE * deviation
    noisy += images
    return _grey_levels(noisy)


def shot_noise(images, photons, generator):
    """Poisson counts of light; photons: expected count of a white value, so more photons mean less noise."""
    counts = generator.poisson(images * (photons / WHITE))
    return _grey_levels(counts.astype(np.float32) * (WHITE / photons))


def impulse_noise(images, share, generator):
    """Salt and pepper; share: probability that a value is replaced, half of the time by 0, half by white."""
    draws = generator.random(images.shape, np.float32)
    noisy = images.copy()
    noisy[draws < share / 2] = 0
    noisy[draws >= 1 - share / 2] = WHITE
    return noisy


def gaussian_blur(images, sigma, _generator):
    """Blur within each image and channel, edges repeated; sigma in pixels."""
    return _grey_levels(ndimage.gaussian_filter(images, sigma, axes=(1, 2), mode="nearest", output=np.float32))


def contrast(images, factor, _generator):
    """Values drawn towards the mean of their image and channel; factor: share of the distance that is left."""
    means = images.mean(axis=(1, 2), dtype=np.float32, keepdims=True)
    return _grey_levels((images - means) * factor + means)


def brightness(images, shift, _generator):
    """V of HSV, the largest of a pixel's channels, raised by shift up to white; hue and saturation stay.

    At fixed hue and saturation the channels are proportional to V, so scaling them is the way through HSV and back.
    Black has no hue and saturation 0: it becomes grey.
    """
    value = np.maximum(np.maximum(images[..., 0], images[..., 1]), images[..., 2]).astype(np.float32)  # (N, 32, 32)
    raised = np.minimum(value + WHITE * shift, WHITE)
    bright = images * (raised / np.maximum(value, 1))[..., None]
    bright[value == 0] = WHITE * shift
    return _grey_levels(bright)


def jpeg(images, quality, _generator):
    """Each image through a JPEG file in memory; quality: 1 to 95. Pillow's default 4:2:0 chroma, as in the original."""
    return _each(images, lambda image: _through_jpeg(image, quality))


def pixelate(images, scale, _generator):
    """Each image shrunk to int(side · scale) pixels a side and enlarged again, both with Pillow's box filter.

    Enlarging with the box filter repeats the nearest pixel, as in the original.
    """
    side = images.shape[1]
    small = int(side * scale)
    box = Image.Resampling.BOX
    return _each(images, lambda image: image.resize((small, small), box).resize((side, side), box))


def _grey_levels(values):
    """Float array in grey levels, used up, to uint8: nearest level, clipped to 0..255."""
    np.rint(values, out=values)
    np.clip(values, 0, WHITE, out=values)
    return values.astype(np.uint8)


def _each(images, change):
    changed = np.empty_like(images)
    for index, image in enumerate(images):
        changed[index] = change(Image.fromarray(image))
    return changed


def _through_jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


# name: (function, its constant at severities 1 to 5)
CORRUPTIONS = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "jpeg": (jpeg, (80, 65, 58, 50, 40)),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
}
