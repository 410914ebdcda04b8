import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lib.analyse import statistics

pytestmark = pytest.mark.filterwarnings("error")
TIES = [[34, -23, 36, 23, 15, 1], [1] * 6, [5, -5, 3, -3, 2, 0], [7, 7, -7, 14, 21, 0, 0], [3, -3, 0, 0, 1, -1]]


def accuracies(points, baseline=0.9):
    """Accuracies of an arm and its baseline with these differences in points."""
    base = baseline + 0.001 * np.arange(len(points))
    return base + np.array(points) / 100, base


def test_a_paired_comparison_equals_a_worked_example_and_the_test_for_related_samples():
    result = statistics.paired_comparison([0.95, 0.96, 0.97, 0.94], [0.94, 0.94, 0.94, 0.94])
    # differences 1, 2, 3, 0: mean 1.5, s = √(5/3), t quantile 3.182446 with 3 degrees of freedom
    half_width = 3.182446305284264 * math.sqrt(5 / 3) / 2
    assert (result["n_pairs"], result["difference_pp"]) == (4, pytest.approx(1.5))
    assert result["seed_interval_pp"] == pytest.approx([1.5 - half_width, 1.5 + half_width])
    assert result["sd_difference_pp"] == pytest.approx(math.sqrt(5 / 3))
    # errors 5, 4, 3, 6 against 6 %: the product of the ratios is 360 / 1296
    assert result["log_error_ratio"] == pytest.approx(math.log(360 / 1296) / 4)
    without_errors = statistics.paired_comparison([1.0, 0.9], [0.8, 0.9])
    assert without_errors["log_error_ratio"] is without_errors["log_error_ratio_interval"] is None
    assert without_errors["difference_pp"] == pytest.approx(10)
    # and scipy's test for related samples
    arm, baseline = np.random.default_rng(0).normal([[0.91], [0.90]], 0.003, (2, 10))
    result, related = statistics.paired_comparison(arm, baseline), stats.ttest_rel(100 * arm, 100 * baseline)
    assert result["p_value"] == pytest.approx(related.pvalue)
    assert result["seed_interval_pp"] == pytest.approx(list(related.confidence_interval()))
    ratios = stats.ttest_rel(np.log(1 - arm), np.log(1 - baseline)).confidence_interval()
    assert result["log_error_ratio_interval"] == pytest.approx(list(ratios))
    assert result["seed_correlation"] == pytest.approx(stats.pearsonr(arm, baseline).statistic)


@pytest.mark.parametrize("mean, zero, gain", [(0, 0, 1), (0.25, 1, 1), (0.3, 1, 0), (-0.4, 1, 1)])
def test_two_questions_are_answered_from_one_interval(mean, zero, gain):
    # ten differences with s = 0.15: the interval reaches 0.107 to either side
    spread = np.array([1, -1] * 5) * 0.15 * math.sqrt(9 / 10)
    result = statistics.paired_comparison(*accuracies(mean + spread))
    assert np.ptp(result["seed_interval_pp"]) == pytest.approx(2 * 0.1073, abs=1e-4)
    assert (result["excludes_zero"], result["excludes_published_gain"]) == (zero, gain)


@pytest.mark.parametrize("points", [[], [0.3], [0.1, 0.1, 0.1]])
def test_what_the_pairs_cannot_support_is_none(points):
    result = statistics.paired_comparison(*accuracies(points))
    unsupported = ("seed_interval_pp", "p_value", "tost_p", "sign_flip_p", "excludes_zero", "excludes_published_gain")
    assert all(result[name] is None for name in unsupported)
    assert result["n_pairs"] == len(points)
    assert result["difference_pp"] == (pytest.approx(np.mean(points)) if points else None)
    json.dumps(result, allow_nan=False)


def flips_one_by_one(differences):
    """Share of all sign flips with a sum at least as far from zero, counted one by one."""
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    return np.mean(np.array(sums) >= abs(sum(differences)) - 1e-9)


