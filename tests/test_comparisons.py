import pandas as pd
import pytest

from lib.comparisons import (
    comparison_table,
    control_table,
    curve_table,
    paired_values,
    sensitivity_table,
    tuning_table,
)
from lib.study import Study
from lib.studyfile import Stage, Tuning

PAIR = ("resnet18", "se_resnet18")
OWN = {"": {}}


def study(*stages, **more):
    return Study("mine", "Some arms", "se_resnet18", "resnet18", (), stages=stages, **more)


def runs(accuracies, **columns):
    """Runs with the given test accuracies in percent, {arm: [seed 0, seed 1, …]}; None for a seed without a run."""
    rows = [
        {"arm": arm, "seed": seed, "test_accuracy": accuracy / 100, "epochs": 50, "train_fraction": 1.0, **columns}
        for arm, values in accuracies.items()
        for seed, accuracy in enumerate(values)
        if accuracy is not None
    ]
    return pd.DataFrame(rows)


def test_only_seeds_that_both_arms_finished_are_paired():
    pairs = paired_values(runs({"resnet18": [90, 92, 91], "se_resnet18": [91, 94, None, 99]}), *PAIR[::-1])
    assert list(pairs.index) == [0, 1] and list(pairs.columns) == list(PAIR)


def test_no_run_of_an_arm_gives_no_pairs():
    assert paired_values(runs({"resnet18": [90, 92]}), *PAIR[::-1]).empty


def test_a_comparison_is_the_mean_paired_difference_with_its_interval():
    table = comparison_table(runs({"resnet18": [90, 92, 91], "se_resnet18": [91, 94, 94]}), [PAIR[::-1]])
    row = table.iloc[0]
    assert row["comparison"] == "se_resnet18 − resnet18" and row["n_pairs"] == 3
    # differences 1, 2, 3: mean 2, s = 1, t(0.975, 2 df) = 4.302653
    assert row["difference_pp"] == pytest.approx(2)
    assert (row["low_pp"], row["high_pp"]) == (
        pytest.approx(2 - 4.302653 / 3**0.5),
        pytest.approx(2 + 4.302653 / 3**0.5),
    )
    assert row["p_value"] == pytest.approx(2 / 8)


def test_comparisons_without_a_pair_are_left_out_but_belong_to_the_family():
    finished = runs({"resnet18": [90, 92, 91], "a": [91, 94, 94], "b": [None] * 3 + [95]})
    table = comparison_table(finished, [("a", "resnet18"), ("b", "resnet18")])
    assert list(table["arm"]) == ["a"] and table["p_adjusted"][0] == pytest.approx(2 * table["p_value"][0])
    assert comparison_table(finished, [("b", "resnet18")]).empty


def test_controls_are_held_against_both_arms_and_adjusted_together():
    stage = Stage("controls", ("static", "wide"), (0, 1, 2, 3), OWN, "own")
    base = [90.0, 90.1, 90.2, 90.3]
    finished = runs(
        {
            "resnet18": base,
            "se_resnet18": [91, 91.2, 91.1, 91.4],
            "static": [91.5, 91, 91.3, 91.2],
            "wide": [90.3, 90.0, 90.1, 90.5],
        }
    )
    table = control_table(study(stage), finished)
    assert list(table["comparison"]) == [
        "static − resnet18",
        "wide − resnet18",
        "se_resnet18 − static",
        "se_resnet18 − wide",
    ]
    # four pairs of one sign give p = 2/16; the smallest of four is multiplied by four, and none falls below it
    assert table["p_value"].min() == pytest.approx(2 / 16)
    assert table["p_adjusted"].min() == pytest.approx(4 * 2 / 16)
    assert (table["p_adjusted"] >= table["p_value"]).all()


def test_a_study_without_controls_has_no_control_comparisons():
    stage = Stage("primary", PAIR, (0,), OWN, "own")
    assert control_table(study(stage), runs({"resnet18": [90], "se_resnet18": [91]})).empty


