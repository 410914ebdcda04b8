import warnings

import numpy as np
import pandas as pd
import pytest

from lib.errors import StudyError
from lib.paths import run_folder
from lib.robustness import corruption_table, lossless_difference, lossless_table
from lib.runs import save_logits, write_table
from lib.study import Study

ARM, BASELINE = "se_resnet18", "resnet18"
STUDY = Study("mine", "Two arms", ARM, BASELINE, ())
T_1 = 12.706204736174694  # quantile of Student's t at 0.975, 1 degree of freedom


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_corruptions(arm, seed, accuracies):
    """accuracies: {corruption: fractions at severities 1, 2, …}."""
    rows = [
        {"corruption": name, "severity": severity, "accuracy": accuracy, "loss": 1.0}
        for name, values in accuracies.items()
        for severity, accuracy in enumerate(values, start=1)
    ]
    write_table(run_folder("mine", arm, seed) / "corruptions.csv", pd.DataFrame(rows))


def write_lossless(arm, seed, right_lossless, right_copies):
    """A run on ten images, of which the last four are here in original bytes; the numbers of those it gets right."""
    labels = np.arange(10)
    predicted = np.array([*labels[:6], *np.where(np.arange(4) < right_copies, labels[6:], 0)])
    save_logits(run_folder("mine", arm, seed) / "test_logits.npz", np.eye(10)[predicted], labels)
    predicted = np.where(np.arange(4) < right_lossless, labels[6:], 0)
    path = run_folder("mine", arm, seed) / "lossless_logits.npz"
    save_logits(path, np.eye(10)[predicted], labels[6:], indices=np.arange(6, 10))


def runs_of(lossless):
    """The table of load_runs, {arm: {seed: lossless_accuracy}}."""
    rows = [
        {"arm": arm, "seed": seed, "lossless_accuracy": value}
        for arm, seeds in lossless.items()
        for seed, value in seeds.items()
    ]
    return pd.DataFrame(rows)


def test_corruption_table_worked_by_hand():
    write_corruptions(ARM, 0, {"noise": [0.8, 0.6], "blur": [0.5, 0.3]})
    write_corruptions(ARM, 1, {"noise": [0.9, 0.7], "blur": [0.5, 0.3]})
    write_corruptions(BASELINE, 0, {"noise": [0.7, 0.6], "blur": [0.5, 0.2]})
    write_corruptions(BASELINE, 1, {"noise": [0.7, 0.4], "blur": [0.4, 0.3]})
    table = corruption_table(STUDY, ARM, BASELINE, [0, 1])
    order = [(name, severity) for name in ("noise", "blur", "mean") for severity in (0, 1, 2)]
    assert list(zip(table["corruption"], table["severity"], strict=True)) == order
    assert (table["n_pairs"] == 2).all()
    rows = table.set_index(["corruption", "severity"])
    columns = ["accuracy_arm", "accuracy_baseline", "difference_pp", "low_pp", "high_pp"]
    # differences 10 and 20 at severity 1; over both severities 5 and 25: means 15, standard errors 5 and 10
    assert rows.loc[("noise", 1), columns].tolist() == pytest.approx([85, 70, 15, 15 - 5 * T_1, 15 + 5 * T_1])
    assert rows.loc[("noise", 0), columns].tolist() == pytest.approx([75, 60, 15, 15 - 10 * T_1, 15 + 10 * T_1])
    # over corruptions: severity 1 (10 + 0)/2 = 5 and (20 + 10)/2 = 15, all (5 + 5)/2 = 5 and (25 + 5)/2 = 15
    assert rows.loc[("mean", 1), columns[2:]].tolist() == pytest.approx([10, 10 - 5 * T_1, 10 + 5 * T_1])
    assert rows.loc[("mean", 0), columns].tolist() == pytest.approx([57.5, 47.5, 10, 10 - 5 * T_1, 10 + 5 * T_1])


def test_corruptions_that_a_run_has_not_met_count_in_none():
    write_corruptions(ARM, 0, {"noise": [0.8], "blur": [0.5]})
    write_corruptions(BASELINE, 0, {"noise": [0.7]})
    table = corruption_table(STUDY, ARM, BASELINE, [0])
    assert table["corruption"].tolist() == ["noise", "noise", "mean", "mean"]
    assert table["difference_pp"].tolist() == pytest.approx([10] * 4)
    assert table[["low_pp", "high_pp"]].isna().all(axis=None)


def test_corruption_table_without_pairs_is_empty_and_without_a_file_says_so():
    assert corruption_table(STUDY, ARM, BASELINE, []).empty
    write_corruptions(ARM, 0, {"noise": [0.8]})
    with pytest.raises(StudyError, match="resnet18/seed-00/corruptions.csv is missing"):
        corruption_table(STUDY, ARM, BASELINE, [0])


def test_lossless_table_compares_the_same_images():
    write_lossless(ARM, 0, right_lossless=4, right_copies=2)
    write_lossless(ARM, 1, right_lossless=3, right_copies=2)
    write_lossless(BASELINE, 0, right_lossless=1, right_copies=2)
    runs = runs_of({ARM: {0: 1.0, 1: 0.75, 2: None}, BASELINE: {0: 0.25}, "wide_resnet18": {0: None}})
    table = lossless_table(STUDY, runs, [BASELINE, ARM, "wide_resnet18"]).set_index("arm")
    assert table.index.tolist() == [BASELINE, ARM]  # the wide run was never asked
    # gaps of the arm 50 and 25: mean 37.5, standard error 12.5
    assert table.loc[ARM].tolist() == pytest.approx([2, 87.5, 50, 37.5, 37.5 - 12.5 * T_1, 37.5 + 12.5 * T_1])
    assert table.loc[BASELINE].tolist() == pytest.approx([1, 25, 50, -25, np.nan, np.nan], nan_ok=True)


def test_damaged_lossless_file_is_named():
    write_lossless(ARM, 0, 4, 4)
    (run_folder("mine", ARM, 0) / "lossless_logits.npz").write_bytes(b"no archive")
    with pytest.raises(StudyError, match="lossless_logits.npz is missing or damaged"):
        lossless_table(STUDY, runs_of({ARM: {0: 1.0}}), [ARM])


def test_difference_on_original_bytes_is_paired():
    runs = runs_of({ARM: {0: 0.92, 1: 0.94, 2: 0.5, 4: 0.1}, BASELINE: {0: 0.91, 1: 0.91, 2: None, 3: 0.2}})
    result = lossless_difference(STUDY, runs)
    # differences 1 and 3: mean 2, standard error 1
    assert result["n_pairs"] == 2 and result["difference_pp"] == pytest.approx(2)
    assert result["interval_pp"] == pytest.approx([2 - T_1, 2 + T_1])


@pytest.mark.parametrize(
    "runs", [pd.DataFrame(), pd.DataFrame({"arm": [ARM], "seed": [0]}), runs_of({ARM: {0: None}, BASELINE: {0: None}})]
)
def test_without_original_bytes_nothing_is_said(runs):
    assert lossless_table(STUDY, runs, [ARM, BASELINE]).empty
    assert lossless_difference(STUDY, runs) == {"n_pairs": 0, "difference_pp": None, "interval_pp": None}


def test_one_pair_on_original_bytes_has_no_interval():
    result = lossless_difference(STUDY, runs_of({ARM: {0: 0.92}, BASELINE: {0: 0.91}}))
    assert result["difference_pp"] == pytest.approx(1) and result["interval_pp"] is None
