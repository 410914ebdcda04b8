"""Images as uint8 arrays: the official CIFAR-10 archive or bundled digits, decoded once and fingerprinted."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os

import numpy as np

from lib.errors import StudyError
from lib.paths import data_folder, shown
from lib.runs import atomic_write

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_CLASSES = tuple("0123456789")
CLASSES = {"cifar10": CIFAR10_CLASSES, "digits": DIGITS_CLASSES}  # by data set
DESCRIPTIONS = {  # by source
    "cifar10": "CIFAR-10, the official archive",
    "digits": "scikit-learn's bundled digits: a test of the pipeline, not a result",
}
OFFICIAL_FINGERPRINT = "ab9f55ddab89a724f7ed508a5dfc4a3a30a48a75e7280a5f69045326de5e5c5f"  # of the official images, as Dataset.fingerprint gives it
SPLIT_SEED = 2018  # of the held-out split, the same for every run


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, 32, 32, 3), labels uint8 (N,), both in official order, and where they came from."""

    source: str  # cifar10 or digits
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

    Raises StudyError for data that is missing, damaged or not the official CIFAR-10.
    """
    return _digits() if name == "digits" else _cached_cifar10()


def cifar10_is_here():
    """Whether the official images lie in the data folder, decoded or not."""
    return _cache().exists() or (data_folder() / "cifar-10-batches-py").is_dir() or _archive_is_whole()


def local_test_images(source, fingerprint):
    """The test images uint8 (N, 32, 32, 3) of this source and fingerprint where they are here; nothing is downloaded.

    None where they are not.
    """
    if source != "digits" and not cifar10_is_here():
        return None
    dataset = load_dataset(source)
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

    The last k are a held-out split. labels: integers (N,). Returns int64 (N,).
    """
    generator = np.random.default_rng(SPLIT_SEED)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(position, kind="stable")


def split_indices(labels, validation_images):
    """Training and validation indices, each sorted.

    Raises StudyError where no training image would be left.
    """
    if validation_images >= len(labels):
        raise StudyError(f"validation_images = {validation_images} leaves none of {len(labels)} images for training")
    order = stratified_order(labels)
    train = len(order) - validation_images
    return np.sort(order[:train]), np.sort(order[train:])


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(small.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    labels = digits.target.astype(np.uint8)
    train, test = split_indices(labels, 500)
    return Dataset("digits", DIGITS_CLASSES, images[train], labels[train], images[test], labels[test])


def _cache():
    return data_folder() / "cache" / "cifar10.npz"


def _cached_cifar10():
    """The images from the cache, or else decoded, by one process at a time, since a download has only one place."""
    dataset = _read_cache()
    if dataset is None:
        with _alone_in_data_folder():
            dataset = _read_cache()  # another process may have been at it
            if dataset is None:
                dataset = _official_archive()
                with contextlib.suppress(StudyError):  # a data folder that cannot be written only costs time
                    atomic_write(_cache(), lambda file: np.savez(file, **dataset.arrays))
    return dataset


def _read_cache():
    """The images in the cache; None where there is none, or one that is not the official images."""
    try:
        with np.load(_cache(), allow_pickle=False) as stored:
            dataset = Dataset("cifar10", CIFAR10_CLASSES, **stored)
        return dataset if dataset.fingerprint == OFFICIAL_FINGERPRINT else None
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
        reason = " ".join(str(error).split())
        raise StudyError(
            f"CIFAR-10 is not whole in {shown(folder)}/ and cannot be downloaded ({reason}): put cifar-10-python.tar.gz "
            "from https://www.cs.toronto.edu/~kriz/cifar.html there, or take --study smoke, which needs no data"
        ) from None
    labels = [np.array(part.targets, dtype=np.uint8) for part in (train, test)]
    dataset = Dataset("cifar10", CIFAR10_CLASSES, train.data, labels[0], test.data, labels[1])
    if dataset.fingerprint != OFFICIAL_FINGERPRINT:
        raise StudyError(f"the images in {shown(folder)}/ are not the official CIFAR-10: delete them to download it")
    return dataset
