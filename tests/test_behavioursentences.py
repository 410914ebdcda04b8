"""What the paper says of behaviour follows from its tables, and only from intervals and adjusted p-values."""

import pandas as pd
import pytest
from papercases import committed, set_interval

from lib.behavioursentences import (
    calibration,
    classes,
    confusions,
    corruption,
    disagreement,
    gates,
    hardly_opened,
    lesions,
    lossless,
    subsets,
)

pytestmark = pytest.mark.usefixtures("committed_outputs")


@pytest.mark.parametrize(
    ("p", "ratio", "words"),
    [(0.01, 1.2, ", a sign that"), (0.01, 1.05, ", a slight sign that"), (0.5, 1.0, ", no sign that")],
)
def test_images_differ_only_where_the_excess_is_significant(p, ratio, words):
    study, results = committed()
    results["disagreement"] |= {"p_value": p, "ratio": ratio}
    assert words in disagreement(study, results)


def test_one_pair_says_nothing_of_disagreement():
    assert "one pair" in disagreement(committed()[0], {"churn": {}, "disagreement": {}})


def test_classes_are_named_by_adjusted_p():
    study, results = committed()
    for row in results["recall_by_class"]:
        row["p_fdr"] = 1.0
    assert "differs in none" in classes(study, results)
    results["recall_by_class"][3]["p_fdr"] = 0.01
    assert "differs for cat" in classes(study, results) and "$p=0.010$" in classes(study, results)


def test_confusions_come_from_the_tables_of_the_analysis(tmp_path, monkeypatch):
    study, results = committed()
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path))
    assert confusions(study, results) == ""
    folder = tmp_path / study.name / "tables"
    folder.mkdir(parents=True)
    names = pd.Index(["cat", "dog", "frog"], name="true")
    for arm, table in (
        (study.baseline, [[80, 15, 5], [10, 85, 5], [3, 4, 93]]),
        (study.arm, [[80, 16, 4], [20, 75, 5], [3, 4, 93]]),
    ):
        pd.DataFrame(table, names, list(names)).to_csv(folder / f"confusion_{arm}.csv")
    assert confusions(study, results) == (
        r"The baseline errs most on cat as dog, SE on dog as cat (15.0 and 20.0\,\% of the class)."
    )


def test_subsets_that_are_not_there_are_not_told():
    study, results = committed()
    assert "near-duplicates" in subsets(study, results)
    assert subsets(study, {"subsets": []}) == ""


@pytest.mark.parametrize(
    ("difference", "low", "high", "words"),
    [(0.01, 0.005, 0.015, "worse"), (-0.01, -0.015, -0.005, "better"), (0, -1, 1, "no difference is resolved")],
)
def test_calibration_is_better_or_worse_only_where_resolved(difference, low, high, words):
    study, results = committed()
    next(row for row in results["calibration"] if row["metric"] == "ece").update(
        difference=difference, low=low, high=high
    )
    assert words in calibration(study, results)


def test_corruptions_are_named_where_their_intervals_exclude_zero():
    study, results = committed()
    set_interval(results["corruptions"], -1, 1)
    assert "clearly under none of the 8" in corruption(study, results)
    set_interval([row for row in results["corruptions"] if row["corruption"] == "gaussian_noise"], 1, 2)
    assert "clearly under gaussian noise ($+1.50$)" in corruption(study, results)


def test_the_price_of_the_copy_is_told_only_of_the_copy():
    study, results = committed()
    assert ("originals" in lossless(study, results)) == (results["data_source"] == "cifar10-jpeg")
    assert lossless(study, results | {"data_source": "cifar10"}) == ""


def test_words_on_gates_follow_the_gates():
    study, results = committed()
    rows = [row for row in results["gates"] if row["arm"] == study.arm]
    for first, last, words in ((0.1, 0.5, "rises"), (0.5, 0.1, "falls"), (0.3, 0.31, "changes little")):
        rows[0]["eta_squared"], rows[-1]["eta_squared"] = first, last
        assert words in gates(study, results)


def test_gates_have_opened_when_any_block_has_left_the_half():
    study, results = committed()
    rows = [row for row in results["gates"] if row["arm"] == study.arm]
    for row in rows:
        row |= {"mean": 0.5, "sd_images": 0.01}
    assert hardly_opened(study, results)
    rows[3]["mean"] = 0.8
    assert not hardly_opened(study, results)
    rows[3] |= {"mean": 0.5, "sd_images": 0.2}
    assert not hardly_opened(study, results)
    assert not hardly_opened(study, {"gates": []})


def test_lesions_say_on_how_many_images():
    study, results = committed()
    assert f"on {study.run(study.arm, 0).probe_images:,} test images" in lesions(study, results)
