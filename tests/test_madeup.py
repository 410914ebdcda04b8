import numpy as np

from lib.config import RunConfig
from lib.madeup import TOSS_UP, make_up_run
from lib.runs import load_logits, read_summary


def correct(folder):
    logits, labels = load_logits(folder)
    return logits.argmax(1) == labels


def test_a_made_up_run_is_complete_and_has_the_accuracy_asked_for(tmp_path):
    config = RunConfig("se_resnet18", 3, "se_resnet18", epochs=6)
    make_up_run(tmp_path, config, accuracy=0.8, images=5000)
    summary = read_summary(tmp_path, config)
    assert abs(summary["test_accuracy"] - 0.8) < 4 * (TOSS_UP * 0.25 / 5000) ** 0.5
    assert summary["test_accuracy"] == correct(tmp_path).mean()
    assert {"corruptions.csv", "gates.csv", "interventions.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_runs_differ_in_the_toss_up_images_only(tmp_path):
    for seed in (0, 1):
        make_up_run(tmp_path / str(seed), RunConfig("resnet18", seed, "resnet18", epochs=6), images=1000)
    differing = correct(tmp_path / "0") != correct(tmp_path / "1")
    assert 0 < differing.sum() <= TOSS_UP * 1000
    assert np.abs(np.flatnonzero(differing) - 900).max() <= TOSS_UP * 1000


def test_a_network_without_gates_has_no_tables_of_gates(tmp_path):
    make_up_run(tmp_path, RunConfig("resnet18", 0, "resnet18", epochs=6), images=100)
    assert not (tmp_path / "gates.csv").exists()
