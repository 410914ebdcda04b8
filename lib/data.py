"""Images as uint8 arrays: official archive, image folder or bundled digits, decoded once and fingerprinted."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
from pathlib import Path

import numpy as np

from lib.errors import StudyError
from lib.paths import data_folder, shown
from lib.runs import atomic_write

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_CLASSES = tuple("0123456789")
CLASSES = {"cifar10": CIFAR10_CLASSES, "digits": DIGITS_CLASSES}  # by data set
DESCRIPTIONS = {  # by source
    "cifar10": "CIFAR-10, the official archive",
    "cifar10-jpeg": "CIFAR-10 as a JPEG copy, not the original pixels: fair between arms, but accuracies are not "
    "comparable with published ones",
    "digits": "scikit-learn's bundled digits: a test of the pipeline, not a result",
}
IMAGES = {"train": 50_000, "test": 10_000}
SPLIT_SEED = 2018  # of the held-out split and the subsets, the same for every run


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, 32, 32, 3), labels uint8 (N,), both in official order, and where they came from."""

    source: str  # cifar10 (official archive), cifar10-jpeg (image folder) or digits
    classes: tuple
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def arrays(self):
        """The four arrays by name."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return {name: getattr(self, name) for name in names}

    @property
    def fingerprint(self):
        """SHA-256 over shapes and bytes of all images and labels, hexadecimal."""
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def load_dataset(name):
    """The data set `cifar10` or `digits`; CIFAR-10 is downloaded where it is not in the data folder.

    An official archive goes before an image folder `cifar10-jpeg/`, which goes before a download. Raises StudyError
    for data that is missing, damaged or incomplete.
    """
    if name == "digits":
        return _digits()
    source = local_source() or "cifar10"
    return _cached(source, _image_folder if source == "cifar10-jpeg" else _official_archive)


def local_source():
    """Which CIFAR-10 lies in the data folder, decoded or not: `cifar10`, `cifar10-jpeg` or None."""
    if _cache("cifar10").exists() or (data_folder() / "cifar-10-batches-py").is_dir() or _archive_is_whole():
        return "cifar10"
    if _cache("cifar10-jpeg").exists() or (data_folder() / "cifar10-jpeg").is_dir():
        return "cifar10-jpeg"
    return None


def local_test_images(source, fingerprint):
    """The test images uint8 (N, 32, 32, 3) of this source and fingerprint where they are here; nothing is downloaded.

    None where they are not.
    """
    if source != "digits" and source != local_source():
        return None
    dataset = load_dataset("digits" if source == "digits" else "cifar10")
    return dataset.test_images if dataset.fingerprint == fingerprint else None


def _archive_is_whole():
    """Whether the official archive is here with its checksum, which a download that was cut short has not."""
    archive = data_folder() / "cifar-10-python.tar.gz"
    if not archive.is_file():
        return False
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    return check_integrity(archive, CIFAR10.tgz_md5)


def stratified_order(labels):
    """Indices of all labels in a fixed random order of which every prefix holds the classes in equal shares.

    The first k give nested subsets, the last k a held-out split. labels: integers (N,). Returns int64 (N,).
    """
    generator = np.random.default_rng(SPLIT_SEED)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(position, kind="stable")


def split_indices(labels, train_fraction, validation_images):
    """Training and validation indices, each sorted: the validation split is cut off first, then the fraction.

    Raises StudyError where no training image would be left.
    """
    if validation_images >= len(labels):
        raise StudyError(f"validation_images = {validation_images} leaves none of {len(labels)} images for training")
    order = stratified_order(labels)
    available = len(order) - validation_images
    train = order[: round(available * train_fraction)]
    return np.sort(train), np.sort(order[available:])


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(small.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    labels = digits.target.astype(np.uint8)
    train, test = split_indices(labels, 1.0, 500)
    return Dataset("digits", DIGITS_CLASSES, images[train], labels[train], images[test], labels[test])


def _cache(source):
    return data_folder() / "cache" / f"{source}.npz"


def _cached(source, decode):
    """The images from the cache, or else decoded, by one process at a time, since a download has only one place."""
    path = _cache(source)
    dataset = _read_cache(path, source)
    if dataset is None:
        with _alone_in_data_folder():
            dataset = _read_cache(path, source)  # another process may have been at it
            if dataset is None:
                dataset = decode()
                content = {"fingerprint": dataset.fingerprint, **dataset.arrays}
                atomic_write(path, lambda file: np.savez(file, **content), "free space or set STUDY_DATA")
    return dataset


def _read_cache(path, source):
    """The images in the cache; None where there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        fingerprint = str(arrays.pop("fingerprint"))
        dataset = Dataset(source, CIFAR10_CLASSES, **arrays)
        return dataset if dataset.fingerprint == fingerprint else None
    except Exception:  # noqa: BLE001 a damaged cache of any kind is only rebuilt
        return None


@contextlib.contextmanager
def _alone_in_data_folder():
    """Wait until no other process decodes images there; on a disk without file locks nobody waits."""
    try:
        data_folder().mkdir(parents=True, exist_ok=True)
        handle = os.open(data_folder(), os.O_RDONLY)
    except OSError:  # whoever goes on to read or write there says what is wrong
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _official_archive():
    from torchvision.datasets import CIFAR10

    folder = data_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        train, test = (CIFAR10(folder, train=train, download=True) for train in (True, False))
    except Exception as error:  # noqa: BLE001 a network has many ways to fail
        raise StudyError(
            f"CIFAR-10 is not whole in {shown(folder)}/ and cannot be downloaded ({_one_line(error)}): put "
            "cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html or an image folder cifar10-jpeg/ "
            "there, or take --study smoke, which needs no data"
        ) from None
    labels = [np.array(part.targets, dtype=np.uint8) for part in (train, test)]
    return Dataset("cifar10", CIFAR10_CLASSES, train.data, labels[0], test.data, labels[1])


def _image_folder():
    arrays = {}
    for split, count in IMAGES.items():
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = _read_split(
            data_folder() / "cifar10-jpeg" / split, count
        )
    return Dataset("cifar10-jpeg", CIFAR10_CLASSES, **arrays)


def _read_split(folder, count):
    """Images and labels of <class>/<index>.jpg in the order of the index, which must run from 0 to count − 1."""
    images, labels = np.empty((count, 32, 32, 3), np.uint8), np.full(count, 255, np.uint8)
    for label, name in enumerate(CIFAR10_CLASSES):
        if not (folder / name).is_dir():
            raise StudyError(f"the class folder {shown(folder / name)} is missing: restore the image folder")
        for path in (folder / name).glob("*.jpg"):
            index = int(path.stem) if path.stem.isdecimal() else count
            if index >= count or labels[index] != 255:
                raise StudyError(f"{shown(path)} is not expected: names are indices from 0 to {count - 1}, used once")
            images[index], labels[index] = _read_image(path), label
    missing = np.flatnonzero(labels == 255)
    if len(missing):
        raise StudyError(
            f"{len(missing)} of {count} images are missing in {shown(folder)}, the first with index {missing[0]}: "
            "restore the image folder"
        )
    return images, labels


def _read_image(path: Path):
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # noqa: BLE001 Pillow has many ways to refuse a file
        raise StudyError(f"{shown(path)} cannot be read ({_one_line(error)}): restore that file") from None
    if pixels.shape != (32, 32, 3):
        raise StudyError(f"{shown(path)} is {pixels.shape[1]}×{pixels.shape[0]} pixels, not 32×32: restore that file")
    return pixels


def _one_line(error):
    return " ".join(str(error).split())
