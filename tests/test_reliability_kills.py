"""Twenty seeded trials of kill -9 over training, saving and analysis; killtrials.py does the killing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from killtrials import CONFIG, OLD, RESULTS, STUDY

from lib.paths import ROOT, run_folder
from lib.runs import finished_runs, load_logits
from lib.study import Study

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="killtrials.py needs Linux")
TRIALS = {"train": 14, "analyse": 6}


def trials(folder, work):
    """The records of the trials, once they are all done; a few seconds for each."""
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    script = Path(__file__).with_name("killtrials.py")
    done = subprocess.run(
        [sys.executable, script, folder, work],
        env=os.environ | {"PYTHONPATH": paths, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert len(records) == TRIALS[work] and all(record["phases"] for record in records)
    return records


def phases(records):
    return {phase for record in records for phase in record["phases"]}


def analysis_files(outputs):
    folder = outputs / "measured"
    paths = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "runs"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.fault(
    "kill -9 at seeded steps and moments of a training, up to three times in a run: while it starts, within epochs, "
    "half-way through files, and while it tests (14 trials)",
    "the run goes on with at most one epoch repeated and ends as one complete run with the same logits bit for bit, "
    "each epoch once in its metrics, and no part of a file left",
)
def test_killed_trainings_end_like_an_undisturbed_one(tmp_path, monkeypatch):
    records = trials(tmp_path, "train")
    struck = phases(records)
    assert {"starting", "training", "testing"} <= struck
    assert sum(phase.startswith("writing ") for phase in struck) >= 3
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path / "whole"))
    whole = run_folder(STUDY, CONFIG.arm, CONFIG.seed)
    study = Study(STUDY, "Title", "se_resnet18", "resnet18", (CONFIG,))
    for record in records:
        assert set(record["lost"]) <= {0, 1}, record
        monkeypatch.setenv("STUDY_OUTPUTS", record["outputs"])
        ((_, folder, summary),) = finished_runs(study)
        assert [path.name for path in Path(record["outputs"]).rglob("seed-*")] == ["seed-00"]
        assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
        np.testing.assert_array_equal(load_logits(folder)[0], load_logits(whole)[0])
        metrics = [pd.read_csv(path / "metrics.csv") for path in (folder, whole)]
        assert metrics[0]["epoch"].tolist() == [1, 2, 3]
        assert metrics[0]["train_loss"].tolist() == metrics[1]["train_loss"].tolist()
        assert summary["train_seconds"] == pytest.approx(metrics[0]["train_seconds"].sum())
        for name in ("corruptions.csv", "gates.csv", "interventions.csv"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.fault(
    "kill -9 at seeded steps and moments of an analysis that replaces an older one, up to three times (6 trials)",
    "each file in its place is whole, the old one or the new one; after another analysis all are those of an "
    "undisturbed one, and no part of a file is left",
)
def test_killed_analyses_leave_whole_files_and_are_repeated(tmp_path):
    records = trials(tmp_path, "analyse")
    assert any(phase.startswith("writing ") for phase in phases(records)) and len(phases(records)) >= 2
    expected = analysis_files(tmp_path / "whole")
    assert {"results.json", "tables/arms.csv", "figures/accuracy_by_seed.pdf"} <= set(expected)
    assert not [name for name in RESULTS if expected[name] == OLD]
    for record in records:
        assert record["damaged"] == []
        assert analysis_files(Path(record["outputs"])) == expected
