"""For tests of processes that train: a tiny study, and waiting for what others do."""

import time

from lib.files import StudyError, lock

STUDY = """
title: A tiny study
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits, width: 0.0625, reduction: 4, epochs: 2, warmup_epochs: 1.0, batch_size: 64, lesion_images: 20,
  precision: fp32}
arms: {resnet18: {}, se_resnet18: {}}
stages:
  - {name: primary, arms: [resnet18, se_resnet18], seeds: 2}
"""


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


def is_free(folder):
    """Whether the process that held the lock of this folder has ended."""
    try:
        with lock(folder, "the folder"):
            return True
    except StudyError:
        return False
