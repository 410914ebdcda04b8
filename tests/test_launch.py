"""Which runs are started where and when, with stand-ins for the notebooks that train."""

import threading
import time
import types

import pandas as pd
import pytest
from conftest import STUDY, write_study
from made_runs import make_run

from lib.files import StudyError, read_json, run_folder, write_json, write_table
from lib.launch import pages, pool
from lib.launch.pool import Pool, check_trainable, missing_runs, slots
from lib.study import load_study

SHORT = "  - {name: short, arms: [resnet18, se_resnet18], seeds: 1, variants: {short: {epochs: 1}}}"


@pytest.fixture
def study(tmp_path):
    return load_study(str(write_study(tmp_path, STUDY.replace("epochs: 2", "epochs: 4") + SHORT)))


def folder_of(study, config):
    return run_folder(study.name, config.arm, config.seed)


def finish(study, config, train_seconds=1.0):
    """Leave a finished run that has trained for so long with one thread."""
    folder = folder_of(study, config)
    make_run(folder, config)
    write_json(folder / "summary.json", read_json(folder / "summary.json") | {"train_seconds": train_seconds})


@pytest.fixture
def notebooks(study, monkeypatch):
    """Stand-ins for training notebooks: `started` holds what each start was given, `train(config)` what it does."""
    found = types.SimpleNamespace(started=[], train=lambda config: finish(study, config))

    def run_process(study, name, config, environment):
        found.started.append((config, environment))
        return types.SimpleNamespace(wait=lambda: found.train(config))

    found.configs = lambda: [config for config, _ in found.started]
    monkeypatch.setattr(pool, "run_process", run_process)
    monkeypatch.setattr(pages, "run_process", run_process)
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)
    return found


def work(study, environments=({"OMP_NUM_THREADS": "1"},), seconds=None):
    deadline = None if seconds is None else time.monotonic() + seconds
    return Pool(study, "tiny", missing_runs(study), list(environments), deadline).work()


def test_runs_are_started_in_order_and_those_that_are_finished_or_diverged_not_repeated(study, notebooks):
    config = study.runs[0]
    write_json(folder_of(study, config) / "config.json", config.model_dump())
    write_json(folder_of(study, config) / "failure.json", {"reason": "the loss is nan"})
    assert missing_runs(study) == list(study.runs[1:])
    write_json(folder_of(study, config) / "config.json", config.model_dump() | {"epochs": 9})
    assert missing_runs(study) == list(study.runs)  # for other settings may not diverge
    finish(study, study.runs[1])
    assert work(study) == (0, 0)
    assert notebooks.configs() == [study.runs[0], *study.runs[2:]]
    assert not missing_runs(study)


def test_a_run_that_fails_does_not_stop_the_others_and_is_told_once(study, notebooks, capsys):
    def fail(config):
        if config.arm == "se_resnet18":
            raise StudyError("no luck")
        if config.epochs > 1:
            finish(study, config)

    notebooks.train = fail
    failed, left = work(study)
    assert (failed, left) == (4, 0) and len(notebooks.started) == 6
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "no luck" in line] == [f"failed: se_resnet18 seed {s}: no luck" for s in (0, 1)]
    unfinished = [line for line in lines if line.startswith("failed: ") and "is not complete" in line]
    assert len(unfinished) == 2  # notebooks that ended well without a run


