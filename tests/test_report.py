"""The paper says what results.json says: no number is typed, and no sentence outlives the result that it was about."""

import copy
import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt

from lib.paper import PAGE_LIMIT, build_paper, missing_tex
from lib.paperfigures import behaviour_figure, effects_figure
from lib.paths import ROOT
from lib.report import arms_table, macros, reported_study, write_report
from lib.sentences import DECISIONS, PUBLISHED_ACCURACY, PUBLISHED_GAIN_PP, sentences
from lib.statistics import SMALLEST_EFFECT_PP, decide
from lib.study import load_study
from lib.wording import arm_name, effect, escaped, p_value, percent, share, signed, span

REPORT = ROOT / "report"
GENERATED = REPORT / "generated"
# decimals that the paper and its sentences may type: facts of others, and what was fixed before any result
CITED = {
    "1.16": "gain of ResNet-110 (6.37 to 5.21), Hu et al. 2020, table 4",
    "0.39": "gain of WRN-16-8, Hu et al. 2020, table 4",
    "4.27": "error of WRN-16-8, Hu et al. 2020, table 4, and Zagoruyko & Komodakis 2016",
    "3.88": "error of SE-WRN-16-8, Hu et al. 2020, table 4",
    "4.52": "error of ResNet-56, github.com/osmr/imgclsmob",
    "4.13": "error of SE-ResNet-56, the same",
    "3.86": "error of PreResNet-110, the same",
    "4.54": "error of SE-PreResNet-110, the same",
    "6.61": "error of ResNet-110, He et al. 2016b, table 1",
    "12.86": "the same with shortcut-only gating, bias 0",
    "0.15": "SD between runs, Jordan 2024; smallest effect of interest, preregistered",
    "0.14": "difference that 20 pairs detect, preregistered",
    "0.9": "momentum, of every run",
    "95.28": "ResNet-18 without Cutout, DeVries & Taylor 2017, table 1",
}
# what is missing while a study is young
PARTS = ("controls", "sensitivity", "curve_length", "curve_data", "churn", "disagreement", "recall_by_class", "subsets")
PARTS += ("calibration", "corruptions", "lossless", "lossless_difference", "gates", "interventions", "deviations")
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
needs_tex = pytest.mark.skipif(bool(missing_tex()), reason=f"not installed: {', '.join(missing_tex())}")


@pytest.fixture(autouse=True)
def committed_outputs(monkeypatch):
    """The outputs of the checkout, which the paper is about; nothing here writes to them."""
    monkeypatch.setenv("STUDY_OUTPUTS", str(ROOT / "outputs"))


