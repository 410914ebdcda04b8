"""The paper says what results.json says: no number is typed, and it is written of a study that is complete."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from papercases import OUTCOMES, PARTS, committed, full_study, of_full_study, with_outcome

from lib.errors import StudyError
from lib.limitsentences import PUBLISHED_ACCURACY
from lib.paper import PAGE_LIMIT, build_paper, missing_tex
from lib.paths import ROOT, run_folder
from lib.reflectionsentences import PUBLISHED_GAIN_PP
from lib.report import arms_table, macros, reported_study, write_report
from lib.runs import write_json
from lib.sentences import sentences
from lib.statistics import SMALLEST_EFFECT_PP

REPORT = ROOT / "report"
GENERATED = REPORT / "generated"
# decimals that the paper and its sentences may type: facts of others, and what was fixed before any result
CITED = {
    "1.16": "gain of the pre-activation ResNet-110 (6.37 to 5.21), Hu et al. 2020, table 4",
    "0.39": "gain of WRN-16-8, Hu et al. 2020, table 4; and ResNet-56 (4.52 to 4.13), github.com/osmr/imgclsmob",
    "4.27": "error of WRN-16-8, Hu et al. 2020, table 4, and Zagoruyko & Komodakis 2016",
    "3.88": "error of SE-WRN-16-8, Hu et al. 2020, table 4",
    "0.68": "loss of PreResNet-110 (3.86 to 4.54), github.com/osmr/imgclsmob",
    "6.61": "error of ResNet-110, He et al. 2016b, table 1",
    "12.86": "the same with shortcut-only gating, bias 0",
    "0.15": "SD between runs, Jordan 2024; smallest effect of interest, preregistered",
    "0.14": "difference that 20 pairs detect, preregistered",
    "0.9": "momentum, of every run",
    "95.28": "ResNet-18 without Cutout, DeVries & Taylor 2017, table 1",
}
needs_tex = pytest.mark.skipif(bool(missing_tex()), reason=f"not installed: {', '.join(missing_tex())}")
pytestmark = pytest.mark.usefixtures("committed_outputs")


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


def test_the_paper_uses_every_macro_and_no_other():
    assert used_macros((REPORT / "paper.tex").read_text()) == set(macros(*committed()))


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    text = (REPORT / "paper.tex").read_text() + " ".join(macros(*committed()).values())
    cited = {key for keys in re.findall(r"\\cite[pt](?:\[[^]]*\])*\{([^}]*)\}", text) for key in keys.split(",")}
    entries = re.findall(r"^@\w+\{(\w+),", (REPORT / "references.bib").read_text(), re.MULTILINE)
    assert cited == set(entries)
    assert 12 <= len(entries) <= 14


def test_the_committed_files_follow_from_the_results(tmp_path):
    write_report(committed()[0], tmp_path)
    for path in sorted(GENERATED.glob("*.tex")):
        assert (tmp_path / path.name).read_text() == path.read_text(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in GENERATED.iterdir()}


def test_the_numbers_are_those_of_the_results():
    study, results = committed()
    said, primary = macros(study, results), results["primary"]
    low, high = primary["seed_interval_pp"]
    assert said["Difference"] == f"${primary['difference_pp']:+.2f}$"
    assert said["SeedInterval"] == f"${low:+.2f}$ to ${high:+.2f}$"
    accuracy = np.mean([row["test_accuracy_mean"] for row in results["all_arms"] if row["arm"] == study.arm])
    assert said["AccuracySe"] == f"{100 * accuracy:.2f}"
    assert said["FullSizeCases"] == "15"  # P(|N(0, 2 × 0.15²)| > 0.39) = 0.066


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_whatever_the_outcome_all_sentences_are_whole(outcome):
    study, results = committed()
    said = sentences(study, with_outcome(results, outcome))
    assert all(text == "" or text.endswith(".") for text in said.values())
    assert not re.search(r"None|nan|\{\}|\$\+-", " ".join(said.values()).replace("None of", ""))


@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_what_has_not_been_run_is_not_claimed(part):
    study, results = committed()
    before = sentences(study, results)
    for name in PARTS if part == "all" else [part]:
        results.pop(name, None)
    after = sentences(study, results)
    assert after != before or part == "deviations"
    assert not re.search(r"None|nan", " ".join(after.values()))
    if part == "all":
        names = ("controls", "curves", "classes", "calibration", "corruption", "gates", "lesions")
        for name in (*names, "literal"):
            assert re.search(r"have not been|has not been|not been", after[f"{name}Sentence"]), name
    macros(study, results)


def test_one_pair_says_nothing_of_spread():
    study, results = committed()
    said = macros(study, with_outcome(results, None) | {"churn": {}, "disagreement": {}})
    assert "too few pairs" in said["answerSentence"] and "one pair" in said["disagreementSentence"].lower()
    assert said["SeedInterval"] == "no interval" and said["PValue"] == "$p$ unknown"


def test_the_full_study_has_its_own_size_and_is_no_rehearsal():
    study, results = full_study(), of_full_study(committed()[1])
    said = macros(study, results)
    assert "rehearsal" not in " ".join(map(str, said.values())).lower()
    assert said["Width"] == "full" and said["StageWidths"] == "64, 128, 256, 512" and said["Epochs"] == "50"
    assert said["losslessSentence"] == "" and "official archive" in said["dataSentence"]


def test_the_table_has_a_row_for_each_arm_and_escapes_unknown_ones():
    study, results = committed()
    results["all_arms"][1] |= {"arm": "my_arm", "test_accuracy_sd": None}
    lines = arms_table(study, results).splitlines()
    assert len(lines) == len(results["all_arms"])
    assert lines[1].startswith(r"my\_arm & ") and r"\pm" not in lines[1] and r"\pm" in lines[0]


def test_the_table_gives_differences_over_shared_seeds():
    study, results = committed()
    results["all_arms"] = [row for row in results["all_arms"] if row["arm"] in (study.baseline, "wide_resnet18")]
    next(row for row in results["controls"] if row["arm"] == "wide_resnet18")["difference_pp"] = 1.25
    cells = [[cell.strip() for cell in line.split("&")] for line in arms_table(study, results).splitlines()]
    assert [row[3] for row in cells] == ["", "$+1.25$"]


@pytest.fixture
def young_study(monkeypatch, tmp_path):
    """Outputs in which `laptop` has results of 9 of 10 pairs, and the run of the last is missing."""
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path))
    write_json(tmp_path / "laptop" / "results.json", {"primary": {"n_pairs": 9}})
    for arm in ("resnet18", "se_resnet18"):
        for seed in range(9 if arm == "resnet18" else 10):
            write_json(run_folder("laptop", arm, seed) / "summary.json", {})
    monkeypatch.setattr("lib.report.load_study", lambda name: full_study() if name == "paper" else committed()[0])


def test_a_study_with_a_run_to_come_is_not_reported(young_study):
    with pytest.raises(StudyError, match="no study has finished its primary comparison yet"):
        reported_study()


def test_a_run_that_diverged_does_not_hold_up_the_paper(young_study):
    write_json(run_folder("laptop", "resnet18", 9) / "failure.json", {"reason": "loss is nan"})
    assert reported_study().name == "laptop"


@needs_tex
@pytest.mark.parametrize("decision", ["inconclusive", "superior"])
def test_the_paper_of_the_full_study_would_fit_its_pages(tmp_path, decision):
    study, made = full_study(), of_full_study(committed()[1], decision)
    folder = shutil.copytree(REPORT, tmp_path / "report", ignore=shutil.ignore_patterns("*.pdf.partial*"))
    lines = [f"\\newcommand\\{name}{{{value}}}" for name, value in macros(study, made).items()]
    (folder / "generated" / "numbers.tex").write_text("\n".join(lines))
    assert build_paper(folder / "paper.tex", tmp_path / "paper.pdf") == PAGE_LIMIT


def test_torch_is_not_needed():
    code = "import sys, lib.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
