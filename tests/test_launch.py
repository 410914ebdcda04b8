import dataclasses
import sys
import time
import types

import pytest

from lib import estimate, launch, notebooks
from lib.config import config_hash
from lib.errors import StudyError
from lib.paths import run_folder
from lib.runs import write_json
from lib.slots import slot_environments
from lib.study import Study
from lib.studyfile import Stage


@pytest.fixture
def study(make_config):
    return Study("mine", "Title", "se_resnet18", "resnet18", tuple(make_config(seed=seed) for seed in range(3)))


def test_missing_runs_keep_the_order_of_the_study(study):
    assert launch.missing_runs(study) == list(study.runs)


def test_the_time_limit_counts_what_a_run_needs(study):
    images = estimate.images_to_train(study.runs[0])
    needed = estimate.NOTEBOOK_SECONDS + launch.MARGIN * 0.01 * images
    for seconds_left, started in ((needed - 1, False), (needed + 5, True)):
        queue = launch.Queue(study, "mine", study.runs, [], 0.01, seconds_left)
        assert (time.monotonic() + queue._seconds(study.runs[0]) <= queue.deadline) == started


def finish(study, config, notebook=True):
    """Writes a complete run folder; returns the path of its notebook, which may be lost."""
    folder = run_folder(study.name, config.arm, config.seed)
    part = "val" if config.validation_images else "test"
    summary = dict.fromkeys(("data_source", "data_fingerprint", "precision"), "same") | {
        "config_hash": config_hash(config.to_dict()),
        f"{part}_accuracy": 0.5,
        f"{part}_loss": 1.0,
        "parameters": 1,
        "train_seconds": 1.0,
    }
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "summary.json", summary)
    if notebook:
        (folder / "notebook.ipynb").write_text("{}")
    return folder / "notebook.ipynb"


@pytest.fixture
def staged(make_config):
    """A study whose runs are of the tuning, of its arms, and of what is derived from them."""
    arms = ("resnet18", "se_resnet18")
    stages = (
        Stage("primary", arms, (0, 1), {"": {}}, "own"),
        Stage("cross", arms, (0,), {"": {}}, "other"),
        Stage("length", arms, (0,), {"short": {"epochs": 1}}, "own"),
    )
    trial = make_config(arm="tuning__resnet18", architecture="resnet18", seed=9, validation_images=20)
    names = [(arm, seed) for seed in (0, 1) for arm in arms]
    names += [(f"{arm}__{variant}", 0) for variant in ("other_winner", "short") for arm in arms]
    runs = [make_config(arm=arm, architecture=arm.split("__")[0], seed=seed) for arm, seed in names]
    return Study("mine", "Title", "se_resnet18", "resnet18", (trial, *runs), stages=stages)


def test_missing_runs_are_those_of_the_tuning_and_of_the_stages_alike(staged):
    for config in (staged.runs[0], staged.runs[3]):
        finish(staged, config)
    assert launch.missing_runs(staged) == [*staged.runs[1:3], *staged.runs[4:]]


def test_each_arm_of_the_study_file_shows_one_notebook(staged):
    paths = {(config.arm, config.seed): finish(staged, config) for config in staged.runs}
    arms = ("resnet18", "se_resnet18")
    assert launch.ensure_notebooks(staged, "mine", {}) == {arm: paths[arm, 0] for arm in arms}
    paths["resnet18", 0].unlink()
    assert launch.ensure_notebooks(staged, "mine", {})["resnet18"] == paths["resnet18", 1]


def test_only_lost_notebooks_of_arms_are_executed_again(staged, monkeypatch, capsys):
    started = []

    class Process:
        def __init__(self, study, study_name, config, environment):
            started.append((config.arm, config.seed))

        def wait(self):
            if started[-1][0] == "se_resnet18":
                raise StudyError("no kernel")

    monkeypatch.setattr(launch, "start_run", Process)
    paths = {(config.arm, config.seed): finish(staged, config, notebook=False) for config in staged.runs}
    assert launch.ensure_notebooks(staged, "mine", {}) == {"resnet18": paths["resnet18", 0]}
    assert started == [("resnet18", 0), ("se_resnet18", 0)]
    assert "no training notebook of se_resnet18" in capsys.readouterr().out


def test_arm_without_a_complete_run_shows_no_notebook(staged):
    for config in staged.runs:
        if config.arm not in ("resnet18", "se_resnet18"):
            finish(staged, config)
    assert launch.ensure_notebooks(staged, "mine", {}) == {}


def test_run_of_a_stage_starts_the_training_notebook_with_its_own_parameters(staged, monkeypatch):
    started = []
    monkeypatch.setattr(launch, "NotebookProcess", lambda *arguments: started.append(arguments))
    config = dataclasses.replace(staged.runs[0], seed=1000)
    launch.start_run(staged, "/a/mine.yaml", config, {"OMP_NUM_THREADS": "1"})
    ((template, output, log, parameters, environment),) = started
    assert (template.name, environment) == ("train.ipynb", {"OMP_NUM_THREADS": "1"})
    assert output == run_folder("mine", "tuning__resnet18", 1000) / "notebook.ipynb"
    assert log.name == "tuning__resnet18-seed-1000.log"
    assert parameters == {"study": "/a/mine.yaml", "arm": "tuning__resnet18", "seed": 1000}


STAND_IN = """#!/bin/sh
# python -m papermill <template> <output> ...: says what it sees, and ends when all that run at once have said so
cd "$SEEN"
echo "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS" >"$$"
while [ "$(ls | wc -l)" -lt "$AT_ONCE" ]; do sleep 0.1; done
echo '{}' >"$4"
"""


@pytest.mark.parametrize("runs_per_gpu", [1, 2])
def test_each_run_sees_one_of_four_gpus(runs_per_gpu, study, tmp_path, monkeypatch, make_config):
    program, seen, jobs = tmp_path / "python", tmp_path / "seen", 4 * runs_per_gpu
    seen.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setattr(notebooks, "sys", types.SimpleNamespace(executable=str(program), prefix=sys.prefix))
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("lib.slots.cpu_cores", lambda: 16)
    monkeypatch.setenv("SEEN", str(seen))
    monkeypatch.setenv("AT_ONCE", str(jobs))
    configs = [make_config(seed=seed) for seed in range(jobs + 1)]  # one must wait for a slot to be free again
    gpus = ["0", "1", "2", "GPU-3"]
    assert launch.Queue(study, "mine", configs, slot_environments(jobs, gpus), 1e-6).work() == []
    environments = [path.read_text().split() for path in seen.iterdir()]
    assert len(environments) == len(configs) and {threads for _, threads in environments} == {str(16 // jobs)}
    counts = sorted(sum(name == gpu for name, _ in environments) for gpu in gpus)
    assert counts == [*[runs_per_gpu] * 3, runs_per_gpu + 1]
    assert all((run_folder("mine", config.arm, config.seed) / "notebook.ipynb").exists() for config in configs)
