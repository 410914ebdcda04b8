"""The paper: its numbers, the claims that guard its sentences, and the faults that keep an old PDF in place."""

import contextlib
import functools
import re
import runpy
import shutil

import pytest

from lib.data import OFFICIAL_FINGERPRINT
from lib.files import REPORT, ROOT, StudyError, read_json, write_json
from lib.paper import MissingTeXError, build, evaluate

CLAIMS = runpy.run_path(str(REPORT / "claims.py"))["CLAIMS"]
QUARTER, RATE = "__quarter_width", "se_resnet18__quarter_width_plain_rate"
NARROW, HALF_SKIP = f"se_resnet18{QUARTER}", f"half_scale_skip_resnet18{QUARTER}"
LOST = {"block": "all", "drop_pp": 1.0, "low_pp": 0.5, "high_pp": 1.5}
LESIONS = [LOST | {"arm": "se_resnet18", "lesion": lesion} for lesion in ("mean", "shuffled")]
LESIONS += [LESIONS[1] | {"block": f"block{number}", "low_pp": 0.2 if number < 4 else None} for number in range(1, 9)]
AROUND = {"low_pp": -0.3, "high_pp": 0.3, "train_loss_difference": 0.01}
AROUND |= {"train_loss_low": -0.01, "train_loss_high": 0.03}
AROUND |= {"difference_pp": 0.02, "n_pairs": 9, "accuracy_arm": 0.8, "accuracy_baseline": 0.8, "baseline": "resnet18"}
AROUND |= {"sd_arm": 0.002, "sd_baseline": 0.002, "width": 1.0, "epochs": 8, "log_error_ratio_low": -0.005}
EQUAL = {"difference_pp": 0.232, "low_pp": 0.1, "n_pairs": 5}
BELOW, WORSE = {"difference_pp": -0.4, "low_pp": -0.5, "high_pp": -0.3}, {"train_loss_low": 0.005}
PRIMARY = {"complete": True, "n_pairs": 10, "difference_pp": -0.1, "seed_interval_pp": [-0.3, 0.1], "tost_p": 0.07}
PRIMARY |= {
    "excludes_published_gain": True,
    "crossed_interval_pp": [-0.32, 0.12],
    "sd_difference_pp": 0.24,
    "sign_flip_p": 0.1,
}
KIND = {"n_pairs": 5, "difference_pp": -0.068, "seed_interval_pp": [-0.5, 0.3]}
PRIMARY |= {"by_kind": [KIND | {"kind": "AMD"}, KIND | {"kind": "NVIDIA"}]}
PRIMARY |= {"brier": {"difference": 0.001, "interval": [-0.002, 0.004], "p_value": 0.4}}
LONGER = {
    "complete": True,
    "n_pairs": 10,
    "difference_pp": -0.6,
    "sign_flip_p": 2**-9,
    "crossed_interval_pp": [-0.8, -0.4],
    "seed_interval_pp": [-0.7, -0.5],
}
NAMES = ("test_accuracy_mean", "test_accuracy_sd", "parameters", "train_loss_mean")
EFFECTS = {
    RATE: {"high_pp": 0.5, "difference_pp": 0.1},
    "se_resnet18": WORSE,
    NARROW: WORSE,
    f"wide_resnet18{QUARTER}": {"high_pp": 0.45, "difference_pp": 0.08},
}
EFFECTS |= {"se_skip_resnet18": BELOW | WORSE, HALF_SKIP: BELOW | WORSE, f"se_skip_resnet18{QUARTER}": {}}
EFFECTS |= {
    f"{NARROW}_16_epochs": BELOW | {"train_loss_difference": 0.03},
    f"{NARROW}_16_epochs_plain_rate": {},
    f"{NARROW}_32_epochs": BELOW,
    f"{NARROW}_32_epochs_plain_rate": {"difference_pp": 0.2, "low_pp": 0.1, "n_pairs": 5},
    f"{NARROW}_16_epochs_free_gates": {"difference_pp": 0.2, "low_pp": 0.01, "n_pairs": 10, "epochs": 16},
    "se_resnet18__plain_rate": EQUAL,
    f"half_scale_resnet18{QUARTER}": {},
    f"se_resnet18{QUARTER}_se_rate": {"n_pairs": 10, "difference_pp": 0.3, "low_pp": 0.05, "high_pp": 0.55},
    f"se_resnet18{QUARTER}_se_rate_static": {"n_pairs": 8, "difference_pp": 0.2, "low_pp": -0.05, "high_pp": 0.45},
}
ROWS = [{"arm": arm, **AROUND, **values} for arm, values in EFFECTS.items()]
AGAIN = dict.fromkeys(("se_resnet18__8_epochs", "se_resnet18__8_epochs_plain_rate", "se_resnet18__plain_rate"), AROUND)
AGAIN |= {"se_resnet18": AROUND | BELOW, "se_resnet18__8_epochs_plain_rate": AROUND | {"difference_pp": 0.09}}
AGAIN = [{"arm": arm, **row} for arm, row in AGAIN.items()]
AGAIN += [
    {"arm": "se_skip_resnet18", **AROUND, **BELOW, "epochs": 16},
    {"arm": "static_gate_resnet18", **AROUND, "n_pairs": 5},
]
PLAIN = ["resnet18" + variant for variant in ("", "__8_epochs", QUARTER, f"{QUARTER}_se_rate", f"{QUARTER}_32_epochs")]
ARMS = {arm: dict.fromkeys(NAMES, 0.5) | {"test_accuracy_sd": 0.0018} for arm in (*PLAIN, *EFFECTS)}
GATES = {"arm": "se_resnet18", "n_runs": 10, "n_constant": 5}
GATES = [GATES | {"block": f"block{number}", "n_constant": 5 * (number > 3)} for number in range(1, 9)]
AT_PLAIN_RATE = [row | {"arm": "se_resnet18__plain_rate", "n_constant": 9 * (row["n_constant"] > 0)} for row in GATES]
NARROW_GATES = [row | {"arm": f"{NARROW}_16_epochs_plain_rate"} for row in GATES]
NARROW_GATES += [row | {"arm": f"{NARROW}_16_epochs_free_gates", "n_constant": 0} for row in GATES]
LONGER_ARMS = ARMS | {"resnet18": ARMS["resnet18"] | {"test_accuracy_mean": 0.53}}
SECOND = {"primary": LONGER, "arms": LONGER_ARMS, "effects": AGAIN, "gate_table": GATES + AT_PLAIN_RATE}
WIDTH = {"trend": "full − quarter width", "estimate_pp": -0.1, "p_holm": 0.9}
DONE = dict.fromkeys(("tuning", "primary", "plain_rate", "se_rate_again"), 20) | {"full_se_rate": 4}
RESULTS = {  # as compare.summary gives them
    "data_source": "cifar10",
    "data_fingerprint": OFFICIAL_FINGERPRINT,
    "stages": [{"stage": stage, "planned": done, "finished": done} for stage, done in DONE.items()],
    "winners": {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}},
    "primary": PRIMARY,
    "arms": ARMS,
    "effects": ROWS,
    "contrasts": [
        AROUND | {"p_holm": 0.5, "n_pairs": 10, "difference_pp": mean, "low_pp": low, "high_pp": high}
        for mean, low, high in ((0.09, -0.1, 0.2), (0.08, -0.1, 0.45), (-0.06, -0.3, 0.2), (0.09, -0.1, 0.3))
    ],
    "trends": [
        AROUND | WIDTH,
        BELOW | {"trend": "slope over log2(epochs)", "estimate_pp": -0.1, "p_holm": 0.02},
    ],
    "gate_table": GATES + AT_PLAIN_RATE + NARROW_GATES,
    "lesion_table": [
        *LESIONS,
        LESIONS[1] | {"arm": f"{NARROW}_16_epochs", "drop_pp": 2.0},
        LESIONS[1] | {"arm": "se_skip_resnet18", "low_pp": -0.5},
        LESIONS[1] | {"arm": f"{NARROW}_16_epochs_plain_rate"},
    ],
    "deviations": [{"deviation": "missing runs", "where": "half", "count": 17, "detail": "of 20"}],
    "gates": {
        "primary": {"complete": True, "n_pairs": 10, "difference_pp": 0.15, "seed_interval_pp": [-0.1, 0.2]},
        "effects": [
            AROUND | {"arm": "free_se_resnet18", "train_loss_difference": 0.004},
            AROUND | {"arm": "se_resnet18"},
        ],
        "gate_table": [GATES[-1], GATES[-1] | {"arm": "free_se_resnet18", "n_constant": 0}],
        "lesion_table": [LESIONS[1], LESIONS[1] | {"arm": "free_se_resnet18", "drop_pp": 3.0}],
    },
    "replication": SECOND
    | {
        "stages": [{"stage": stage, "planned": 10, "finished": 0} for stage in ("controls", "short_plain_rate")],
        "lesion_table": [
            LESIONS[1] | {"arm": "se_resnet18__plain_rate"},
            LESIONS[1] | {"arm": "se_skip_resnet18", "low_pp": -0.5},
        ],
    },
}
OLD_PDF = b"the last good one"
DOCUMENT = r"\documentclass{article}\usepackage{iclrstyle,times}\begin{document}\input{numbers}%s\end{document}"
needs_tex = pytest.mark.skipif(not all(map(shutil.which, ("latexmk", "pdflatex", "bibtex"))), reason="no TeX")


