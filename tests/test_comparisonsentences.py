"""What the paper says of a comparison follows from its decision, its intervals and its numbers of pairs."""

import pytest
from papercases import OUTCOMES, committed, set_interval, with_outcome

from lib.comparisonsentences import (
    DECISIONS,
    controls,
    curves,
    decision,
    images,
    pairing,
    power,
    sensitivity,
    shape,
)

pytestmark = pytest.mark.usefixtures("committed_outputs")


def test_the_decisions_are_those_of_the_rules():
    assert set(OUTCOMES) == set(DECISIONS)


def test_every_decision_has_its_own_words():
    study, results = committed()
    said = {outcome: decision(study, with_outcome(results, outcome)) for outcome in OUTCOMES}
    assert len(set(said.values())) == len(OUTCOMES)
    assert all(DECISIONS[outcome] in words for outcome, words in said.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_decision": "superior"}, "another reading (superior"),
        ({"seed_interval_pp": [-1, 1], "image_interval_pp": [-0.1, 0.1]}, "seeds are the larger"),
        ({"seed_interval_pp": [-0.1, 0.1], "image_interval_pp": [-1, 1]}, "images are the larger"),
        ({"seed_interval_pp": [-1, 1], "image_interval_pp": [-1, 1]}, "about as large"),
    ],
)
def test_both_uncertainties_are_compared(changes, words):
    study, results = committed()
    results["primary"] |= {"decision": "inconclusive", "image_decision": "inconclusive"} | changes
    assert words in images(study, results)


def test_wins_come_with_their_test_and_an_interval_that_needs_no_normality():
    study, results = committed()
    results["primary"] |= {"wins": 3, "n_pairs": 4, "win_p": 0.625, "bootstrap_interval_pp": [-1, 2]}
    results["primary"]["differences_pp"] = [1, 2, 3, -1]
    said = "SE wins 3 of 4 pairs ($p=0.625$); {}the bootstrap interval is $-1.00$ to $+2.00$."
    assert shape(study, results) == said.format("")
    results["primary"] |= {"differences_pp": [0, 0, 0, 0, 0, 0, 1, -1], "n_pairs": 8}
    assert r"three pairs make 100\,\% of the variance" in shape(study, results)
    results["primary"]["differences_pp"] = [1, -1] * 4
    assert r"three pairs make 38\,\% of the variance" in shape(study, results)


def test_the_pairs_that_would_be_needed_are_told_where_there_are_too_few():
    study, results = committed()
    results["primary"] |= {"sd_difference_pp": 0.15, "n_pairs": 5, "detectable_difference_pp": 0.3}
    assert "0.15 points would take about 8 pairs" in power(study, results)  # ((1.960 + 0.842) × 1)² = 7.85
    results["primary"]["n_pairs"] = 20
    assert "would take" not in power(study, results)


@pytest.mark.parametrize(("correlation", "words"), [(0.8, "more precise"), (0.0, "no more"), (-0.8, "by chance, less")])
def test_the_worth_of_pairing_follows_the_correlation(correlation, words):
    study, results = committed()
    results["primary"]["seed_correlation"] = correlation
    assert words in pairing(study, results)


def test_too_few_pairs_for_the_planned_test_are_called_a_fault_and_what_t_tests_say_is_told():
    study, results = committed()
    set_interval(results["controls"], -1, 1, n_pairs=5, p_adjusted=1.0, sd_difference_pp=1.0)
    said = controls(study, results)
    assert "cannot fall below $p=0.50$" in said and "separate nothing either" in said
    results["controls"][0] |= {"difference_pp": 5.0, "low_pp": 3.8, "high_pp": 6.2}
    said = controls(study, results)  # t = 5√5 = 11.2 with 4 degrees of freedom, p = 0.0004, times 8
    assert "$+5.00$ ($+3.80$ to $+6.20$), $p=0.003$, and nothing else" in said


def test_controls_are_named_only_where_they_differ():
    study, results = committed()
    set_interval(results["controls"], -1, 1, n_pairs=10, p_adjusted=1.0)  # 8 tests can reach 8 / 2^9 = 0.016
    assert controls(study, results) == "No comparison is significant after Holm's adjustment."
    set_interval(results["controls"][:1], 1, 2)
    assert "Unadjusted intervals exclude zero for" in controls(study, results)
    set_interval(results["controls"], 1, 2, p_adjusted=0.01)
    assert controls(study, results).startswith("Significant") and "and 5 more" in controls(study, results)


def test_exploratory_readings_follow_their_intervals():
    study, results = committed()
    tables = [row for name in ("curve_length", "curve_data", "sensitivity") for row in results[name]]
    set_interval(tables, -1, 1)
    assert "none of 4 intervals" in curves(study, results) and "not differ clearly" in sensitivity(study, results)
    set_interval(tables, 1, 2)
    assert "4 of 4 intervals" in curves(study, results) and "for SE" in curves(study, results)
    assert "not differ" not in sensitivity(study, results)


def test_what_length_and_data_bring_is_told_from_their_ends():
    study, results = committed()
    for name, values in (("curve_length", (50, 60, 70)), ("curve_data", (65, 66))):
        for row, value in zip(results[name], values, strict=True):
            row["accuracy_baseline"] = value
    said = curves(study, results)
    assert r"Training for 1 to 4 epochs takes the baseline from 50.0 to 70.0\,\%." in said
    assert r"On 10 to 100\,\% of the images, with equal updates, it gets 65.0 to 66.0\,\%." in said
