import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from lib.behaviour import (
    calibration_table,
    class_table,
    disagreement_excess,
    image_disagreements,
    paired_seeds,
    paired_table,
    seed_interval,
)
from lib.errors import StudyError
from lib.paths import run_folder
from lib.runs import load_arrays, load_logit_stack, load_run_table, save_arrays, save_logits
from lib.study import Study

STUDY = Study("mine", "Two arms", "se_resnet18", "resnet18", ())
T_2 = 4.302652729911275  # quantile of Student's t at 0.975, 2 degrees of freedom
LABELS = np.arange(20) % 2  # ten images of each of two classes


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def predictions_with(*wrong):
    """Predictions (runs, 20): in each run, (mistakes in class 0, mistakes in class 1)."""
    predictions = np.tile(LABELS, (len(wrong), 1))
    for run, mistakes in zip(predictions, wrong, strict=True):
        for label, count in enumerate(mistakes):
            run[np.flatnonzero(label == LABELS)[:count]] = 1 - label
    return predictions


def draw_correct(rng, probabilities, runs):
    """Independent runs that get image i right with its probability; some runs are better as a whole."""
    chances = np.clip(probabilities + rng.normal(0, 0.05, (runs, 1)), 0, 1)
    return rng.random((runs, len(probabilities))) < chances


def test_only_seeds_that_both_arms_finished_are_paired():
    runs = pd.DataFrame({"arm": ["a", "b", "a", "b", "a"], "seed": [3, 1, 1, 2, 0]})
    assert paired_seeds(runs, "a", "b") == [1]
    assert paired_seeds(runs, "a", "a") == [0, 1, 3]
    assert paired_seeds(runs, "a", "c") == paired_seeds(pd.DataFrame(), "a", "b") == []


def test_logits_are_stacked_in_the_order_of_the_seeds():
    for seed in (0, 2):
        save_logits(run_folder("mine", "a", seed) / "test_logits.npz", np.full((3, 2), seed + 0.5), np.array([1, 0, 1]))
    logits, labels = load_logit_stack(STUDY, "a", [2, 0])
    assert logits.shape == (2, 3, 2) and logits.dtype == np.float32 and labels.dtype == np.int64
    assert logits[:, 0, 0].tolist() == [2.5, 0.5] and labels.tolist() == [1, 0, 1]
    with pytest.raises(StudyError, match="damaged"):
        load_logit_stack(STUDY, "a", [1])


def test_interval_worked_by_hand_and_none_where_nothing_varies():
    # mean 2, s = 1
    assert seed_interval([1, 2, 3]) == pytest.approx((2 - T_2 / 3**0.5, 2 + T_2 / 3**0.5))
    for values in ([], [1.0], [0.3, 0.1 + 0.2], [0, 0, 0]):
        assert np.isnan(seed_interval(values)).all()


def test_paired_table_agrees_with_the_test_for_related_samples():
    rng = np.random.default_rng(0)
    arm, baseline = rng.normal(size=(2, 5, 3))
    table = paired_table(arm, baseline, pd.Index(list("xyz")))
    related = stats.ttest_rel(arm, baseline)
    assert table["p_value"].tolist() == pytest.approx(related.pvalue)
    interval = related.confidence_interval()
    assert np.allclose(table[["low", "high"]], np.transpose([interval.low, interval.high]))
    assert np.allclose(table["arm"] - table["baseline"], table["difference"])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_table(arm, baseline[:1], pd.Index(list("xyz")))


def test_class_table_worked_by_hand():
    arm = predictions_with((0, 1), (1, 1), (2, 1))  # recalls of class 0: 100, 90, 80
    baseline = predictions_with((1, 1), (3, 1), (5, 1))  # 90, 70, 50; class 1: 90 in every run
    table = class_table(arm, baseline, LABELS, ["cat", "dog"])
    assert table.index.tolist() == ["cat", "dog"] and table.index.name == "class"
    cat, dog = table.loc["cat"], table.loc["dog"]
    assert (cat["recall_arm"], cat["recall_baseline"]) == (pytest.approx(90), pytest.approx(70))
    # differences 10, 20, 30: mean 20, s = 10
    half_width = T_2 * 10 / 3**0.5
    assert cat[["difference_pp", "low_pp", "high_pp"]].tolist() == pytest.approx([20, 20 - half_width, 20 + half_width])
    assert cat["p_value"] == pytest.approx(2 * stats.t.sf(20 / (10 / 3**0.5), 2))
    # three equal differences carry no spread, so the family has one member
    assert dog["difference_pp"] == 0 and dog[["low_pp", "high_pp", "p_value", "p_fdr"]].isna().all()
    assert cat["p_fdr"] == cat["p_value"] and (table["n_pairs"] == 3).all()


