import warnings

import pandas as pd
import pytest

from lib.errors import StudyError
from lib.gatetables import STATISTICS, gate_table, intervention_table
from lib.paths import run_folder
from lib.runs import write_table
from lib.study import Study

ARM = "se_resnet18"
STUDY = Study("mine", "Two arms", ARM, "resnet18", ())
T_1 = 12.706204736174694  # quantile of Student's t at 0.975, 1 degree of freedom
ROOT_HALF = 0.5**0.5  # standard deviation of two values that are 1 apart


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_gates(arm, seed, means, eta_squared=0.5):
    """A gates.csv whose blocks have these means; all other statistics are the mean + 1, + 2, …"""
    rows = []
    for block, mean in means.items():
        values = {name: mean + number for number, name in enumerate(STATISTICS)}
        rows.append({"block": block, **values, "eta_squared": eta_squared})
    write_table(run_folder("mine", arm, seed) / "gates.csv", pd.DataFrame(rows))


def write_interventions(seed, accuracies):
    """accuracies: {(intervention, block): fraction}."""
    rows = [
        {"intervention": intervention, "block": block, "accuracy": accuracy, "loss": 1.0}
        for (intervention, block), accuracy in accuracies.items()
    ]
    write_table(run_folder("mine", ARM, seed) / "interventions.csv", pd.DataFrame(rows))


def runs_of(**seeds):
    return pd.DataFrame([{"arm": arm, "seed": seed} for arm, all_seeds in seeds.items() for seed in all_seeds])


def test_gate_table_averages_over_the_runs_of_base_arms():
    write_gates(ARM, 0, {"block1": 1.0, "block2": 5.0})
    write_gates(ARM, 1, {"block1": 2.0, "block2": 5.0})
    write_gates(f"{ARM}__1_epoch", 0, {"block1": 9.0})
    write_gates("static_gate_resnet18", 0, {"block1": 3.0}, eta_squared=None)
    runs = runs_of(**{"resnet18": [0, 1], ARM: [0, 1, 2], f"{ARM}__1_epoch": [0], "static_gate_resnet18": [0]})
    table = gate_table(STUDY, runs)
    assert list(zip(table["arm"], table["block"], table["n_runs"], strict=True)) == [
        (ARM, "block1", 2),
        (ARM, "block2", 2),
        ("static_gate_resnet18", "block1", 1),
    ]
    assert table["mean"].tolist() == pytest.approx([1.5, 5, 3])
    assert table["mean_sd"].tolist() == pytest.approx([ROOT_HALF, 0, float("nan")], nan_ok=True)
    assert table["share_above_0.9"].tolist() == pytest.approx([5.5, 9, 7])
    assert table["eta_squared"].tolist() == pytest.approx([0.5, 0.5, float("nan")], nan_ok=True)
    assert list(table.columns[3:]) == [name + part for name in STATISTICS for part in ("", "_sd")]


def test_gate_table_without_gates_is_empty_and_a_damaged_file_is_named():
    for runs in (pd.DataFrame(), runs_of(resnet18=[0])):
        assert gate_table(STUDY, runs).empty and "eta_squared_sd" in gate_table(STUDY, runs)
    write_gates(ARM, 0, {"block1": 1.0})
    (run_folder("mine", ARM, 0) / "gates.csv").write_text("block,mean\nblock1,0.5\n")
    with pytest.raises(StudyError, match="gates.csv is missing or damaged"):
        gate_table(STUDY, runs_of(**{ARM: [0]}))


def test_drops_are_taken_within_each_run():
    for seed, undisturbed in enumerate((0.9, 0.8)):
        write_interventions(
            seed,
            {
                ("none", "none"): undisturbed,
                ("mean", "block1"): undisturbed - 0.1,
                ("mean", "all"): 0.5,
                ("shuffled", "all"): 0.4 + 0.1 * seed,
            },
        )
    table = intervention_table(STUDY, ARM, [0, 1, 2])  # seed 2 has no such file
    assert table[["intervention", "block", "n_runs"]].to_numpy().tolist() == [
        ["mean", "block1", 2],
        ["mean", "all", 2],
        ["shuffled", "all", 2],
    ]
    assert table["accuracy"].tolist() == pytest.approx([75, 50, 45])
    assert table["drop_pp"].tolist() == pytest.approx([10, 35, 40])
    # equal drops have no spread; 40 and 30 a standard error of 5; 50 and 30 one of 10
    nan = float("nan")
    assert table["low_pp"].tolist() == pytest.approx([nan, 35 - 5 * T_1, 40 - 10 * T_1], nan_ok=True)
    assert table["high_pp"].tolist() == pytest.approx([nan, 35 + 5 * T_1, 40 + 10 * T_1], nan_ok=True)


def test_intervention_table_without_gates_is_empty():
    assert intervention_table(STUDY, "resnet18", [0, 1]).empty and intervention_table(STUDY, ARM, []).empty


def test_one_run_has_drops_without_interval():
    write_interventions(0, {("none", "none"): 0.9, ("mean", "all"): 0.5})
    row = intervention_table(STUDY, ARM, [0]).loc[0]
    assert row["drop_pp"] == pytest.approx(40) and row[["low_pp", "high_pp"]].isna().all()
