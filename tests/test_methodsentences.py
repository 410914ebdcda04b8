"""What the paper says was done follows from the study file, the tuning and the history."""

import pytest
from papercases import committed, full_study, of_full_study

from lib.methodsentences import data_source, deviations, preregistration, standing, tuning
from lib.study import load_study

pytestmark = pytest.mark.usefixtures("committed_outputs")


def test_the_rehearsal_is_called_one_and_says_what_it_changes():
    study, results = load_study("laptop"), committed()[1]
    assert "rehearsal" in standing(study, results)
    said = preregistration(study, results)
    for change in ("width", "length (50 epochs)", "warm-up (10", "$r$ (16", "grid", "numbers of runs"):
        assert change in said


@pytest.mark.parametrize(
    ("older", "words"), [(True, "before the first run"), (False, "after"), (None, "is unknown (why)")]
)
def test_the_full_study_says_whether_its_plan_is_older_than_its_runs(older, words):
    results = of_full_study(committed()[1])
    results["preregistration"] |= {"older": older, "unknown_because": None if older is not None else "why"}
    assert words in preregistration(full_study(), results)
    assert ("exploratory" in standing(full_study(), results)) == (older is not True)


def test_the_source_of_the_images_is_named():
    assert "JPEG" in data_source(None, {"data_source": "cifar10-jpeg"})
    assert "official archive" in data_source(None, {"data_source": "cifar10"})


def test_deviations_are_all_told_and_safe():
    found = ["se_resnet18 seed 3 is excluded: 100 % loss.", "More than one device."]
    said = deviations(full_study(), {"deviations": found})
    assert r"se\_resnet18 seed 3 is excluded: 100 \% loss." in said and "More than one device." in said
    assert deviations(full_study(), {"deviations": []}) == "No deviation is on record."


def test_the_tuning_names_winners_and_edges():
    study, results = load_study("laptop"), committed()[1]
    results["winners"] = {"resnet18": {"learning_rate": 0.1}, "se_resnet18": {"learning_rate": 0.1}}
    said = tuning(study, results)
    assert "Learning rate 0.1 won for both" in said and "edge" not in said and "default (0.1)" in said
    results["winners"]["se_resnet18"] = {"learning_rate": 0.05}
    said = tuning(study, results)
    assert "0.1 won for the baseline and learning rate 0.05 for SE, at the edge" in said


def test_the_tuning_tells_scores_along_the_learning_rate_and_how_they_differ():
    study, results = load_study("laptop"), committed()[1]
    results["tuning"] = [
        {"learning_rate": rate, "resnet18": base, "se_resnet18": gated}
        for rate, base, gated in ((0.05, 61, 60), (0.1, 62, 62), (0.2, 65, 66))
    ]
    assert (
        r"the baseline scores 61.0/62.0/65.0\,\%, SE 60.0/62.0/66.0\,\% (SE $-$ baseline $-1.0$, $+0.0$, $+1.0$)"
    ) in tuning(study, results)


def test_of_a_grid_of_two_settings_the_best_of_the_second_is_told():
    results = of_full_study(committed()[1])
    results["tuning"] = [
        {"learning_rate": rate, "weight_decay": decay, "resnet18": 90 + 1000 * decay, "se_resnet18": 91 + 10 * rate}
        for rate in (0.05, 0.1, 0.2)
        for decay in (0.0005, 0.001)
    ]
    assert r"the baseline scores 91.0/91.0/91.0\,\%, SE 91.5/92.0/93.0\,\%" in tuning(full_study(), results)
