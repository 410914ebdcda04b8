"""What all tests share: folders of their own, no way to the network or a GPU, and runs that take a second."""

import csv
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
from made_runs import small_study

from lib.data import Dataset, load_dataset
from lib.files import ROOT, StudyError, lock
from lib.study import RunConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
ENVIRONMENT = dict(os.environ)  # before any test changes it
outcomes = {}  # of every test, {name: whether all its calls have passed}
STUDY = """
title: A tiny study
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits, width: 0.0625, reduction: 4, epochs: 2, warmup_epochs: 1.0, batch_size: 64, lesion_images: 20,
  precision: fp32}
arms: {resnet18: {}, se_resnet18: {}}
stages:
  - {name: primary, arms: [resnet18, se_resnet18], seeds: 2}
"""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # else a long one comes last and alone


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
    return RunConfig(**(settings | {"precision": "fp32"} | changes))


def tiny_dataset(images=96):
    """The first so many training and 40 test images of digits."""
    digits = load_dataset("digits")
    train = digits.train_images[:images], digits.train_labels[:images]
    return Dataset("digits", *train, digits.test_images[:40], digits.test_labels[:40])


@pytest.fixture(autouse=True)
def isolation(monkeypatch, tmp_path):
    """Nothing in the checkout is touched, and a request that leaves this machine fails at once."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path / "outputs"))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def dataset():
    return tiny_dataset()


@pytest.fixture(scope="session")
def make_trainer(dataset):
    """make_trainer(…) builds a trainer of the tiny run on the first so many images of dataset."""
    import torch

    from lib.train.models import build_model
    from lib.train.trainer import Trainer

    def make(images=96, precision="fp32", speedups=None, **changes):
        config, arrays = tiny_config(**changes), (dataset.train_images[:images], dataset.train_labels[:images])
        return Trainer(config, build_model(config, 10), *arrays, torch.device("cpu"), precision, speedups)

    return make


@pytest.fixture
def small(tmp_path):
    return small_study(tmp_path)


@pytest.fixture
def programs(tmp_path):
    """programs(name=script, …) puts stand-ins for programs into tmp_path/bin."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(**scripts):
        for name, script in scripts.items():
            (folder / name).write_text(f"#!{shutil.which('sh')}\n{script}\n")
            (folder / name).chmod(0o755)

    return add


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
    with ExitStack() as stack:

        def protect(folder):
            if os.geteuid():
                for path in (folder, *filter(Path.is_dir, folder.rglob("*"))):
                    path.chmod(0o500)
                    stack.callback(path.chmod, 0o700)
            else:  # root may write everywhere but on a disk that is mounted read-only
                mount("--bind", folder, folder)
                stack.callback(subprocess.run, ["umount", folder], check=True)
                mount("-o", "remount,bind,ro", folder)
            return folder

        yield protect


def mount(*arguments):
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted")


def write_study(folder, text=STUDY):
    """Path of the study file tiny.yaml in the folder."""
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def wait_until(true, seconds=300):
    """Return as soon as true() holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{true} did not come true in {seconds} s"
        time.sleep(0.05)


def end(process):
    """Wait for a process that writes into pipes; returns it with `out` and `err`, what it has written."""
    process.out, process.err = (each.decode(errors="replace") for each in process.communicate(timeout=600))
    return process


def is_free(folder):
    """Whether the process that held the lock of this folder has ended."""
    try:
        with lock(folder, "the folder"):
            return True
    except StudyError:
        return False