def test_p_values_of_classes_are_adjusted_together():
    arm = predictions_with((0, 1), (1, 0), (2, 1))
    baseline = predictions_with((1, 2), (3, 3), (5, 3))
    small, large = sorted(class_table(arm, baseline, LABELS, ["a", "b"])["p_value"])
    adjusted = sorted(class_table(arm, baseline, LABELS, ["a", "b"])["p_fdr"])
    assert adjusted == pytest.approx([min(2 * small, large), large])


def test_one_pair_has_a_difference_and_nothing_else():
    row = class_table(predictions_with((1, 0)), predictions_with((2, 0)), LABELS, ["a", "b"]).loc["a"]
    assert row["difference_pp"] == pytest.approx(10) and row["n_pairs"] == 1
    assert row[["low_pp", "high_pp", "p_value", "p_fdr"]].isna().all()


def test_without_a_pair_every_table_is_empty_with_its_columns():
    logits, labels = load_logit_stack(STUDY, "a", [])
    predictions = logits.argmax(-1)
    correct = predictions == labels
    full = predictions_with((0, 1), (1, 1))
    for empty, filled in [
        (class_table(predictions, predictions, labels, ["a", "b"]), class_table(full, full, LABELS, ["a", "b"])),
        (calibration_table(logits, logits, labels), calibration_table(np.eye(2)[full], np.eye(2)[full], LABELS)),
        (
            image_disagreements(correct, correct, predictions, predictions, labels, 3),
            image_disagreements(full > 0, full < 1, full, full, LABELS, 3),
        ),
    ]:
        assert empty.empty and not filled.empty and list(empty.columns) == list(filled.columns)
    assert disagreement_excess(correct, correct)["n_pairs"] == 0


def test_calibration_table_holds_means_over_runs_of_each_metric():
    rng = np.random.default_rng(0)
    arm, baseline = rng.normal(size=(2, 3, 20, 2)).astype(np.float32)
    table = calibration_table(arm, baseline, LABELS)
    assert table.index.tolist() == ["nll", "brier", "ece"]

    def losses(logits):
        chances = np.exp(logits.astype(float))
        return [log_loss(LABELS, run / run.sum(1, keepdims=True)) for run in chances]

    related = stats.ttest_rel(losses(arm), losses(baseline))
    assert table.loc["nll", "arm"] == pytest.approx(np.mean(losses(arm)))
    assert table.loc["nll", "p_value"] == pytest.approx(related.pvalue)
    assert table.loc["nll", "low"] == pytest.approx(related.confidence_interval().low)
    with pytest.raises(ValueError, match="cannot be paired"):
        calibration_table(arm, baseline[:0], LABELS)


def test_images_that_the_arms_get_right_most_differently():
    labels = np.array([0, 1, 2, 3])
    predictions_arm = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 5, 2, 3]])
    predictions_baseline = np.array([[0, 1, 2, 9], [0, 7, 8, 8], [0, 7, 9, 8]])
    correct = [predictions == labels for predictions in (predictions_arm, predictions_baseline)]
    table = image_disagreements(*correct, predictions_arm, predictions_baseline, labels, 10)
    assert table["index"].tolist() == [3, 2, 1]  # image 0 is right in all runs and no disagreement
    assert table["label"].tolist() == [3, 2, 1]
    assert table["right_arm"].tolist() == pytest.approx([1, 1, 2 / 3])
    assert table["right_baseline"].tolist() == pytest.approx([0, 1 / 3, 1 / 3])
    assert table["prediction_arm"].tolist() == [3, 2, 1]
    assert table["prediction_baseline"].tolist() == [8, 2, 7]  # 2, 8 and 9 once each: the lowest
    assert len(image_disagreements(*correct, predictions_arm, predictions_baseline, labels, 2)) == 2