@pytest.mark.parametrize("runs_per_gpu", [1, 2])
def test_each_run_gets_one_of_the_gpus_and_a_share_of_the_threads(runs_per_gpu, study, notebooks, monkeypatch):
    gpus = ["0", "GPU-3"]
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    together = threading.Barrier(2 * runs_per_gpu, timeout=60)

    def train(config):
        finish(study, config)
        if config in first:
            together.wait()  # comes true only if so many run at once

    notebooks.train = train
    first = missing_runs(study)[: 2 * runs_per_gpu]
    environments = slots(gpus, None if runs_per_gpu == 1 else 4)
    assert work(study, environments) == (0, 0)
    seen = [environment["CUDA_VISIBLE_DEVICES"] for config, environment in notebooks.started if config in first]
    assert sorted(seen) == sorted(gpus * runs_per_gpu)
    assert {each["OMP_NUM_THREADS"] for _, each in notebooks.started} == {str(16 // len(environments))}


def test_a_cpu_takes_two_runs_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert [each["OMP_NUM_THREADS"] for each in slots([])] == ["2", "2"]
    assert [each["OMP_NUM_THREADS"] for each in slots([], 1)] == ["4"] and len(slots([], 6)) == 6
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert len(slots([])) == 1
    assert "CUDA_VISIBLE_DEVICES" not in slots([])[0]


BUDGETS = [(99, 1, 0, 3, 2), (30, 1, 0, 0, 2), (10, 1, 0, 0, 0), (30, 4, 0, 3, 2), (30, 1, 3, 1, 2)]


@pytest.mark.parametrize(("seconds", "threads", "done", "full", "short"), BUDGETS)
def test_a_time_budget_starts_what_fits_and_shorter_runs_instead(seconds, threads, done, full, short, study, notebooks):
    finish(study, study.runs[0], train_seconds=40)  # a run with four epochs; those of one epoch need a quarter
    write_table(folder_of(study, study.runs[1]) / "metrics.csv", pd.DataFrame({"epoch": range(1, done + 1)}))
    notebooks.train = lambda config: finish(study, config, train_seconds=10 * config.epochs)
    failed, left = work(study, [{"OMP_NUM_THREADS": str(threads)}], seconds + 5)
    assert (failed, left) == (0, 5 - full - short)
    assert sorted(config.epochs for config in notebooks.configs()) == [1] * short + [4] * full


def test_before_anything_has_finished_one_run_is_started_and_then_judged_by(study, notebooks):
    notebooks.train = lambda config: finish(study, config, train_seconds=1000)
    assert work(study, seconds=50) == (0, 5)
    assert notebooks.configs() == [study.runs[0]]


def test_runs_on_other_images_and_networks_that_cannot_be_built_are_refused(study, monkeypatch):
    check_trainable(study, missing_runs(study))
    finish(study, study.runs[0])
    with monkeypatch.context() as change, pytest.raises(StudyError, match="stale: another"):
        finish(study, study.run("resnet18", 1))  # as trained after the network was changed
        change.setattr("lib.train.run.Run.stale", property(lambda run: "" if run.config.seed else "stale: another"))
        check_trainable(study, study.runs)
    with pytest.raises(StudyError, match="was trained on other images .*set STUDY_OUTPUTS"):
        check_trainable(study, missing_runs(study))
    for change, told in (({"reduction": 3}, "reduction = 3"), ({"architecture": "resnet8"}, "you mean 'resnet18'")):
        configs = [config.model_copy(update=change) for config in study.runs]
        with pytest.raises(StudyError, match=told):
            check_trainable(study, configs)


def test_each_arm_shows_a_training_of_its_own_and_none_of_the_primary_ones_before_all_are_there(study, notebooks):
    notebooks.train = lambda config: write_json(folder_of(study, config) / "notebook.ipynb", {"metadata": {}})
    first, second, unfinished = study.run("resnet18", 0), study.run("se_resnet18", 0), study.run("se_resnet18", 1)
    for config in study.runs:
        if config != unfinished:
            finish(study, config)
    pages.ensure_notebooks(study, "tiny")
    assert notebooks.configs() == [study.run("resnet18__short", 0), study.run("se_resnet18__short", 0)]
    finish(study, unfinished)
    found = pages.ensure_notebooks(study, "tiny")
    assert [path.name for path in found.values()] == ["train-resnet18.ipynb", "train-se_resnet18.ipynb"]
    for config in (first, second):
        (folder_of(study, config) / "notebook.ipynb").unlink()  # as in a clone
    pages.ensure_notebooks(study, "tiny")
    summary = folder_of(study, first) / "summary.json"
    write_json(summary, read_json(summary) | {"finished_utc": "later"})  # trained again elsewhere
    pages.ensure_notebooks(study, "tiny")
    assert notebooks.configs()[2:] == [first, second, first]
