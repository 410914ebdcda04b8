"""Images as uint8 arrays: the official CIFAR-10 or scikit-learn's digits."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import pickle
import socket
import sys
import warnings

import numpy as np
from filelock import FileLock

from lib.files import StudyError, data_folder, shown

CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "digits": tuple("0123456789"),
}
OFFICIAL_FINGERPRINT = "ab9f55ddab89a724f7ed508a5dfc4a3a30a48a75e7280a5f69045326de5e5c5f"  # as Dataset.fingerprint
FOLDER = "cifar-10-batches-py"
BATCHES = {  # MD5 of the official files
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
SPLIT_SEED = 2018  # of the held-out split, the same for every run
TIMEOUT_SECONDS = 30  # without an answer, for downloads
CIFAR10H_URL = "https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data/cifar10h-probs.npy"
CIFAR10H_SHA256 = "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, 32, 32, 3), labels uint8 (N,), both in official order."""

    source: str  # its name, cifar10 or digits
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def classes(self):
        """Names of the classes, by label."""
        return CLASSES[self.source]

    @functools.cached_property
    def fingerprint(self):
        """SHA-256 over shapes and bytes of all images and labels, hexadecimal."""
        digest = hashlib.sha256()
        for name, array in list(vars(self).items())[1:]:
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def load_dataset(name):
    """The data set `cifar10` or `digits`; CIFAR-10 is downloaded where it is not in the data folder.

    Raises StudyError for data that is missing, damaged or not the official CIFAR-10.
    """
    if name == "digits":
        return _digits()
    if _damaged_batches():
        held = FileLock(data_folder() / ".lock")  # a download has only one place
        try:
            with contextlib.suppress(OSError, NotImplementedError):  # where no lock can be made, nobody waits
                held.acquire()
            if _damaged_batches():
                _download()
        finally:
            held.release()
    return _official_cifar10()


def local_dataset(name):
    """The data set if its images are here and whole, else None; nothing is downloaded and nothing raised."""
    with contextlib.suppress(StudyError, ImportError):  # an archive cannot be opened without torchvision
        if name == "digits" or not _damaged_batches() or _archive_is_whole():
            return load_dataset(name)


def split_indices(labels, validation_images):
    """Indices int64 for training and validation, each sorted, the classes in equal shares; labels: integers (N,).

    Raises StudyError where no training image would be left.
    """
    if validation_images >= len(labels):
        raise StudyError(f"validation_images = {validation_images} leaves none of {len(labels)} images for training")
    generator = np.random.default_rng(SPLIT_SEED)
    position = np.empty(len(labels))
    for label in np.unique(labels):  # spread each class evenly over 0 to 1: then every prefix holds equal shares
        members = np.flatnonzero(labels == label)
        position[generator.permutation(members)] = (np.arange(len(members)) + generator.random()) / len(members)
    order = np.argsort(position, kind="stable")
    train = len(order) - validation_images
    return np.sort(order[:train]), np.sort(order[train:])


def human_labels():
    """How people label each CIFAR-10 test image, float64 (10000, 10), rows sum to 1; None where it cannot be had.

    CIFAR-10H, Peterson et al. 2019, CC BY-NC-SA 4.0; downloaded once into the data folder and verified.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of a bar without ipywidgets, which is not shown anyway
            import pooch

        pooch.get_logger().setLevel("WARNING")
        download = pooch.HTTPDownloader(timeout=(5, TIMEOUT_SECONDS))  # to connect, to answer
        name = "cifar10h-probs.npy"
        path = pooch.retrieve(CIFAR10H_URL, f"sha256:{CIFAR10H_SHA256}", name, data_folder(), downloader=download)
        return np.load(path, allow_pickle=False)
    except Exception:  # noqa: BLE001 it is optional, and a network has many ways to fail
        return None


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(small.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)
    labels = digits.target.astype(np.uint8)
    train, test = split_indices(labels, 500)
    return Dataset("digits", images[train], labels[train], images[test], labels[test])


def _damaged_batches():
    """Names of the official files that are missing or damaged in the data folder."""
    return [name for name, checksum in BATCHES.items() if hashlib.md5(_bytes(name)).hexdigest() != checksum]


def _bytes(name):
    """Content of an official file, empty where it cannot be read."""
    try:
        return (data_folder() / FOLDER / name).read_bytes()
    except OSError:
        return b""


def _archive_is_whole():
    """Whether the official archive is here with its checksum, which a download that was cut short has not."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    return check_integrity(data_folder() / CIFAR10.filename, CIFAR10.tgz_md5)


def _official_cifar10():
    # a pickle could run anything, so only files with the official checksums come here
    batches = [pickle.loads(_bytes(name), encoding="latin1") for name in BATCHES]
    images = [batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for batch in batches]
    labels = [np.array(batch["labels"], np.uint8) for batch in batches]
    train = np.concatenate(images[:5]), np.concatenate(labels[:5])
    return Dataset("cifar10", *train, np.ascontiguousarray(images[5]), labels[5])


def _download():
    """Put the official files into the data folder, from the archive if that is here, else from the network."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive, extract_archive

    folder, before = data_folder(), socket.getdefaulttimeout()
    try:
        if _archive_is_whole():
            extract_archive(folder / CIFAR10.filename, folder)
        else:
            print(f"downloading CIFAR-10 (170 MB) into {shown(folder)}/ …", flush=True)
            socket.setdefaulttimeout(TIMEOUT_SECONDS)
            watched = sys.stderr.isatty() or "ipykernel" in sys.modules  # a log would hold every state of the bar
            with contextlib.redirect_stderr(sys.stderr if watched else io.StringIO()):
                download_and_extract_archive(CIFAR10.url, folder, filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
    except Exception as error:  # noqa: BLE001 a network has many ways to fail
        names = [name for name in _damaged_batches() if (folder / FOLDER / name).exists()]
        damaged, reason = f" ({', '.join(names)} damaged)" if names else "", " ".join(str(error).split())
        problem = f"CIFAR-10 is not whole in {shown(folder)}/{damaged} and cannot be fetched ({reason})"
        remedy = f"put {CIFAR10.filename} from https://www.cs.toronto.edu/~kriz/cifar.html there"
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
            remedy = "free space, or set STUDY_DATA to a folder that you may write in"
        raise StudyError(f"{problem}: {remedy}, or take --study smoke, which needs no data") from None
    finally:
        socket.setdefaulttimeout(before)