@pytest.fixture(scope="module")
def reported():
    """The reported study and its results.json, as committed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUTPUTS", str(ROOT / "outputs"))
        study = reported_study()
    return study, json.loads((ROOT / "outputs" / study.name / "results.json").read_text())


@pytest.fixture
def results(reported):
    """A copy of the results, to be changed."""
    return copy.deepcopy(reported[1])


@pytest.fixture
def full_study():
    """The study `paper` as if its tuning had been finished."""
    study = load_study("paper")
    winner = {"learning_rate": 0.1, "weight_decay": 0.0005}
    runs = study.runs if study.winners else study.awaiting
    return dataclasses.replace(study, runs=runs, awaiting=(), winners={study.arm: winner, study.baseline: winner})


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
    winner = {"learning_rate": 0.1, "weight_decay": 0.0005}
    made["winners"] = dict.fromkeys(("resnet18", "se_resnet18"), winner)
    for row in made["controls"]:
        row |= {"n_pairs": 10, "p_adjusted": 0.016, "difference_pp": -1.23, "low_pp": -2.34, "high_pp": -0.12}
    for row in made["recall_by_class"]:
        row["p_fdr"] = 0.001
    for row in made["corruptions"]:
        row |= {"difference_pp": 1.23, "low_pp": 0.12, "high_pp": 2.34}
    made["preregistration"] |= {"commit": "abcdef1", "older": True}
    return made


def typed_numbers(tex):
    """Decimals in the text of a LaTeX source that are neither macros nor cited facts."""
    body = re.sub(r"(?<!\\)%.*|\\(setlength|fontsize)\{[^}]*\}\{[^}]*\}|\{iclr[^}]*\}", "", tex)
    return [number for number in re.findall(r"\d+\.\d+", body) if number not in CITED]


def used_macros(tex):
    """Names of our macros in a LaTeX source: with a capital, or ending in Sentence."""
    return set(re.findall(r"\\([A-Z][A-Za-z]*|[a-z][A-Za-z]*Sentence)\b", tex)) - {"IfFileExists"}


def test_the_paper_types_no_result():
    assert typed_numbers((REPORT / "paper.tex").read_text()) == []


def test_a_stray_number_is_found():
    tex = (REPORT / "paper.tex").read_text()
    assert typed_numbers(tex.replace("\\Difference{}", "0.42")) == ["0.42"] * tex.count("\\Difference{}") != []


def test_constants_of_the_module_are_cited_facts():
    assert {f"{PUBLISHED_GAIN_PP}", f"{PUBLISHED_ACCURACY}", f"{SMALLEST_EFFECT_PP}"} <= set(CITED)


def test_the_paper_uses_every_macro_and_no_other(reported):
    assert used_macros((REPORT / "paper.tex").read_text()) == set(macros(*reported))


def test_every_citation_has_an_entry_and_every_entry_is_cited(reported):
    text = (REPORT / "paper.tex").read_text() + " ".join(macros(*reported).values())
    cited = {key for keys in re.findall(r"\\cite[pt](?:\[[^]]*\])*\{([^}]*)\}", text) for key in keys.split(",")}
    assert cited == set(re.findall(r"^@\w+\{(\w+),", (REPORT / "references.bib").read_text(), re.MULTILINE))


@pytest.mark.skipif(not GENERATED.exists(), reason="no paper has been written yet")
def test_the_committed_files_follow_from_the_results(reported, tmp_path):
    write_report(reported[0], tmp_path)
    for path in sorted(GENERATED.glob("*.tex")):
        assert (tmp_path / path.name).read_text() == path.read_text(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in GENERATED.iterdir()}


def test_the_numbers_are_those_of_the_results(reported):
    study, results = reported
    said, primary = macros(study, results), results["primary"]
    low, high = primary["seed_interval_pp"]
    assert said["Difference"] == f"${primary['difference_pp']:+.2f}$"
    assert said["SeedInterval"] == f"${low:+.2f}$ to ${high:+.2f}$"
    accuracy = np.mean([row["test_accuracy_mean"] for row in results["all_arms"] if row["arm"] == study.arm])
    assert said["AccuracySe"] == f"{100 * accuracy:.2f}"


@pytest.mark.parametrize("decision", OUTCOMES)
def test_every_decision_has_its_own_words(reported, results, decision):
    study = reported[0]
    said = {each: sentences(study, with_outcome(results, each)) for each in OUTCOMES}
    for name in ("decisionSentence", "answerSentence"):
        assert [each for each in OUTCOMES if said[each][name] == said[decision][name]] == [decision], name
    assert DECISIONS[decision] in said[decision]["decisionSentence"]
    assert all(text == "" or text.endswith(".") for text in said[decision].values())
    assert not re.search(r"None|nan|\{\}|\$\+-", " ".join(said[decision].values()).replace("None of", ""))


def test_the_decisions_are_those_of_the_rules():
    assert set(OUTCOMES) == set(DECISIONS)


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_what_has_not_been_run_is_not_claimed(reported, results, part):
    study = reported[0]
    before = sentences(study, results)
    for name in PARTS if part == "all" else [part]:
        results.pop(name, None)
    after = sentences(study, results)
    assert after != before or part == "deviations"
    assert not re.search(r"None|nan", " ".join(after.values()))
    if part == "all":
        for name in ("controls", "curves", "classes", "calibration", "corruption", "gates", "lesions", "literal"):
            assert re.search(r"have not been|has not been|not been", after[f"{name}Sentence"]), name
    macros(study, results)
    plt.close(effects_figure(np.array([0.1]), study, results))
    plt.close(behaviour_figure(study, results))


def test_one_pair_says_nothing_of_spread(reported, results):
    said = macros(reported[0], with_outcome(results, None) | {"churn": {}, "disagreement": {}})
    assert "too few pairs" in said["answerSentence"] and "one pair" in said["disagreementSentence"].lower()
    assert said["SeedInterval"] == "no interval" and said["PValue"] == "$p$ unknown"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_decision": "superior"}, "another reading (superior"),
        ({"seed_interval_pp": [-1, 1], "image_interval_pp": [-0.1, 0.1]}, "seeds are the larger"),
        ({"seed_interval_pp": [-0.1, 0.1], "image_interval_pp": [-1, 1]}, "images are the larger"),
        ({"seed_interval_pp": [-1, 1], "image_interval_pp": [-1, 1]}, "about as large"),
    ],
)
def test_both_uncertainties_are_compared(reported, results, changes, words):
    results["primary"] |= {"decision": "inconclusive", "image_decision": "inconclusive"} | changes
    assert words in sentences(reported[0], results)["imagesSentence"]


@pytest.mark.parametrize(("correlation", "words"), [(0.8, "more precise"), (0.0, "no more"), (-0.8, "by chance, less")])
def test_the_worth_of_pairing_follows_the_correlation(reported, results, correlation, words):
    results["primary"]["seed_correlation"] = correlation
    assert words in sentences(reported[0], results)["pairingSentence"]


def test_controls_are_named_only_where_they_differ(reported, results):
    study, rows = reported[0], results["controls"]
    for row in rows:
        row |= {"n_pairs": 5, "p_adjusted": 1.0, "low_pp": -1.0, "high_pp": 1.0, "difference_pp": 0.0}
    said = sentences(study, results)
    assert "none could be" in said["controlsSentence"] and "include zero" in said["controlsSentence"]
    assert "no difference is shown" in said["literalSentence"] and "nothing is shown" in said["mechanismSentence"]
    for row in rows:
        row["n_pairs"] = 10  # 8 tests of ten pairs can reach 8 / 2^9 = 0.016
    assert "could" not in sentences(study, results)["controlsSentence"]
    for row in rows:
        row |= {"p_adjusted": 0.01, "difference_pp": 1.5, "low_pp": 1.0, "high_pp": 2.0}
    said = sentences(study, results)
    assert said["controlsSentence"].startswith("Significant") and "and 5 more" in said["controlsSentence"]
    assert "which reading it is about" in said["literalSentence"] and "speaks for looking" in said["mechanismSentence"]
    for row in rows:
        row |= {"difference_pp": -1.5, "low_pp": -2.0, "high_pp": -1.0}
    said = sentences(study, results)
    assert "clear loss" in said["literalSentence"] and "against looking" in said["mechanismSentence"]


def test_exploratory_readings_follow_their_intervals(reported, results):
    study = reported[0]
    tables = ("curve_length", "curve_data", "corruptions", "sensitivity")
    for low, high, words in ((-1, 1, "clear no"), (1, 2, "clear yes")):
        for row in (row for table in tables for row in results[table]):
            row |= {"low_pp": low, "high_pp": high, "difference_pp": (low + high) / 2}
        said = sentences(study, results)
        assert ("include zero" in said["curvesSentence"]) == (words == "clear no")
        assert ("with no unadjusted interval" in said["corruptionSentence"]) == (words == "clear no")
        assert ("differs clearly" in said["sensitivitySentence"]) == (words == "clear no")
    assert "for SE" in said["curvesSentence"]
    ece = next(row for row in results["calibration"] if row["metric"] == "ece")
    for difference, low, high, words in (
        (0.01, 0.005, 0.015, "worse"),
        (-0.01, -0.015, -0.005, "better"),
        (0, -1, 1, "no diff"),
    ):
        ece |= {"difference": difference, "low": low, "high": high}
        assert words in sentences(study, results)["calibrationSentence"]
    for p, ratio, words in ((0.01, 1.2, "a sign that"), (0.5, 1.0, "no sign that")):
        results["disagreement"] |= {"p_value": p, "ratio": ratio}
        assert f", {words}" in sentences(study, results)["disagreementSentence"]
    for row in results["recall_by_class"]:
        row["p_fdr"] = 1.0
    assert "in no class" in sentences(study, results)["classesSentence"]


def test_words_on_gates_follow_the_gates(reported, results):
    study = reported[0]
    rows = [row for row in results["gates"] if row["arm"] == study.arm]
    for first, last, words in ((0.1, 0.5, "rises"), (0.5, 0.1, "falls"), (0.3, 0.31, "changes little")):
        rows[0]["eta_squared"], rows[-1]["eta_squared"] = first, last
        assert words in sentences(study, results)["gatesSentence"]
    assert "hardly left" in sentences(study, results)["gatesSentence"]
    rows[3]["mean"] = 0.8
    assert "hardly left" not in sentences(study, results)["gatesSentence"]
    lost = next(row for row in results["interventions"] if (row["intervention"], row["block"]) == ("mean", "all"))
    for low, words in ((-1, "may be nothing"), (0.1, "and without")):
        lost["low_pp"] = low
        assert words in sentences(study, results)["gateUseSentence"]


def test_the_tuning_names_winners_and_edges(reported, results):
    study = reported[0]
    results["winners"] = {"resnet18": {"learning_rate": 0.1}, "se_resnet18": {"learning_rate": 0.1}}
    said = sentences(study, results)["tuningSentence"]
    assert "0.1 won for both arms" in said and "edge" not in said
    results["winners"]["se_resnet18"] = {"learning_rate": 0.05}
    said = sentences(study, results)["tuningSentence"]
    assert "0.1 won for the baseline and learning rate 0.05 for SE, at the edge" in said


def test_the_rehearsal_is_called_one_and_the_study_is_not(reported, results, full_study):
    rehearsal = sentences(load_study("laptop"), results)
    assert "rehearsal" in rehearsal["standingSentence"] and "has the same rules" in rehearsal["preregistrationSentence"]
    for older, words in ((True, "before the first run"), (False, "after"), (None, "is unknown (why)")):
        full = of_full_study(results)
        full["preregistration"] |= {"older": older, "unknown_because": None if older is not None else "why"}
        said = macros(full_study, full)
        assert words in said["preregistrationSentence"]
        assert ("exploratory" in said["standingSentence"]) == (older is not True)
        assert "rehearsal" not in " ".join(map(str, said.values())).lower()
    assert said["Width"] == "full" and said["StageWidths"] == "64, 128, 256, 512" and said["Epochs"] == "50"
    assert said["losslessSentence"] == "" and "official archive" in said["dataSentence"]


def test_deviations_are_all_told_and_safe(reported, results):
    results["deviations"] = ["se_resnet18 seed 3 is excluded: 100 % loss.", "More than one device."]
    said = sentences(reported[0], results)["deviationsSentence"]
    assert r"se\_resnet18 seed 3 is excluded: 100 \% loss." in said and "More than one device." in said


def test_numbers_are_written_as_mathematics():
    assert (signed(-0.5), signed(None), span([-1, 2])) == ("$-0.50$", "--", "$-1.00$ to $+2.00$")
    assert (p_value(0.0004), p_value(0.25), percent(0.6713)) == ("$p<0.001$", "$p=0.250$", "67.13")
    assert (share(0.0001), share(0.66)) == (r"less than 1\,\%", r"66\,\%")
    assert effect({"difference_pp": 0.1, "low_pp": None, "high_pp": None}) == "$+0.10$ (no interval)"


def test_what_means_something_to_latex_is_escaped():
    assert escaped("se_x − 5 % & #1 ~^\\{}$") == (
        r"se\_x $-$ 5 \% \& \#1 \textasciitilde{}\textasciicircum{}\textbackslash{}\{\}\$"
    )
    assert arm_name("se_resnet18_r4") == "SE, r = 4" and arm_name("my_arm") == "my_arm"
    assert arm_name("se_resnet18__other_winner") == "SE, other winner"


def test_the_table_has_a_row_for_each_arm_and_escapes_unknown_ones(results):
    results["all_arms"][0] |= {"arm": "my_arm", "test_accuracy_sd": None}
    lines = arms_table(results).splitlines()
    assert len(lines) == len(results["all_arms"])
    assert lines[0].startswith(r"my\_arm & ") and r"\pm" not in lines[0] and r"\pm" in lines[1]


@needs_tex
@pytest.mark.parametrize("decision", ["inconclusive", "superior"])
def test_the_paper_of_the_full_study_would_fit_its_pages(results, full_study, tmp_path, decision):
    made = of_full_study(results, decision)
    folder = shutil.copytree(REPORT, tmp_path / "report", ignore=shutil.ignore_patterns("*.pdf.partial*"))
    lines = [f"\\newcommand\\{name}{{{value}}}" for name, value in macros(full_study, made).items()]
    (folder / "generated" / "numbers.tex").write_text("\n".join(lines))
    assert build_paper(folder / "paper.tex", tmp_path / "paper.pdf") == PAGE_LIMIT


def test_torch_is_not_needed():
    code = "import sys, lib.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
