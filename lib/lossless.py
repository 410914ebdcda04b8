"""Test images in their original bytes, to be held against their JPEG copies."""

from typing import NamedTuple

import numpy as np

from lib.errors import StudyError
from lib.paths import data_folder, shown

FILE = "cifar10-lossless-test.npz"


class LosslessImages(NamedTuple):
    """images: uint8 (N, 32, 32, 3); labels: uint8 (N,); indices: int64 (N,), their places among the test images."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def load_lossless_test(dataset):
    """The original bytes of some test images of a JPEG copy, or None for other images and where the file is not here.

    Raises StudyError for a file that is damaged or whose labels are not those of the data set.
    """
    path = data_folder() / FILE
    if dataset.source != "cifar10-jpeg" or not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = LosslessImages(*(stored[name] for name in LosslessImages._fields))
        whole = found.images.shape == (len(found.indices), 32, 32, 3) and found.images.dtype == np.uint8
        belongs = np.array_equal(dataset.test_labels[found.indices], found.labels)
    except Exception as error:  # noqa: BLE001 a damaged archive has many ways to fail
        raise StudyError(f"{shown(path)} is damaged ({error}): restore or delete it") from None
    if not (whole and belongs):
        raise StudyError(f"{shown(path)} does not hold these test images: restore or delete it")
    return found
