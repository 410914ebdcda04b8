"""What the paper says of price and limits follows from the study and its decision."""

import pytest
from papercases import committed, full_study, of_full_study, with_outcome

from lib.limitsentences import baseline_gap, cost, practice, scale

pytestmark = pytest.mark.usefixtures("committed_outputs")


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
