"""Three public annotations of the CIFAR-10 test images: human uncertainty, near-duplicates and label errors.

They are optional: what cannot be had is None, and the analyses that need it are left out.
"""

import hashlib
import io
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import entr

from lib.data import IMAGES
from lib.errors import StudyError
from lib.paths import data_folder, shown
from lib.runs import atomic_write

TIMEOUT_SECONDS = 10
MAJORITY = 3  # of the five raters of a possible label error


class AnnotationFile(NamedTuple):
    """A published file: its name in the data folder and where it comes from."""

    name: str
    url: str
    sha256: str
    source: str
    licence: str


ANNOTATIONS = {  # by field of Annotations
    "human_entropy": AnnotationFile(
        "cifar10h-probs.npy",
        "https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data/cifar10h-probs.npy",
        "436ae98620e00073f9d08585ac870573b588853e7af9f54eb1647408114af77d",
        "CIFAR-10H, Peterson et al. 2019",
        "CC BY-NC-SA 4.0",
    ),
    "duplicate": AnnotationFile(
        "cifair10-duplicates.csv",
        "https://raw.githubusercontent.com/cvjena/cifair/master/meta/duplicates_cifar10.csv",
        "4cb7e99a7dfff346082c9d8fa4c2989a196e4a37d1e58f75936046696f1ba6a4",
        "ciFAIR, Barz & Denzler 2020",
        "none stated",
    ),
    "label_error": AnnotationFile(
        "cifar10-label-errors.json",
        "https://raw.githubusercontent.com/cleanlab/label-errors/main/mturk/cifar10_mturk.json",
        "81b2c16c9eee060d6cc2390f6bbce1e0e7be0a050574be5177c9428f3596b5b5",
        "cleanlab label errors, Northcutt et al. 2021",
        "Apache 2.0",
    ),
}


class Annotations(NamedTuple):
    """What is known of each test image, in official order; None for what is not here.

    human_entropy: float64 (10000,), nats, of the labels that people gave the image.
    duplicate: bool (10000,), a training image shows the same or nearly the same (286 images).
    label_error: bool (10000,), flagged by Northcutt et al. 2021 (275 images) and fewer than three of five raters chose
    the given label alone (54 images); a rater who saw both classes, or neither, does not confirm it.
    """

    human_entropy: np.ndarray | None
    duplicate: np.ndarray | None
    label_error: np.ndarray | None


def fetch_annotations():
    """Put the missing annotation files into the data folder; returns one line on each that cannot be had or used.

    Raises nothing for the network, the disk or a file that is not the published one, which is left alone.
    """
    with ThreadPoolExecutor() as pool:  # all at once: without a network the waits do not add up
        notes = pool.map(_fetch, ANNOTATIONS.values())
        return [note for note in notes if note]


def load_annotations():
    """Annotations from the files in the data folder that have the published checksum."""
    readers = {"human_entropy": _human_entropy, "duplicate": _duplicate, "label_error": _label_error}
    contents = {field: _stored(file) for field, file in ANNOTATIONS.items()}
    return Annotations(
        **{
            field: readers[field](content) if _is_published(content, ANNOTATIONS[field]) else None
            for field, content in contents.items()
        }
    )


def _human_entropy(content):
    return entr(np.load(io.BytesIO(content), allow_pickle=False)).sum(axis=1)


def _duplicate(content):
    return _among_test_images(pd.read_csv(io.BytesIO(content))["TestID"])


def _label_error(content):
    return _among_test_images([image["id"] for image in json.loads(content) if image["mturk"]["given"] < MAJORITY])


def _among_test_images(indices):
    return np.isin(np.arange(IMAGES["test"]), indices)


def _stored(file):
    """Content of the file in the data folder, None where it is missing or cannot be read."""
    try:
        return (data_folder() / file.name).read_bytes()
    except OSError:
        return None


def _is_published(content, file):
    return content is not None and hashlib.sha256(content).hexdigest() == file.sha256


def _fetch(file):
    """Download the file where it is missing; returns a line on what went wrong, or None."""
    stored, folder = _stored(file), f"{shown(data_folder())}/"
    remedy = f"put it into {folder} under this name from {file.url}"
    if stored is not None:
        good = _is_published(stored, file)
        return None if good else f"{file.name} has a wrong checksum and is not used: delete it, or {remedy}"
    try:
        with urllib.request.urlopen(file.url, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read()
    except Exception as error:  # noqa: BLE001 a network has many ways to fail
        reason = " ".join(str(getattr(error, "reason", error)).split())
        return f"{file.name} is missing and cannot be downloaded ({reason}): {remedy}"
    if not _is_published(content, file):
        return f"{file.name} is missing and its download has a wrong checksum: {remedy}"
    try:
        atomic_write(data_folder() / file.name, lambda partial: partial.write(content))
    except StudyError:
        return f"{file.name} is missing and {folder} cannot be written: make it writable, or set STUDY_DATA"
    return None
