"""What the paper makes of the results follows from them: no claim survives the result that it was about."""

import pytest
from papercases import OUTCOMES, committed, full_study, of_full_study, set_interval, with_outcome

from lib.comparisons import LITERAL
from lib.reflectionsentences import (
    answer,
    baseline_gap,
    cost,
    gate_use,
    literal,
    mechanism,
    practice,
    published,
    scale,
    skip,
    tuning_lesson,
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
        ((-1, 1), (-1, 1), "which may be nothing"),
        ((-3, -2), (-1, 1), "halving suffices"),
        ((-3, -2), (0.5, 1), "SE wins some of it back"),
        ((-3, -2), (-1, -0.5), "SE loses more"),
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
    assert ("halving that path" in skip(study, results | {"placement": rows})) == ("halving" in words)
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


def test_what_was_delivered_follows_the_gates():
    study, results = committed()
    rows = [row for row in results["gates"] if row["arm"] == study.arm]
    for row in rows:
        row |= {"mean": 0.5, "sd_images": 0.01}
    lost = next(row for row in results["interventions"] if (row["intervention"], row["block"]) == ("mean", "all"))
    half = next(row for row in results["controls"] if row["reference"] == "half_scale_resnet18")
    for low, use, told in ((-1, "may be nothing", "not told from"), (0.1, "Use is not benefit", "is told from")):
        for row in (lost, half):
            row["low_pp"], row["high_pp"] = low, 2
        said = gate_use(study, results)
        assert "hardly moved" in said and use in said and told in said
    rows[0]["mean"] = 0.9
    assert "hardly" not in gate_use(study, results) and "have left the half" in gate_use(study, results)


@pytest.mark.parametrize(("interval", "told"), [([-0.5, 0.5], True), ([-0.5, 2.0], False)])
def test_the_tuning_is_held_against_the_test_where_they_disagree(interval, told):
    study, results = committed()
    results["winners"] = {arm: {"learning_rate": 0.2} for arm in (study.baseline, study.arm)}
    results["tuning"] = [{"learning_rate": 0.2, study.baseline: 60.0, study.arm: 61.5}]
    results["primary"] |= {"seed_interval_pp": interval, "difference_pp": 0.0}
    assert ("Two seeds of the tuning had put SE at $+1.5$ points" in tuning_lesson(study, results)) == told
    results["winners"][study.arm] = {"learning_rate": 0.1}
    assert tuning_lesson(study, results) == ""


def test_the_price_names_what_was_timed_on_the_same_device():
    study, results = committed()
    assert "parameters" in cost(study, results) and "a training step takes" in cost(study, results)


def test_whether_to_pay_follows_the_decision():
    study, results = committed()
    assert "worth having" in practice(study, with_outcome(results, "superior"))
    assert "no reason" in practice(study, with_outcome(results, "equivalent"))
    assert "cannot say" in practice(study, with_outcome(results, "inconclusive"))


def test_limits_of_scale_are_those_of_the_study():
    study, results = committed()
    assert "eighth width" in scale(study, results)
    assert "50 epochs" in scale(full_study(), of_full_study(results))


@pytest.mark.parametrize(("accuracy", "words"), [(0.9, "5.3 points below; a weak"), (0.96, "0.7 points above.")])
def test_the_baseline_is_held_against_a_published_one(accuracy, words):
    study, results = committed()
    results["arms"][study.baseline]["test_accuracy_mean"] = accuracy
    assert words in baseline_gap(study, results)