def test_excess_worked_by_hand():
    correct_arm = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)
    correct_baseline = np.array([[0, 1, 0, 0], [0, 1, 0, 1]], bool)
    result = disagreement_excess(correct_arm, correct_baseline)
    # D = (1, 0, 0, 0) and (1, −1, 0, 0); d = (1, −1/2, 0, 0) with sum of squares 5/4 and mean 1/8
    observed = (5 / 4 - 4 / 64) / 3
    # residuals of the layout: ±(1/8, −3/8, 1/8, 1/8) in the two rows, with (2 − 1)(4 − 1) degrees of freedom
    expected = 2 * 12 / 64 / 3 / 2
    assert result["observed_sd"] == pytest.approx(observed**0.5)
    assert result["expected_sd"] == pytest.approx(expected**0.5)
    assert result["ratio"] == pytest.approx((observed / expected) ** 0.5)
    assert result["true_sd"] == pytest.approx((observed - expected) ** 0.5)
    # swapping one of the two pairs gives D = (−1, 0, 0, 0), (1, −1, 0, 0): less spread; half of all swaps tie
    assert result["p_value"] == pytest.approx(0.5, abs=0.02)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("runs", [2, 5, 12])
def test_equal_arms_have_no_excess(runs):
    rng = np.random.default_rng(runs)
    squares, p_values = [], []
    for _ in range(60):
        probabilities = rng.beta(3, 0.3, 1000)  # most images are easy, some are lost in half of the runs
        result = disagreement_excess(*(draw_correct(rng, probabilities, runs) for _ in range(2)))
        squares.append((result["observed_sd"] ** 2, result["expected_sd"] ** 2))
        p_values.append(result["p_value"])
    observed, expected = np.mean(squares, axis=0)
    assert observed / expected == pytest.approx(1, abs=0.04)
    assert 0.25 < np.mean(np.array(p_values) <= 0.5) < 0.75


def test_arms_that_differ_in_their_images_show_how_much():
    rng = np.random.default_rng(0)
    truth = rng.choice([-0.1, 0.1], 10_000)  # equal on average
    arms = [draw_correct(rng, 0.5 + sign * truth / 2, 20) for sign in (1, -1)]
    result = disagreement_excess(*arms)
    assert result["true_sd"] == pytest.approx(0.1, abs=0.005)
    assert result["ratio"] > 1.1 and result["p_value"] == pytest.approx(1e-4)


def test_what_too_few_runs_or_no_noise_cannot_say_is_none():
    one = np.ones((1, 5), bool)
    assert disagreement_excess(one, ~one) == {
        **dict.fromkeys(["observed_sd", "expected_sd", "ratio", "true_sd", "p_value"]),
        "n_pairs": 1,
    }
    same = np.array([[0, 1, 1]] * 3, bool)
    result = disagreement_excess(same, ~same)  # the same differences in all pairs
    assert result["expected_sd"] == 0 and result["ratio"] is None
    assert disagreement_excess(same, same)["observed_sd"] == 0
    with pytest.raises(ValueError, match="cannot be paired"):
        disagreement_excess(same, one)


DAMAGED = (None, "", "block,mean\nblock1,high\n", "block,mean\nblock1,0.4", "mean\n0.5\n", b"\xff\xfe\x00")


@pytest.mark.fault("a table of a run that is missing, empty or cut", "one line names the file and what to do")
@pytest.mark.parametrize("content", DAMAGED)
def test_a_missing_or_damaged_table_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "gates.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StudyError, match="gates.csv is missing or damaged .*run again") as caught:
        load_run_table(tmp_path, "gates.csv", {"block": str, "mean": float})
    assert "\n" not in str(caught.value)


def test_arrays_come_back_in_the_order_asked_for(tmp_path):
    path = tmp_path / "some.npz"
    save_arrays(path, a=np.arange(3), b=np.ones(2))
    second, first = load_arrays(path, "b", "a")
    assert second.tolist() == [1, 1] and first.tolist() == [0, 1, 2]
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:40])
    for file, name in ((path, "c"), (cut, "a"), (tmp_path / "none.npz", "a")):
        with pytest.raises(StudyError, match=f"{file.name} is missing or damaged .*run again"):
            load_arrays(file, name)
