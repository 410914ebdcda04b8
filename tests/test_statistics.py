import itertools
import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from lib.statistics import (
    benjamini_hochberg,
    confusion_percent,
    decide,
    detectable_difference,
    equivalence_p,
    equivalence_power,
    holm,
    mean_interval,
    paired_comparison,
    recall_percent,
    score,
    sign_flip_p,
)

RUN_SPREAD = 0.15 * math.sqrt(2)  # standard deviation (pp) of a difference of two uncorrelated runs
NOTHING = dict.fromkeys(
    ["difference_pp", "seed_interval_pp", "p_value", "tost_p", "decision", "sd_difference_pp", "seed_correlation"]
    + ["win_p", "bootstrap_interval_pp"]
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def all_sign_flips_p(differences):
    """Share of all sign flips with a mean at least as far from zero, counted one by one."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= observed - 1e-9 for value in sums) / len(sums)


def test_worked_example_of_a_paired_comparison():
    result = paired_comparison([0.95, 0.96, 0.97, 0.94], [0.94, 0.94, 0.94, 0.94])
    # differences 1, 2, 3, 0: mean 1.5, s = √(5/3), t quantile 3.182446 with 3 degrees of freedom
    half_width = 3.182446305284264 * math.sqrt(5 / 3) / 2
    assert (result["n_pairs"], result["difference_pp"]) == (4, pytest.approx(1.5))
    assert result["seed_interval_pp"] == pytest.approx([1.5 - half_width, 1.5 + half_width])
    assert result["p_value"] == pytest.approx(4 / 16)


def test_two_pairs_worked_by_hand():
    low, high = paired_comparison([0.91, 0.93], [0.90, 0.90])["seed_interval_pp"]
    assert (low, high) == (pytest.approx(2 - 12.706204736), pytest.approx(2 + 12.706204736))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 11])
@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_p_value_equals_an_enumeration_of_all_sign_flips(n, shift):
    differences = np.random.default_rng(n).normal(shift, 0.3, n)
    assert sign_flip_p(differences) == pytest.approx(all_sign_flips_p(differences))


@pytest.mark.parametrize("points", [[1, 2, 2], [1, -1, 2, -2], [0, 0, 3], [5, 5, 5, 5], [0, 1], [2, -2]])
def test_p_value_counts_ties_and_zeros(points):
    baseline = np.full(len(points), 0.9)
    arm = baseline + np.array(points) / 100
    assert paired_comparison(arm, baseline)["p_value"] == pytest.approx(all_sign_flips_p(points))


def test_smallest_p_value_of_twenty_pairs_is_exact():
    assert sign_flip_p(np.linspace(0.5, 1.5, 20)) == pytest.approx(2 / 2**20)


@pytest.mark.parametrize(
    "counts", [[34, -23, 36, 23, 15], [1, 1, 1, 1], [5, -5, 3, -3, 2, 0], [7, 7, -7, 14, 21, 0, 0]]
)
def test_flips_that_tie_count_whatever_rounding_does_to_the_accuracies(counts):
    baseline = np.full(len(counts), 0.9123)
    arm = baseline + np.array(counts) / 10_000
    assert paired_comparison(arm, baseline)["p_value"] == all_sign_flips_p(counts)


def test_more_pairs_than_can_be_enumerated_are_flipped_at_random_and_alike_each_time():
    differences = np.random.default_rng(0).normal(0.1, 0.3, 24)
    assert 0 < sign_flip_p(differences) == sign_flip_p(differences) < 1
    assert 0 < sign_flip_p(np.abs(differences)) < 1e-4


def test_swapping_the_arms_only_turns_the_sign():
    one, other = np.random.default_rng(1).uniform(0.9, 0.95, (2, 6))
    forth, back = paired_comparison(one, other), paired_comparison(other, one)
    assert forth["difference_pp"] == pytest.approx(-back["difference_pp"])
    assert forth["seed_interval_pp"] == pytest.approx([-end for end in reversed(back["seed_interval_pp"])])
    assert forth["p_value"] == back["p_value"]


def test_pairs_are_compared_and_not_samples():
    baseline = np.array([0.90, 0.92, 0.94, 0.91])
    paired = paired_comparison(baseline + [0.010, 0.011, 0.012, 0.009], baseline)
    shuffled = paired_comparison((baseline + [0.010, 0.011, 0.012, 0.009])[::-1], baseline)
    assert paired["difference_pp"] == pytest.approx(shuffled["difference_pp"])
    assert np.diff(paired["seed_interval_pp"]) < np.diff(shuffled["seed_interval_pp"]) / 3


def test_one_pair_has_a_difference_and_a_winner_and_nothing_else():
    result = paired_comparison([0.95], [0.94])
    assert result == NOTHING | {
        "n_pairs": 1,
        "difference_pp": pytest.approx(1.0),
        "wins": 1,
        "losses": 0,
        "win_p": pytest.approx(1.0),
    }


def test_no_pairs_support_nothing():
    assert paired_comparison([], []) == NOTHING | {"n_pairs": 0, "wins": 0, "losses": 0}


@pytest.mark.parametrize(
    ("arm", "baseline"), [([0.9, 0.91, 0.92], [0.9, 0.9]), ([0.9, 0.91, 0.92], [0.9]), ([0.9], [])]
)
def test_values_without_a_partner_are_refused(arm, baseline):
    with pytest.raises(ValueError, match=r"."):
        paired_comparison(arm, baseline)


@pytest.mark.parametrize("differences", [[0.0, 0.0, 0.0], [0.01] * 4])
def test_equal_differences_give_an_interval_without_width(differences):
    baseline = np.array([0.90, 0.91, 0.93, 0.94])[: len(differences)]
    result = paired_comparison(baseline + differences, baseline)
    mean = 100 * differences[0]
    assert result["seed_interval_pp"] == pytest.approx([mean, mean])
    assert result["p_value"] == pytest.approx(1.0 if mean == 0 else 2 / 2**4)


def test_interval_of_a_mean():
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx(
        [2 - 4.302652730 / math.sqrt(3), 2 + 4.302652730 / math.sqrt(3)]
    )
    assert mean_interval([1.0]) is None


@pytest.mark.parametrize("n", [3, 10])
def test_interval_covers_the_true_mean_in_95_of_100_studies(n):
    samples = np.random.default_rng(0).normal(0.15, 0.2, (4000, n))
    low, high = np.array([mean_interval(sample) for sample in samples]).T
    covered = ((low <= 0.15) & (high >= 0.15)).mean()
    assert covered == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_p_value_is_rarely_small_without_an_effect():
    samples = np.random.default_rng(0).normal(0, 0.2, (300, 7))
    assert np.mean([sign_flip_p(sample) <= 0.05 for sample in samples]) == pytest.approx(0.047, abs=0.04)


def test_confusion_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 2, 1, 0, 2])
    expected = [[50, 25, 25], [50, 50, 0], [0, 0, 100]]
    np.testing.assert_allclose(confusion_percent(predictions, labels, 3), expected)


def test_confusion_pools_runs():
    labels = np.array([0, 0, 1, 1])
    predictions = np.array([[0, 0, 1, 1], [1, 0, 1, 0]])
    np.testing.assert_allclose(confusion_percent(predictions, labels, 2), [[75, 25], [25, 75]])


def test_class_that_is_never_predicted_keeps_its_column():
    matrix = confusion_percent(np.array([0, 0, 1]), np.array([0, 2, 1]), 3)
    np.testing.assert_allclose(matrix, [[100, 0, 0], [0, 100, 0], [100, 0, 0]])


def test_recall_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predictions = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 1]])
    np.testing.assert_allclose(recall_percent(predictions, labels, 2), [[75, 100], [25, 50]])


def test_recall_of_one_run_is_the_diagonal_of_its_confusion():
    labels, predictions = np.random.default_rng(0).integers(0, 5, (2, 200))
    diagonal = np.diag(confusion_percent(predictions, labels, 5))
    np.testing.assert_allclose(recall_percent(predictions, labels, 5), diagonal[None])


def test_spread_and_correlation_by_hand():
    result = paired_comparison([0.91, 0.92, 0.94], [0.91, 0.93, 0.92])
    # differences 0, −1, 2; deviations from the means (−4, −1, 5)/3 and (−1, 1, 0)
    assert result["sd_difference_pp"] == pytest.approx(math.sqrt(7 / 3))
    assert result["seed_correlation"] == pytest.approx(1 / math.sqrt(42 / 9 * 2))


@pytest.mark.parametrize(("arm", "baseline"), [([0.9, 0.8], [0.7, 0.8]), ([0.9] * 3, [0.7, 0.8, 0.9])])
def test_correlation_needs_three_pairs_that_vary(arm, baseline):
    assert paired_comparison(arm, baseline)["seed_correlation"] is None


def test_wins_leave_out_ties():
    points = np.array([1, 2, 0, 3, -1, 0, 1, 2])
    result = paired_comparison(0.9 + points / 100, np.full(8, 0.9))
    assert (result["wins"], result["losses"]) == (5, 1)
    assert result["win_p"] == pytest.approx(2 * (1 + 6) / 2**6)


def test_nothing_but_ties_has_no_winner():
    result = paired_comparison([0.9, 0.91, 0.92], [0.9, 0.91, 0.92])
    assert (result["wins"], result["losses"], result["win_p"]) == (0, 0, None)


def bca_interval_of_all_resamples(values):
    """BCa interval of the mean from all n^n resamples, after Efron (1987)."""
    means = np.sort([np.mean(sample) for sample in itertools.product(values, repeat=len(values))])
    below = (np.sum(means < np.mean(values) - 1e-12) + np.sum(means <= np.mean(values) + 1e-12)) / 2 / len(means)
    deviations = np.mean(values) - values
    acceleration = -np.sum(deviations**3) / 6 / np.sum(deviations**2) ** 1.5
    bias = stats.norm.ppf(below)
    ends = bias + stats.norm.ppf([0.025, 0.975])
    return np.quantile(means, stats.norm.cdf(bias + ends / (1 - acceleration * ends)))


def test_bootstrap_interval_agrees_with_all_resamples():
    points = np.array([0.1, 0.4, 0.5, 0.9, 3.0])
    interval = paired_comparison(0.9 + points / 100, np.full(5, 0.9))["bootstrap_interval_pp"]
    assert interval == pytest.approx(bca_interval_of_all_resamples(points), abs=0.1)
    assert interval[1] - points.mean() > 1.3 * (points.mean() - interval[0])  # a long right tail, unlike the t interval


@pytest.mark.parametrize("points", [[], [1], [1, 2], [0, 0, 0], [1, 1, 1, 1]])
def test_bootstrap_needs_three_differences_that_vary(points):
    baseline = np.array([0.90, 0.91, 0.93, 0.94])[: len(points)]
    assert paired_comparison(baseline + np.array(points) / 100, baseline)["bootstrap_interval_pp"] is None


@pytest.mark.parametrize("seed", range(40))
def test_comparison_of_coarse_accuracies_is_plain_json_without_nan(seed):
    generator = np.random.default_rng(seed)
    arm, baseline = generator.integers(90, 93, (2, generator.integers(0, 6))) / 100
    result = paired_comparison(arm, baseline)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    values = [item for value in result.values() for item in (value if isinstance(value, list) else [value])]
    assert {type(value) for value in values} <= {float, int, str, type(None)}


@pytest.mark.parametrize("margin", [0.05, 0.15, 0.3, 1.0])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.1])
def test_tost_p_is_the_larger_of_two_one_sided_tests(margin, mean):
    differences = np.random.default_rng(0).normal(mean, 0.2, 12)
    error = differences.std(ddof=1) / math.sqrt(12)
    nearest = (margin - abs(differences.mean())) / error
    assert equivalence_p(differences, margin) == pytest.approx(stats.t.sf(nearest, 11))


def test_tost_is_below_5_percent_where_the_90_percent_interval_lies_within_the_margin():
    within, small = [], []
    for differences in np.random.default_rng(0).normal(0.03, 0.2, (300, 10)):
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        within.append(low > -0.15 and high < 0.15)
        small.append(equivalence_p(differences) < 0.05)
    assert small == within
    assert 30 < sum(small) < 270


@pytest.mark.parametrize(("value", "p"), [(0, 0), (0.149, 0), (-0.149, 0), (0.15, 0.5), (-0.15, 0.5), (0.151, 1)])
def test_tost_of_equal_differences_is_the_limit_of_a_vanishing_spread(value, p):
    assert equivalence_p([value] * 4) == p
    jitter = 1e-7 * np.array([1, -1, 1, -1])
    assert equivalence_p(value + jitter) == pytest.approx(p, abs=1e-6)
    baseline = np.array([0.9, 0.91, 0.93])
    assert equivalence_p(100 * (baseline + value / 100 - baseline)) == p


def test_tost_needs_two_differences():
    assert equivalence_p([]) is equivalence_p([0.1]) is None


@pytest.mark.parametrize(
    ("difference", "interval", "p", "decision"),
    [
        (0.30, [0.10, 0.50], 0.9, "superior"),
        (-0.30, [-0.50, -0.10], 0.9, "inferior"),
        (0.15, [0.01, 0.29], 0.5, "superior"),
        (-0.15, [-0.29, -0.01], 0.5, "inferior"),
        (0.15, [0.15, 0.15], 0.5, "superior"),
        (0.08, [0.01, 0.15], 0.04, "different but negligible"),
        (-0.08, [-0.15, -0.01], 0.04, "different but negligible"),
        (0.10, [0.06, 0.14], 0.001, "different but negligible"),
        (0.08, [0.004, 0.156], 0.03, "equivalent"),
        (0.14, [0.01, 0.27], 0.4, "different, size unclear"),
        (-0.14, [-0.27, -0.01], 0.4, "different, size unclear"),
        (0.00, [-0.10, 0.10], 0.01, "equivalent"),
        (0.07, [0.00, 0.14], 0.04, "equivalent"),
        (0.20, [0.00, 0.40], 0.7, "inconclusive"),
        (-0.20, [-0.40, 0.00], 0.7, "inconclusive"),
        (0.00, [-0.30, 0.30], 0.05, "inconclusive"),
        (0.00, [-0.30, 0.30], 0.0499, "equivalent"),
        (0.00, [0.00, 0.00], 0.0, "equivalent"),
        (0.30, None, None, None),
        (None, None, None, None),
    ],
)
def test_decision_follows_the_preregistered_rules(difference, interval, p, decision):
    assert decide(difference, interval, p) == decision


@pytest.mark.parametrize(
    ("points", "decision"),
    [
        ([0.15, 0.15, 0.15], "superior"),  # 0.15 exactly, though 100 × (0.9515 − 0.95) is less in floating point
        ([-0.15, -0.15, -0.15], "inferior"),
        ([0.10, 0.11, 0.10, 0.09], "different but negligible"),
        ([0.02, -0.02, 0.01, -0.01], "equivalent"),
        ([0.5, -0.5, 0.4], "inconclusive"),
        ([0.5], None),
    ],
)
def test_decision_from_paired_accuracies(points, decision):
    baseline = np.array([0.95, 0.9512, 0.949, 0.9503])[: len(points)]
    assert paired_comparison(baseline + np.array(points) / 100, baseline)["decision"] == decision


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_benjamini_hochberg_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_adjustment_keeps_none_in_place_and_out_of_the_count(adjust):
    first, *rest = adjust([None, 0.01, None, 0.2])
    assert (first, rest[1]) == (None, None)
    assert [rest[0], rest[2]] == adjust([0.01, 0.2]) == pytest.approx([0.02, 0.2])
    assert (adjust([]), adjust([None])) == ([], [None])


@pytest.mark.parametrize(
    ("n", "uncorrelated", "half_correlated"),
    [(3, 0.69, 0.49), (5, 0.36, 0.25), (10, 0.21, 0.15), (20, 0.140, 0.099), (30, 0.112, 0.079)],
)
def test_detectable_difference_of_runs_that_spread_by_fifteen_hundredths(n, uncorrelated, half_correlated):
    decimals = 3 if n >= 20 else 2
    assert round(detectable_difference(RUN_SPREAD, n), decimals) == uncorrelated
    assert round(detectable_difference(0.15, n), decimals) == half_correlated


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [3, 5, 20, 1000])
def test_detectable_difference_is_the_effect_size_that_statsmodels_finds(n, power):
    effect = TTestPower().solve_power(nobs=n, alpha=0.05, power=power)
    assert detectable_difference(0.4, n, power) == pytest.approx(0.4 * effect, rel=1e-4)


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_detectable_difference_is_found_in_that_share_of_simulated_studies(n, power):
    studies = np.random.default_rng(n).normal(detectable_difference(0.4, n, power), 0.4, (40_000, n))
    found = np.mean(stats.ttest_1samp(studies, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / 40_000))


@pytest.mark.parametrize(("n", "power"), [(3, 0.05), (5, 0.09), (10, 0.35), (20, 0.84), (30, 0.97)])
def test_equivalence_power_of_runs_that_spread_by_fifteen_hundredths(n, power):
    assert round(equivalence_power(RUN_SPREAD, n, 0.15), 2) == power


@pytest.mark.parametrize(("spread", "n"), [(0.1, 2), (0.2, 5), (0.2, 10), (0.2, 40)])
def test_equivalence_power_is_the_share_of_simulated_studies_that_pass(spread, n):
    studies = np.random.default_rng(n).normal(0, spread, (40_000, n))
    error = studies.std(axis=1, ddof=1) / math.sqrt(n)
    share = np.mean(abs(studies.mean(axis=1)) + stats.t.ppf(0.95, n - 1) * error < 0.15)
    power = equivalence_power(spread, n, 0.15)
    assert share == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / 40_000))


def test_powers_without_a_spread_or_without_pairs():
    assert equivalence_power(0.0, 5, 0.15) == equivalence_power(1e-4, 5, 0.15) == pytest.approx(1)
    assert detectable_difference(0.0, 5) == 0
    assert detectable_difference(0.2, 1) is equivalence_power(0.2, 1, 0.15) is None


def test_score_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.25, 0.25, 0.5]]) + 3
    result = score(logits, np.array([0, 2, 2]))
    assert result == pytest.approx({"accuracy": 2 / 3, "loss": -(math.log(0.7) + math.log(0.4) + math.log(0.5)) / 3})


def test_score_of_half_precision_logits_is_computed_in_double_precision():
    logits = np.random.default_rng(0).normal(0, 8, (500, 10)).astype(np.float16)
    labels = np.random.default_rng(1).integers(0, 10, 500)
    losses = [
        math.log(math.fsum(math.exp(float(x)) for x in row)) - float(row[label])
        for row, label in zip(logits, labels, strict=True)
    ]
    assert score(logits, labels)["loss"] == pytest.approx(math.fsum(losses) / 500, rel=1e-12)
    assert score(np.array([[6e4, -6e4]], np.float16), np.array([1]))["loss"] == pytest.approx(2 * 59_999, rel=1e-3)