def changed(**primary):
    return RESULTS | {"primary": RESULTS["primary"] | primary}


def variations(value):
    """Copies of nested results in which one entry is another, or a list is reversed or has its first entry."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for other in variations(value[key]):
                copy = value.copy()
                copy[key] = other
                yield copy
        yield from [value[::-1] or [{}]] if isinstance(value, list) else []
    elif value is None or isinstance(value, bool):
        yield not value
    else:
        yield from [value + "x", None] if isinstance(value, str) else [-value, value + 1, 10 * value]


LATE = {"deviation": "preregistered after the first primary run", "where": "primary", "count": 1}


def false_claims(results):
    return [sentence for sentence, holds in CLAIMS if not evaluate(holds, results)]


varied = functools.cache(
    lambda: [(each, false_claims(each)) for each in (RESULTS | {"deviations": [LATE]}, *variations(RESULTS))]
)


@pytest.fixture
def report(tmp_path):
    """A folder with the paper as it stands and an older PDF."""
    folder = tmp_path / "report"
    (tmp_path / "outputs").symlink_to(ROOT / "outputs")  # for its figures
    shutil.copytree(REPORT, folder, ignore=shutil.ignore_patterns("paper.pdf", "numbers.tex"))
    (folder / "paper.pdf").write_bytes(OLD_PDF)
    return folder


@pytest.fixture
def make(report, tmp_path):
    """make(results) builds the paper from these results; number of pages."""

    def make(results=RESULTS):
        for name in ("replication", "gates"):
            write_json(tmp_path / name / "results.json", results[name])
        write_json(tmp_path / "paper" / "results.json", results)
        return build(tmp_path / "paper" / "results.json", report)

    return make


@pytest.fixture
def write(report):
    """write(body) makes this the paper, with one number and no claims."""

    def write(body, claims="CLAIMS = []", number="'{:.2f}', lambda results: results['primary']['difference_pp']"):
        (report / "paper.tex").write_text(DOCUMENT % body, encoding="utf-8")
        (report / "claims.py").write_text(f"NUMBERS = {{'Gain': ({number})}}\n{claims}\n", encoding="utf-8")

    return write


def numbers_of(report):
    text = (report / "numbers.tex").read_text(encoding="utf-8")
    return dict(re.findall(r"^\\newcommand\{\\(\w+)\}\{(.*)\}$", text, re.MULTILINE))


def fault_of(make, report, results=RESULTS):
    """The one line with which the build stops; the older PDF is still there then."""
    with pytest.raises(StudyError) as caught:
        make(results)
    assert (report / "paper.pdf").read_bytes() == OLD_PDF
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_claim_holds_of_results_that_the_paper_is_about():
    assert CLAIMS and false_claims(RESULTS) == []


@pytest.mark.parametrize("sentence", [sentence for sentence, _ in CLAIMS], ids=lambda sentence: sentence[:40])
def test_a_claim_made_false_stops_the_build_and_is_named(sentence, make, report):
    breaking = [results for results, broken in varied() if broken == [sentence]]
    told = (fault_of(make, report, results) for results in breaking)
    assert f'claim no longer holds: "{sentence}"' in told, "no other entry makes this claim false, and it alone"


@pytest.mark.parametrize("body", ["Another sentence.", "% SE helps\n", r"Whether SE\ helps"])
def test_a_claim_must_stand_in_the_paper(body, make, write, report):
    write(body, claims="CLAIMS = [('SE helps', lambda results: True)]")
    assert fault_of(make, report).endswith('a sentence that paper.tex does not have: "SE helps"')


def test_a_number_is_set_as_tex_needs_it_and_may_not_be_used_before_it_exists(make, write, report):
    write(r"SE gains \Gain{} points.")
    assert r"\Gain" in fault_of(make, report, changed(difference_pp=None))
    write(r"SE gains \Gains{} points. % \Gain")  # another macro, and a comment
    fault_of(make, report, changed(difference_pp=None))
    assert numbers_of(report) == {}
    write(r"\undefined", number="'{:+.1%}', lambda results: -0.91234")
    fault_of(make, report)
    assert numbers_of(report) == {"Gain": r"$-$91.2\,\%"}


def test_numbers_of_the_paper_follow_the_results(make, report):
    fault_of(make, report, changed(difference_pp=0.123, seed_interval_pp=[0.02, 0.34]))
    expected = {"SecondPlanned": "20", "SecondMissing": "20", "Difference": "+0.12", "SeedInterval": "+0.02 to +0.34"}
    assert expected.items() <= numbers_of(report).items()


def test_without_tex_the_numbers_are_written_and_without_results_nothing(make, report, monkeypatch, tmp_path):
    with pytest.raises(StudyError, match="no .*nowhere.json"):
        build(tmp_path / "nowhere.json", report)
    assert not (report / "numbers.tex").exists()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTeXError, match="install"):
        make()
    assert numbers_of(report)["Pairs"] == "10" and (report / "paper.pdf").read_bytes() == OLD_PDF


@pytest.mark.slow
@needs_tex
def test_the_paper_is_built_alike_anywhere_and_any_time(make, report, monkeypatch):
    names = {path.name for path in report.iterdir()}
    assert make() <= 4
    first = (report / "paper.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    assert {path.name for path in report.iterdir()} == names | {"numbers.tex"}
    moved = report.rename(report.with_name("another place"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    build(report.with_name("paper") / "results.json", moved)
    assert (moved / "paper.pdf").read_bytes() == first
    official = r"\ProvidesPackage{iclr2019_conference}\RequirePackage{natbib}\let\bibsep\parskip\stop"
    (moved / "iclr2019_conference.sty").write_text(official, encoding="utf-8")  # takes the place of ours
    with pytest.raises(StudyError):
        build(moved.with_name("paper") / "results.json", moved)


@needs_tex
@pytest.mark.parametrize(
    "body, fault",
    [
        ("Fine.\nSome \\nonsense here.", r"paper.tex line 2 (Some \nonsense): Undefined control sequence."),
        (r"\input{nowhere}", "nowhere.tex"),
        (r"\usepackage{nowhere}", "preamble"),
        (r"See \ref{nowhere} and \citep{nobody}.", "nowhere, nobody"),
        (r"\cite{a}\bibliographystyle{plainnat}\bibliography{nowhere}", "nowhere"),
        (r"\cite{a}\bibliographystyle{plainnat}\bibliography{broken}", "broken.bib line 3"),
        (r"\noindent\rule{410pt}{1pt}", "12.51"),
        (r"a\newpage b\newpage c\newpage d\newpage e", "5 pages"),
        (r"\immediate\write18{echo a > escaped.tex}\input{escaped}", "escaped.tex"),
    ],
)
def test_faults_of_the_paper_are_told_in_one_line(body, fault, make, write, report):
    (report / "broken.bib").write_text("@book{a,\n title = {A\n}\n", encoding="utf-8")
    write(body)
    assert fault in fault_of(make, report)


def test_the_committed_paper_agrees_with_the_committed_results(report):
    results = ROOT / "outputs" / "paper" / "results.json"
    with contextlib.suppress(MissingTeXError):
        build(results, report)
    assert (report / "numbers.tex").read_bytes() == (REPORT / "numbers.tex").read_bytes()


def test_the_readme_recomputes_the_difference_from_the_logits_and_names_it(monkeypatch, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = read_json(ROOT / "outputs" / "paper" / "results.json")
    monkeypatch.chdir(ROOT)
    exec(re.search(r"```python\n(import numpy.*?)```", readme, re.DOTALL)[1], {})  # as a reader would run it
    found = f"{results['primary']['difference_pp']:+.2f}"
    assert f"{found} percentage" in capsys.readouterr().out and f"{found.replace('-', '−')} points" in readme
    second = read_json(ROOT / "outputs" / "replication" / "results.json")

    def cell(row, form="{:+.2f} ({:+.2f} to {:+.2f}"):
        return form.format(*(row[name] for name in ("difference_pp", "low_pp", "high_pp"))).replace("-", "−")

    rows, again = ({row["arm"]: row for row in each["effects"]} for each in (results, second))
    gates = read_json(ROOT / "outputs" / "gates" / "results.json")["effects"]
    (repeated,) = (row for row in gates if row["arm"] == "free_se_resnet18")
    paper = numbers_of(REPORT)
    test = "{Counted} ({CountedInterval})".format(**paper).replace("$-$", "−")
    longer = again["se_resnet18__plain_rate"]
    ends = "{:+.2f} to {:+.2f}".format(*results["primary"]["seed_interval_pp"]).replace("-", "−")
    for text in (
        f"95 % interval {ends})",
        cell(rows["se_resnet18__quarter_width_se_rate"], "{:+.2f} ({:+.2f} to {:+.2f}) in ten new pairs, ")
        + cell(rows["se_resnet18__quarter_width_se_rate_static"], "{:+.2f} ({:+.2f} to {:+.2f}) in eight more."),
        cell(repeated, "ten new pairs differ by {:+.2f} ({:+.2f} to {:+.2f})"),
        f"lose {-rows['se_skip_resnet18']['difference_pp']:.2f} points (sixteen: "
        f"{-again['se_skip_resnet18']['difference_pp']:.2f})",
        f"ten pairs lose {-second['primary']['difference_pp']:.2f} points",
        cell(
            rows["se_resnet18__plain_rate"], "five pairs gained {:.2f} points ({:+.2f} to {:+.2f}) after eight epochs"
        ),
        f"{paper['CountedPairs']} new pairs, {test}",
        cell(longer, "nine pairs after sixteen give {:+.2f} ({:+.2f} to {:+.2f})"),
    ):
        assert text in " ".join(readme.split())
    for arm in ("resnet18", "se_resnet18"):
        assert f"{100 * results['arms'][arm]['test_accuracy_mean']:.2f} %" in readme
