"""What tests of the paper share: the committed results, and results made up to have every outcome."""

import copy
import dataclasses
import functools
import json

import pytest

from lib.paths import ROOT
from lib.report import reported_study
from lib.statistics import decide
from lib.study import load_study

# what is missing while a study is young
PARTS = ("controls", "placement", "sensitivity", "curve_length", "curve_data", "churn", "disagreement", "tuning")
PARTS += ("recall_by_class", "subsets", "calibration", "corruptions", "lossless", "lossless_difference", "gates")
PARTS += ("interventions", "deviations")
NO_INTERVAL = ("seed_interval_pp", "image_interval_pp", "crossed_interval_pp", "decision", "image_decision", "tost_p")
NO_INTERVAL += ("sd_difference_pp", "seed_correlation", "detectable_difference_pp", "equivalence_power", "p_value")
OUTCOMES = {  # of each decision: a mean difference and the half width of its interval, in pp
    "superior": (0.4, 0.1),
    "inferior": (-0.4, 0.1),
    "different but negligible": (0.08, 0.05),
    "equivalent": (0.01, 0.05),
    "different, size unclear": (0.12, 0.11),
    "inconclusive": (0.1, 0.4),
    None: (0.1, None),
}
WINNER = {"learning_rate": 0.1, "weight_decay": 0.0005}


@functools.cache
def _committed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUTPUTS", str(ROOT / "outputs"))
        study = reported_study()
    return study, json.loads((ROOT / "outputs" / study.name / "results.json").read_text())


def committed():
    """The study that the paper reports, and a copy of its results.json, as committed."""
    study, results = _committed()
    return study, copy.deepcopy(results)


def full_study():
    """The study `paper` as if its tuning had been finished."""
    study = load_study("paper")
    runs = study.runs if study.winners else study.awaiting
    return dataclasses.replace(study, runs=runs, awaiting=(), winners={study.arm: WINNER, study.baseline: WINNER})


def with_outcome(results, decision, name="laptop"):
    """Results with this decision over seeds, made up so that the rules give it."""
    mean, half = OUTCOMES[decision]
    interval = None if half is None else [mean - half, mean + half]
    tost_p = None if half is None else 0.001 if decision == "equivalent" else 0.5
    assert decide(mean, interval, tost_p) == decision
    primary = results["primary"] | {"difference_pp": mean, "seed_interval_pp": interval, "decision": decision}
    primary |= {"tost_p": tost_p} | ({} if half else dict.fromkeys(NO_INTERVAL))
    return copy.deepcopy(results) | {"primary": primary, "study": name}


def of_full_study(results, decision="inconclusive"):
    """Results as the study `paper` could have them, on the original images, with as much to say as can be."""
    made = with_outcome(results, decision, "paper")
    made["data_source"] = "cifar10"
    made["primary"] |= {"n_pairs": 20, "wins": 20}
    made["winners"] = dict.fromkeys(("resnet18", "se_resnet18"), WINNER)
    made["tuning"] = [
        {"learning_rate": rate, "weight_decay": decay, "resnet18": 95.12 - rate, "se_resnet18": 95.02 + rate}
        for rate in (0.05, 0.1, 0.2)
        for decay in (0.0005, 0.001)
    ]
    for row in [*made["controls"], *made.get("placement", [])]:
        row |= {"n_pairs": 10, "p_adjusted": 0.016, "difference_pp": -1.23, "low_pp": -2.34, "high_pp": -0.12}
    for row in made["recall_by_class"]:
        row["p_fdr"] = 0.001
    for row in made["corruptions"]:
        row |= {"difference_pp": 1.23, "low_pp": 0.12, "high_pp": 2.34}
    made["preregistration"] |= {"commit": "abcdef1", "older": True}
    return made


def set_interval(rows, low, high, **changes):
    """Give each row this interval in points with its middle as the difference, and other changes."""
    for row in rows:
        row |= {"low_pp": low, "high_pp": high, "difference_pp": (low + high) / 2, **changes}
