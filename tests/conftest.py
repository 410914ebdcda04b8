"""What all tests share: folders of their own, no way to the network or a GPU, and a run that takes a second."""

import dataclasses
import os
import subprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest

from lib.config import RunConfig
from lib.data import load_dataset


def tiny_config(**changes):
    """Config of a run on tiny_dataset() that trains for less than a second."""
    settings = {
        "arm": "se_resnet18",
        "seed": 0,
        "architecture": "se_resnet18",
        "dataset": "digits",
        "width": 1 / 16,
        "reduction": 4,
        "epochs": 3,
        "warmup_epochs": 1,
        "batch_size": 32,
        "precision": "fp32",
    }
    return RunConfig(**{**settings, **changes})


def tiny_dataset():
    """The first 96 training and 40 test images of digits."""
    digits = load_dataset("digits")
    sizes = {"train": 96, "test": 40}
    return dataclasses.replace(
        digits, **{name: array[: sizes[name.split("_")[0]]] for name, array in digits.arrays.items()}
    )


@pytest.fixture(autouse=True)
def isolation(monkeypatch, tmp_path):
    """Nothing in the checkout is touched, and a request that leaves this machine fails at once."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path / "outputs"))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def make_config():
    return tiny_config


@pytest.fixture(scope="session")
def dataset():
    return tiny_dataset()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 KiB, mounted for one test; skips where mounting is not permitted."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted")
    yield folder
    subprocess.run(["umount", folder], check=True)