@pytest.mark.parametrize("n", [6, 7, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_sign_flips_equal_all_flips_counted_one_by_one(n, shift):
    differences = np.random.default_rng(n).normal(shift, 0.3, n)
    assert statistics.sign_flip_p(differences) == pytest.approx(flips_one_by_one(differences))


@pytest.mark.parametrize("images", TIES)
def test_flips_that_tie_count_whatever_rounding_does_to_the_accuracies(images):
    baseline = np.full(len(images), 0.9123)
    result = statistics.paired_comparison(baseline + np.array(images) / 10_000, baseline)
    assert result["sign_flip_p"] == flips_one_by_one(images)


def test_sign_flips_are_exact_for_many_pairs_and_not_given_where_they_cannot_be_small():
    assert statistics.sign_flip_p(np.linspace(0.5, 1.5, 20)) == 2 / 2**20
    assert statistics.sign_flip_p(np.ones(6)) == 2 / 64 < 0.05
    assert statistics.sign_flip_p(np.ones(5)) is statistics.sign_flip_p(np.ones(21)) is None


@pytest.mark.parametrize("margin", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.1])
def test_tost_is_the_larger_of_two_one_sided_t_tests(margin, mean):
    differences = np.random.default_rng(0).normal(mean, 0.2, 12)
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert statistics.equivalence_p(differences, margin) == pytest.approx(max(above, below))


def test_crossed_interval_uses_the_mean_squares_of_a_two_way_analysis_of_variance():
    generator = np.random.default_rng(0)
    arm = generator.random((4, 9)) < np.add.outer([0.9, 0.3, 0.8, 0.5], [0.4, -0.4, 0.3] * 3)
    baseline = generator.random((4, 9)) < 0.2
    differences = 100.0 * (arm.astype(int) - baseline)
    table = pd.DataFrame(differences).rename_axis("seed").reset_index().melt("seed", var_name="image")
    squares = anova_lm(ols("value ~ C(seed) + C(image)", table.astype(float)).fit())["mean_sq"]
    signed = squares * [1, 1, -1]
    assert signed.sum() > squares.iloc[:2].max()  # no component is estimated below 0
    freedom = signed.sum() ** 2 / (squares**2 / [3, 8, 24]).sum()
    half_width = stats.t.ppf(0.975, freedom) * math.sqrt(signed.sum() / 36)
    mean = differences.mean()
    assert statistics.crossed_interval(arm, baseline) == pytest.approx([mean - half_width, mean + half_width])


def test_crossed_interval_of_runs_or_images_that_are_alike_is_the_interval_over_the_others():
    arm, baseline = np.random.default_rng(0).random((2, 30)) < [[0.7], [0.5]]
    interval = statistics.mean_interval(100.0 * (arm.astype(int) - baseline))
    for alike in (lambda runs: np.tile(runs, (6, 1)), lambda runs: np.tile(runs[:, None], 50)):
        assert statistics.crossed_interval(alike(arm), alike(baseline)) == pytest.approx(interval)
    for shape in ((0, 5), (1, 5), (3, 1), (3, 5)):  # without two runs, two images or any spread there is none
        assert statistics.crossed_interval(np.ones(shape, bool), np.zeros(shape, bool)) is None
    for compare in (statistics.crossed_interval, statistics.paired_comparison):
        with pytest.raises(ValueError, match="cannot be paired"):
            compare(np.ones((3, 4)), np.ones((3, 1)))


@pytest.mark.parametrize(("n", "seed_spread", "image_spread"), [(3, 0.05, 0.0), (5, 0.02, 0.1), (10, 0.05, 0.1)])
def test_crossed_interval_covers_for_new_seeds_and_new_images(n, seed_spread, image_spread):
    generator, studies, covered = np.random.default_rng(n), 400, 0
    for _ in range(studies):
        arms = []  # of equal true accuracy: right with probability 0.9, ± image_spread, and shifted for each run
        for _ in range(2):
            probabilities = 0.9 + image_spread * generator.choice([-1, 1], 200)
            shifts = generator.normal(0, seed_spread, (n, 1))
            arms.append(generator.random((n, 200), dtype=np.float32) < np.clip(probabilities + shifts, 0, 1))
        low, high = statistics.crossed_interval(*arms)
        covered += low <= 0 <= high
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies) < covered / studies < 0.995


