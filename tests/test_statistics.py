import itertools
import math
import warnings

import numpy as np
import pytest

from lib.statistics import confusion_percent, mean_interval, paired_comparison, recall_percent, sign_flip_p


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


def test_one_pair_has_a_difference_and_nothing_else():
    result = paired_comparison([0.95], [0.94])
    assert result == {"n_pairs": 1, "difference_pp": pytest.approx(1.0), "seed_interval_pp": None, "p_value": None}


def test_no_pairs_support_nothing():
    assert paired_comparison([], []) == {
        "n_pairs": 0,
        "difference_pp": None,
        "seed_interval_pp": None,
        "p_value": None,
    }


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
