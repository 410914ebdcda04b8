"""Whole runs and whole analyses, timed as a user sees them, in folders that are thrown away."""

import tempfile
import time
from pathlib import Path

import yaml

from lib.config import RunConfig
from lib.data import load_dataset
from lib.experiment import execute_run
from lib.madeup import make_up_run
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS
from lib.runs import read_json
from lib.study import load_study

TITLE = "A study to measure with"
ARMS = ("resnet18", "se_resnet18")


def write_study(folder, recipe, seeds):
    """A study file of both primary arms with this recipe and number of seeds; returns its path."""
    content = {
        "title": TITLE,
        "primary": {"arm": ARMS[1], "baseline": ARMS[0]},
        "recipe": recipe,
        "arms": {arm: {} for arm in ARMS},
        "stages": [{"name": "primary", "arms": list(ARMS), "seeds": seeds}],
    }
    path = Path(folder) / "measured.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def time_whole_run(recipe):
    """Seconds of one run of resnet18 through papermill, from its start to its end, and of the training within it."""
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(folder, recipe, seeds=1)
        parameters = {"study": study, "arm": "resnet18", "seed": 0}
        wall = _time_notebook("train.ipynb", Path(folder), parameters)
        summary = read_json(Path(folder) / study.stem / "runs" / "resnet18" / "seed-00" / "summary.json")
    return {"wall_seconds": wall, "train_seconds": summary["train_seconds"]}


def time_analysis(finished_runs):
    """Seconds of analysis.ipynb on so many finished runs with made-up predictions."""
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(folder, {"dataset": "cifar10", "epochs": 50}, seeds=finished_runs // len(ARMS))
        for config in load_study(str(study)).runs:
            make_up_run(Path(folder) / study.stem / "runs" / config.arm / f"seed-{config.seed:02d}", config)
        return _time_notebook("analysis.ipynb", Path(folder), {"study": study})


def _time_notebook(name, folder, parameters):
    started = time.perf_counter()
    outputs = {"STUDY_OUTPUTS": str(folder)}
    NotebookProcess(NOTEBOOKS / name, folder / name, folder / "log", parameters, outputs).wait()
    return time.perf_counter() - started


def tiny_runs(count):
    """So many complete runs on digits, one after another, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            config = RunConfig("resnet18", seed, "resnet18", "digits", 1 / 16, epochs=1, warmup_epochs=1, batch_size=32)
            execute_run(config, load_dataset("digits"), Path(folder) / str(seed))
