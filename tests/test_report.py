"""The paper's numbers: every one follows from results.json, and none is typed by hand."""

import copy
import json
import re

import pytest

from lib.paths import ROOT
from lib.report import (
    DECISIONS,
    SCALE_LIMITS,
    STANDING,
    arms_table,
    escaped,
    macros,
    p_value,
    reported_study,
    signed,
    span,
    write_report,
)
from lib.statistics import decide

REPORT = ROOT / "report"
# decimals that the paper may type: facts of other people's, and what was fixed before any result
CITED = {
    "0.39": "gain of WRN-16-8 on CIFAR-10, Hu et al. 2018, table 4",
    "0.15": "SD between runs, Jordan 2024; smallest effect of interest, preregistered",
    "95.28": "ResNet-18 without Cutout, DeVries and Taylor 2017",
}


@pytest.fixture(scope="module")
def reported():
    """The reported study and its results.json, as committed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUTPUTS", str(ROOT / "outputs"))
        study = reported_study()
    return study, json.loads((ROOT / "outputs" / study.name / "results.json").read_text())


def typed_numbers(tex):
    """Decimals in the text of a LaTeX source that are neither macros nor cited facts."""
    body = re.sub(r"(?<!\\)%.*|\\includegraphics\[[^]]*\]|\\begin\{tabular\}\{[^}]*\}", "", tex)
    return [number for number in re.findall(r"\d+\.\d+", body) if number not in CITED]


def test_the_paper_types_no_result():
    assert typed_numbers((REPORT / "paper.tex").read_text()) == []


def test_a_stray_number_is_found():
    assert typed_numbers((REPORT / "paper.tex").read_text() + "The gain is 0.42 points.") == ["0.42"]


def test_every_macro_that_the_paper_uses_is_written(reported):
    written = set(macros(*reported))
    used = set(re.findall(r"\\([A-Z]\w+)", (REPORT / "paper.tex").read_text()))
    assert used - {"ReLU", "IfFileExists"} <= written
    assert not written - used


def test_the_committed_numbers_follow_from_the_results(reported, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_OUTPUTS", str(ROOT / "outputs"))
    write_report(reported[0], tmp_path)
    for name in ("numbers.tex", "table.tex"):
        assert (tmp_path / name).read_text() == (REPORT / "generated" / name).read_text(), name


@pytest.mark.parametrize("decision", [key for key in DECISIONS if key])
def test_every_decision_has_its_own_sentence(reported, decision):
    study, results = reported
    results = copy.deepcopy(results)
    results["primary"] |= {"decision": decision, "image_decision": "inconclusive"}
    said = macros(study, results)
    assert said["Decision"] == DECISIONS[decision] and said["DecisionName"] == decision
    assert ("same reading" in said["ImageDecision"]) == (decision == "inconclusive")


def test_all_outcomes_of_the_rules_have_words():
    outcomes = {decide(1, [0.5, 2], 1), decide(-1, [-2, -0.5], 1), decide(0.1, [0.05, 0.15], 0), decide(0, None, None)}
    outcomes |= {decide(0, [-0.1, 0.1], 0.01), decide(0, [-1, 1], 0.5), decide(0.14, [0.1, 0.2], 0.5)}
    assert outcomes == set(DECISIONS) and set(STANDING) == set(SCALE_LIMITS)


def test_sentences_change_with_the_results(reported):
    study, results = reported
    results = copy.deepcopy(results)
    for row in results["controls"]:
        row["p_adjusted"] = 1.0
    assert "No control comparison" in macros(study, results)["ControlsSentence"]
    results["controls"][0] |= {"p_adjusted": 0.01, "difference_pp": -1.5}
    assert "$-1.50$" in macros(study, results)["ControlsSentence"]
    results["primary"]["sd_difference_pp"] = 0.2
    assert "1.9 times" in macros(study, results)["PublishedGain"]
    results["controls"] = []
    assert "not been run" in macros(study, results)["ControlsSentence"]


def test_numbers_are_written_as_mathematics():
    assert (signed(-0.5), signed(None), span([-1, 2])) == ("$-0.50$", "--", "$-1.00$ to $+2.00$")
    assert (p_value(0.0004), p_value(0.25)) == ("$p<0.001$", "$p=0.250$")
    assert escaped("se_resnet18 − resnet18") == r"se\_resnet18 $-$ resnet18"


def test_the_table_has_a_row_for_each_arm(reported):
    study, results = reported
    assert len(arms_table(results).splitlines()) == len(results["all_arms"])
