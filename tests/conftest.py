"""What all tests share: folders of their own, no way to the network or a GPU, and a run that takes a second."""

import csv
import os
import shutil
import subprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest

from lib.data import Dataset, load_dataset
from lib.files import ROOT
from lib.study import RunConfig

ENVIRONMENT = dict(os.environ)  # before any test changes it
outcomes = {}  # of every test, {name: whether all its calls have passed}


def pytest_runtest_logreport(report):
    name = report.nodeid.split("[")[0].rpartition("/")[2]
    if report.when == "call" or report.failed:
        outcomes[name] = outcomes.get(name, True) and report.passed


def pytest_sessionfinish(session):
    """Copy the table of troubles to outputs/reliability when all tests that it names have passed."""
    with (ROOT / "tests" / "troubles.csv").open(encoding="utf-8") as table:
        passed = [outcomes.get(row["test"]) for row in csv.DictReader(table)]
    if all(passed):
        shutil.copy(table.name, ROOT / "outputs" / "reliability")


def tiny_config(**changes):
    """Config of a run on tiny_dataset() that trains for less than a second."""
    settings = {"arm": "se_resnet18", "seed": 0, "architecture": "se_resnet18", "dataset": "digits", "width": 1 / 16}
    settings |= {"reduction": 4, "epochs": 3, "warmup_epochs": 1.0, "batch_size": 32, "lesion_images": 20}
    settings["precision"] = "fp32"
    return RunConfig(**{**settings, **changes})


def tiny_dataset():
    """The first 96 training and 40 test images of digits."""
    digits = load_dataset("digits")
    train, test = (
        (digits.train_images[:96], digits.train_labels[:96]),
        (digits.test_images[:40], digits.test_labels[:40]),
    )
    return Dataset("digits", *train, *test)


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
    mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def read_only(tmp_path):
    """read_only(folder) lets nobody write in it until the end of the test; skips where that is not permitted."""
    folders, mounted = [], []

    def protect(folder):
        if os.geteuid():
            folders.extend(path for path in (folder, *folder.rglob("*")) if path.is_dir())
            for path in folders:
                path.chmod(0o500)
        else:  # root may write everywhere but on a disk that is mounted read-only
            mount("--bind", folder, folder)
            mounted.append(folder)
            mount("-o", "remount,bind,ro", folder)
        return folder

    yield protect
    for folder in folders:
        folder.chmod(0o700)
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def mount(*arguments):
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted")