def test_sensitivity_crosses_the_winners_and_compares_reductions_with_the_baseline():
    stages = [
        Stage("cross_winner", PAIR, (0, 1), OWN, "other"),
        Stage("reduction", ("se_resnet18_r4",), (0, 1), OWN, "own"),
    ]
    accuracies = {
        "resnet18": [90, 91],
        "se_resnet18": [91, 91.5],
        "resnet18__other_winner": [89, 90],
        "se_resnet18__other_winner": [90, 90.4],
        "se_resnet18_r4": [92, 93],
    }
    differing = {"resnet18": {"learning_rate": 0.1}, "se_resnet18": {"learning_rate": 0.2}}
    table = sensitivity_table(study(*stages, winners=differing), runs(accuracies)).set_index("comparison")
    assert list(table.index) == [
        "se_resnet18__other_winner − resnet18",
        "se_resnet18 − resnet18__other_winner",
        "se_resnet18_r4 − resnet18",
        "se_resnet18_r4 − se_resnet18",
    ]
    assert list(table["difference_pp"].round(6)) == [-0.3, 1.75, 2, 1.25]
    equal = dict.fromkeys(PAIR, {"learning_rate": 0.1})
    assert len(sensitivity_table(study(*stages, winners=equal), runs(accuracies))) == 2


def test_where_winners_differ_controls_are_held_against_the_arm_at_the_settings_of_the_baseline():
    stages = [Stage("cross_winner", PAIR, (0, 1), OWN, "other"), Stage("controls", ("static",), (0, 1), OWN, "own")]
    accuracies = {"resnet18": [90, 91], "static": [90, 90], "se_resnet18": [95, 96]}
    finished = runs(accuracies | {"se_resnet18__other_winner": [91, 92]})
    differing = {"resnet18": {"learning_rate": 0.1}, "se_resnet18": {"learning_rate": 0.2}}
    for winners, arm in ((differing, "se_resnet18__other_winner"), (None, "se_resnet18")):
        table = control_table(study(*stages, winners=winners), finished)
        assert list(table["comparison"]) == ["static − resnet18", f"{arm} − static"]


def test_a_curve_has_the_own_point_among_its_variants_and_only_the_seeds_of_the_stage():
    stage = Stage("length", PAIR, (0, 1), {"100_epochs": {"epochs": 100}, "12_epochs": {"epochs": 12}}, "own")
    finished = pd.concat(
        [
            runs({"resnet18": [90, 90, 50], "se_resnet18": [91, 91, 99]}),
            runs({"resnet18__12_epochs": [80, 80], "se_resnet18__12_epochs": [83, 83]}, epochs=12),
            runs({"resnet18__100_epochs": [95]}, epochs=100),
        ]
    )
    table = curve_table(study(stage), finished, "length", "epochs")
    assert list(table["x"]) == [12, 50] and list(table["n_pairs"]) == [2, 2]
    assert list(table["difference_pp"].round(6)) == [3, 1]
    assert list(table["accuracy_baseline"].round(6)) == [80, 90]


def test_a_curve_that_is_not_planned_is_empty():
    assert curve_table(study(), runs({"resnet18": [90]}), "length", "epochs").empty


def test_tuning_table_shows_the_mean_of_each_cell_in_percent():
    tuning = Tuning(PAIR, (7, 8), 10, {"learning_rate": [0.1, 0.2]})
    scores = pd.DataFrame(
        [(arm, rate, seed, rate + seed / 100) for arm in PAIR for rate in (0.1, 0.2) for seed in (7, 8)],
        columns=["tuned", "learning_rate", "seed", "val_accuracy"],
    )
    table = tuning_table(study(tuning=tuning, tuning_scores=scores))
    assert table.loc[0.2, "se_resnet18"] == pytest.approx(27.5) and list(table.index) == [0.1, 0.2]
    assert tuning_table(study()) is None
