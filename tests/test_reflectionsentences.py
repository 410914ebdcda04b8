"""What the paper makes of the results follows from them: no claim survives the result that it was about."""

import pytest
from papercases import OUTCOMES, committed, full_study, of_full_study, set_interval, with_outcome

from lib.comparisons import LITERAL
from lib.reflectionsentences import (
    answer,
    gate_use,
    literal,
    mechanism,
    published,
    skip,
    tuning_lesson,
    why_not,
)
from lib.wording import HALF_SKIP, STATIC_SKIP

pytestmark = pytest.mark.usefixtures("committed_outputs")


def test_every_decision_has_an_answer_of_its_own():
    study, results = committed()
    answers = {answer(study, with_outcome(results, outcome)) for outcome in OUTCOMES}
    assert len(answers) == len(OUTCOMES)


@pytest.mark.parametrize(("interval", "words"), [([-0.5, 0.5], "among them the 0.39"), ([-0.3, 0.3], "but not with")])
def test_an_open_result_says_whether_it_allows_the_published_gain(interval, words):
    study, results = committed()
    results["primary"] |= {"decision": "inconclusive", "seed_interval_pp": interval}
    assert words in answer(study, results)


def test_the_literal_reading_follows_its_interval():
    study, results = committed()
    set_interval(results["controls"], -1, 1, p_adjusted=1.0)
    assert "no difference is shown" in literal(study, results) and "not adjusted" in literal(study, results)
    set_interval(results["controls"], 1, 2, p_adjusted=0.01)
    assert "which reading it is about" in literal(study, results) and "not adjusted" not in literal(study, results)
    set_interval(results["controls"], -2, -1)
    assert "SE does harm" in literal(study, results)


@pytest.mark.parametrize(
    ("half", "rest", "words"),
    [
        ((-1, 1), (-1, 1), "and SE less the latter"),
        ((1, 2), (-3, -1), "and SE less the latter"),
        ((-3, -2), (-1, 1), "halving suffices"),
        ((-1.7, -0.1), (-4, 0.2), "whether SE does more than halve is open"),
        ((-3, -2), (1.5, 2), "SE wins some of it back"),
        ((-3, -2), (-2, -1.5), "SE loses more"),
    ],
)
def test_the_loss_on_the_skip_path_is_taken_apart(half, rest, words):
    study, results = committed()
    set_interval(results["controls"], -2, -1)
    rows = [{"arm": arm, "reference": study.baseline} for arm in (HALF_SKIP, STATIC_SKIP)]
    rows += [{"arm": LITERAL, "reference": HALF_SKIP}]
    for row, interval in zip(rows, (half, half, rest), strict=True):
        set_interval([row], *interval)
    assert words in literal(study, results | {"placement": rows})
    assert ("halving that path" in skip(study, results | {"placement": rows})) == (words == "halving suffices")
    assert "No arm halves the skip path alone" in literal(study, results | {"placement": []})


def test_the_worth_of_a_single_pair_follows_the_spread():
    study, results = committed()
    results["primary"]["sd_difference_pp"] = 0.39 / 1.96
    assert r"in 5\,\% of cases" in published(study, results)
    results["primary"]["sd_difference_pp"] = None
    assert "do not tell" in published(study, results)


def test_the_mechanism_follows_the_static_gate():
    study, results = committed()
    for low, p, words in ((-1, 1.0, "unresolved"), (0.5, 0.5, "not after adjustment"), (0.5, 0.01, "for looking")):
        set_interval(results["controls"], low, 1, p_adjusted=p)
        assert words in mechanism(study, results)
    set_interval(results["controls"], -2, -1, p_adjusted=0.01)
    assert "against looking" in mechanism(study, results) and "matters by itself" in mechanism(study, results)


@pytest.mark.parametrize(
    ("lost", "half", "words"),
    [
        ((-1, 2), (-1, 1), "which may be nothing; half scale, trained without, is not told from SE"),
        ((-2, -1), (-1, 1), "which may be nothing"),
        ((1, 2), (-1, 1), "the network relies on them, though half scale"),
        ((1, 2), (0.3, 0.7), "SE is ahead of half scale, trained without, by $+0.50$"),
        ((1, 2), (-0.7, -0.3), "SE is behind half scale"),
    ],
)
@pytest.mark.parametrize("mean", [0.5, 0.9])
def test_what_gates_are_used_for_follows_lesions_and_half_scale(lost, half, words, mean):
    study, results = committed()
    for row in (row for row in results["gates"] if row["arm"] == study.arm):
        row |= {"mean": mean, "sd_images": 0.01}
    lesion = next(row for row in results["interventions"] if (row["intervention"], row["block"]) == ("mean", "all"))
    lesion |= {"low_pp": lost[0], "high_pp": lost[1], "drop_pp": sum(lost) / 2}
    set_interval([row for row in results["controls"] if row["reference"] == "half_scale_resnet18"], *half)
    said = gate_use(study, results)
    assert words.replace("which may be nothing", "not shown to rely on them") in said or words in said
    assert ("Use is not benefit" in said) == ("though" in words)
    assert ("hardly moved" in said) == (mean == 0.5) and ("have left the half" in said) == (mean == 0.9)


def test_half_scale_is_held_against_se_at_the_winner_of_the_baseline_where_winners_differ():
    study, results = committed()
    row = next(row for row in results["controls"] if row["reference"] == "half_scale_resnet18")
    row["arm"] = "se_resnet18__other_winner"
    assert "half scale" in gate_use(study, results)


def test_reasons_against_se_are_given_unless_it_helped():
    study, results = committed()
    assert "Why SE may not help" in why_not(study, with_outcome(results, "inconclusive"))
    assert "Why SE may not help" not in why_not(study, with_outcome(results, "superior"))
    assert "At full width" in why_not(study, results)
    assert "200 epochs" in why_not(full_study(), of_full_study(results))


def test_the_tuning_is_held_against_the_test_with_the_scatter_of_so_few_seeds():
    study, results = committed()
    results["winners"] = {arm: {"learning_rate": 0.2} for arm in (study.baseline, study.arm)}
    results["tuning"] = [{"learning_rate": 0.2, study.baseline: 60.0, study.arm: 61.5}]
    results["primary"] |= {"sd_difference_pp": 1.0, "n_pairs": 10, "difference_pp": 0.0}
    # prediction interval of a mean of two after ten: 2.262 × √(1/2 + 1/10) = 1.75
    assert tuning_lesson(study, results) == (
        "Two seeds of the tuning had put SE at $+1.5$ points; around the test's $+0.00$ two seeds scatter by $\\pm1.8$."
    )
    results["winners"][study.arm] = {"learning_rate": 0.1}
    assert tuning_lesson(study, results) == ""