def test_holm_by_hand_and_a_missing_test_belongs_to_the_family_and_stays_missing():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([None, 0.01, None, 0.2]) == [None, pytest.approx(0.04), None, pytest.approx(0.6)]
    assert statistics.holm([None]) == [None] and statistics.holm([]) == []


def test_slope_is_the_least_squares_line_through_the_means_and_without_spread_it_is_an_estimate_alone():
    x = np.log2([2, 4, 8, 16, 32])
    cells = [np.random.default_rng(i).normal(0.3 - 0.05 * x[i], 0.2, n) for i, n in enumerate((10, 10, 20, 10, 5))]
    result = statistics.contrast_of_cells(cells, statistics.slope_weights(x))
    assert result["estimate"] == pytest.approx(stats.linregress(x, [cell.mean() for cell in cells]).slope)
    # Σ (x − 3) mean / 10, with the variances of the means weighted alike
    variances = [((x[i] - 3) / 10) ** 2 * np.var(cell, ddof=1) / len(cell) for i, cell in enumerate(cells)]
    df = sum(variances) ** 2 / sum(v**2 / (len(cell) - 1) for v, cell in zip(variances, cells, strict=True))
    error = math.sqrt(sum(variances))
    assert result["df"] == pytest.approx(df)
    assert np.ptp(result["interval"]) == pytest.approx(2 * stats.t.ppf(0.975, df) * error)
    assert result["p_value"] == pytest.approx(2 * stats.t.sf(abs(result["estimate"]) / error, df))
    for cells in ([[0.1], [0.2, 0.3]], [[0.1, 0.1], [0.3, 0.3]]):
        result = statistics.contrast_of_cells(cells, [1, -1])
        assert result.pop("estimate") == pytest.approx(np.mean(cells[0]) - np.mean(cells[1]))
        assert set(result.values()) == {None}


def test_scores_of_half_precision_logits_are_computed_in_double_precision():
    logits, labels = np.random.default_rng(0).normal(0, 3, (300, 10)).astype(np.float16), np.arange(300) % 10
    probabilities = np.exp(logits.astype(float))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert statistics.nll(logits, labels) == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    one_hot = np.eye(10)[labels]
    assert statistics.brier(logits, labels) == pytest.approx(((probabilities - one_hot) ** 2).sum() / 300, rel=1e-12)
    assert statistics.nll(np.array([[6e4, -6e4]], np.float16), np.array([1])) == pytest.approx(2 * 59_999, rel=1e-3)


def test_the_calibration_error_by_hand_and_over_the_bins_of_many_images():
    confidence = np.array([0.6, 0.6, 0.75, 0.9])  # an edge belongs to the bin below
    logits, labels = np.log(np.stack([confidence, 1 - confidence], axis=1)), np.array([0, 1, 0, 0])
    gaps = 0.75 * abs(2 / 3 - 0.65) + 0.25 * abs(1 - 0.9)
    assert statistics.expected_calibration_error(logits, labels, bins=4) == pytest.approx(gaps)
    # and over the bins of many more images
    logits, labels, expected = np.random.default_rng(0).normal(0, 2, (500, 5)), np.arange(500) % 5, 0
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    for low in np.arange(15) / 15:
        members = (confidence > low) & (confidence <= low + 1 / 15)
        expected += abs(hit[members].sum() - confidence[members].sum()) / 500
    assert statistics.expected_calibration_error(logits, labels) == pytest.approx(expected)
