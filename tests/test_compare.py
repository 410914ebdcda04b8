import json
import re

import numpy as np
import pandas as pd
import pytest
from made_runs import ENVIRONMENT, LABELS, SMALL_STUDY, make_study, small_study
from scipy import stats
from scipy.special import softmax
from statsmodels.stats.multitest import multipletests

from lib.analyse import compare, results
from lib.analyse.results import load_logit_stack, load_runs, primary_is_complete
from lib.files import StudyError, run_folder, write_json
from lib.study import load_study

BASE, SE = "resnet18", "se_resnet18"
NARROW, NARROW_SE, STATIC = (f"{arm}__quarter_width" for arm in (BASE, SE, "static_gate_resnet18"))
GAINS_PP = {SE: 1.0, NARROW_SE: 3.0, "se_resnet18__quarter_width_16_epochs": 5.0}


@pytest.fixture(scope="module")
def whole_paper(tmp_path_factory):
    """Folder of the outputs of the whole study `paper`."""
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_OUTPUTS", str(folder))
        make_study(load_study("paper"), GAINS_PP)
    return folder


@pytest.fixture
def paper(whole_paper, monkeypatch):
    monkeypatch.setenv("STUDY_OUTPUTS", str(whole_paper))
    return load_study("paper")


def table_of(accuracies):
    """Runs with these accuracies in percent, {arm: [seed 0, seed 1, …]}, None for a seed without a run."""
    table = pd.DataFrame.from_dict(accuracies, orient="index", dtype=float).stack().div(100)
    table = table.rename_axis(["arm", "seed"]).rename("test_accuracy").reset_index().dropna()
    return table.assign(width=1.0, epochs=8, origin="here", uniform=True, train_loss=1 - table["test_accuracy"])


def related(study, arm, baseline, seeds):
    """scipy's t test for related samples on the accuracies in points, from the stored logits."""
    hits = [load_logit_stack(study, each, seeds)[0].argmax(-1) == LABELS for each in (arm, baseline)]
    return stats.ttest_rel(*(100 * hit.mean(1) for hit in hits))


def test_only_seeds_that_both_arms_have_finished_are_paired():
    runs = table_of({BASE: [90, 92, 91, None], SE: [91, 94, None, 99]}).sample(frac=1, random_state=0)
    pairs = compare.pairs(runs, SE, BASE)
    assert list(pairs.index) == [0, 1] and list(pairs.columns) == [BASE, SE]
    assert list(compare.pairs(runs, SE, BASE, seeds=[1, 2]).index) == [1]
    assert compare.pairs(runs, SE, "none").empty and compare.compare_arms(runs, "none", BASE)["n_pairs"] == 0
    row = compare.compare_arms(runs, SE, BASE)
    assert (row["n_pairs"], row["width"], row["epochs"], row["difference_pp"]) == (2, 1.0, 8, pytest.approx(1.5))
    assert (row["accuracy_arm"], row["accuracy_baseline"]) == (pytest.approx(0.925), pytest.approx(0.91))
    assert (row["sd_arm"], row["sd_baseline"]) == (pytest.approx(0.03 / 2**0.5), pytest.approx(0.02 / 2**0.5))
    assert row["log_error_ratio"] == pytest.approx(np.log([9 / 10, 6 / 8]).mean())
    ends = stats.ttest_rel([0.09, 0.06], [0.1, 0.08]).confidence_interval(0.95)
    assert [row[f"train_loss_{end}"] for end in ("difference", "low", "high")] == pytest.approx(
        [-0.015, ends.low, ends.high]
    )


CHANGES = {"Tesla T4": "device_name", "fp32": "precision", "d1ff": "training_code", "2.9": "packages"}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_mixed_pair_is_left_out_and_named_and_the_primary_comparison_refuses_it(small, changed):
    change = {CHANGES[changed]: {"torch": changed} if changed == "2.9" else changed}
    make_study(small, environment=lambda config: change if (config.arm, config.seed) == (STATIC, 3) else {})
    runs = load_runs(small)
    assert 3 not in compare.pairs(runs, STATIC, NARROW).index
    assert len(compare.pairs(runs, NARROW_SE, NARROW)) == 8
    assert len(compare.pairs(runs, STATIC, NARROW, seeds=[0, 1])) == 2
    named = [row for row in compare.summary(small, runs)["deviations"] if row["deviation"] == "mixed pair left out"]
    assert any(row["where"] == f"{STATIC} − {NARROW}, seed 3" and changed in row["detail"] for row in named)
    make_study(small, environment=lambda config: change if (config.arm, config.seed) == (SE, 3) else {})
    with pytest.raises(StudyError, match="se_resnet18 with seed 3") as caught:
        compare.summary(small, load_runs(small))
    assert changed in str(caught.value)


def test_a_pair_is_mixed_whose_runs_were_made_nobody_knows_where_or_were_both_resumed_elsewhere(small):
    resumed = {"earlier": [ENVIRONMENT | {"device_name": "Tesla T4"}]}
    make_study(small, environment=lambda config: resumed if config.seed == 5 else {})
    for arm in (SE, BASE):
        (run_folder(small.name, arm, 1) / "environment.json").unlink()
    mixed = compare.mixed_pairs(load_runs(small), SE, BASE)
    assert list(mixed) == [1, 5] and "Tesla T4" in mixed[5] and "AMD EPYC" in mixed[5]


def test_runs_of_codes_that_train_alike_to_the_last_bit_form_pairs(small, monkeypatch):
    make_study(small, environment=lambda config: {"training_code": "d1ff"} if config.arm == SE else {})
    assert compare.pairs(load_runs(small), SE, BASE).empty
    monkeypatch.setattr(results, "SAME_CODE", {"d1ff": "c0de"})
    assert len(compare.pairs(load_runs(small), SE, BASE)) == 6


def test_pairs_of_different_machines_are_pooled_and_shown_for_each(small):
    make_study(small, {SE: 2.0}, environment=lambda config: {"device_name": "Tesla T4"} if config.seed < 2 else {})
    result = compare.primary(small, load_runs(small))
    gpu, cpu = sorted(result["by_kind"], key=lambda row: row["n_pairs"])
    assert (gpu["kind"], gpu["n_pairs"], cpu["n_pairs"]) == ("Tesla T4, bf16, torch 2.14.1", 2, 4)
    assert (2 * gpu["difference_pp"] + 4 * cpu["difference_pp"]) / 6 == pytest.approx(result["difference_pp"])
    test = related(small, SE, BASE, [2, 3, 4, 5])
    assert cpu["seed_interval_pp"] == pytest.approx(list(test.confidence_interval()))


def test_the_primary_comparison_agrees_with_other_computations(paper):
    runs = load_runs(paper)
    result, test = compare.primary(paper, runs), related(paper, SE, BASE, range(10))
    means = 100 * runs.groupby("arm")["test_accuracy"].mean()
    assert result["n_pairs"] == 10 and result["by_kind"] == []
    assert result["difference_pp"] == pytest.approx(means[SE] - means[BASE])
    assert result["p_value"] == pytest.approx(test.pvalue)
    assert result["seed_interval_pp"] == pytest.approx(list(test.confidence_interval()))
    assert result["excludes_zero"] is True
    assert result["sign_flip_p"] == 2 / 2**10  # every pair is better
    assert result["crossed_interval_pp"][0] < result["seed_interval_pp"][0]
    probabilities = [softmax(load_logit_stack(paper, arm, range(10))[0].astype(float), -1) for arm in (SE, BASE)]
    scores = [((each - np.eye(10)[LABELS]) ** 2).sum(-1).mean(-1) for each in probabilities]
    test, brier = stats.ttest_rel(*scores), result["brier"]
    assert (brier["arm"], brier["baseline"]) == pytest.approx((scores[0].mean(), scores[1].mean()))
    assert brier["difference"] == pytest.approx(scores[0].mean() - scores[1].mean())
    assert brier["interval"] == pytest.approx(list(test.confidence_interval()))
    assert brier["p_value"] == pytest.approx(test.pvalue)


def test_before_the_last_planned_pair_nothing_tells_the_primary_accuracies(small):
    make_study(small, only=lambda config: (config.arm, config.seed) != (BASE, 5))
    runs = load_runs(small)
    for refused in (lambda: compare.primary(small, runs), lambda: load_logit_stack(small, SE, [0])):
        with pytest.raises(StudyError, match=r"6 pairs .* 5 finished"):
            refused()
    assert runs.loc[runs["withheld"], ["test_accuracy", "test_loss"]].isna().all(axis=None)
    summary = compare.summary(small, runs)
    primary, text = summary["primary"], json.dumps(summary, allow_nan=False)
    assert (primary["complete"], primary["n_pairs"], primary["planned_pairs"]) == (False, 5, 6)
    shown = {"arm", "baseline", "n_pairs", "planned_pairs", "complete", "by_kind"}
    assert {name for name, value in primary.items() if value is not None} == shown and primary["by_kind"] == []
    arms = compare.arm_table(small, runs)
    for arm in (BASE, SE):
        assert arms.loc[arm, "withheld"] and arms.loc[arm, ["test_accuracy_mean", "test_accuracy_sd"]].isna().all()
        files = [run_folder(small.name, arm, seed) / "summary.json" for seed in range(5)]
        accuracies = [json.loads(file.read_text())["test_accuracy"] for file in files]
        assert str(np.mean(accuracies))[:8] not in text
    assert not set(compare.effects(small, runs)[["arm", "baseline"]].to_numpy().ravel()) & {BASE, SE}
    assert compare.trends(small, runs).empty
    assert len(summary["contrasts"]) == 2 and len(summary["effects"]) == 2  # what is narrow is shown


def test_every_arm_of_the_primary_stage_is_withheld_and_its_seeds_are_those_of_that_stage(tmp_path):
    stages = "  - {name: primary, arms: [resnet18, se_resnet18, static_gate_resnet18], seeds: [8, 7]}\n"
    stages += "  - {name: more, arms: [resnet18, se_resnet18], seeds: 2}\n"
    (tmp_path / "three.yaml").write_text(SMALL_STUDY.partition("  - ")[0] + stages)
    three = load_study(tmp_path / "three.yaml")
    make_study(three, only=lambda config: (config.arm, config.seed) != ("static_gate_resnet18", 7))
    runs = load_runs(three)
    assert set(runs.loc[runs["withheld"], "arm"]) == {BASE, SE, "static_gate_resnet18"}
    assert (compare.summary(three, runs)["primary"]["n_pairs"], primary_is_complete(three)) == (1, False)
    with pytest.raises(StudyError, match=r"2 pairs .* 1 finished"):
        load_logit_stack(three, "static_gate_resnet18", [8])
    make_study(three)
    assert not load_runs(three)["withheld"].any()
    assert compare.primary(three, load_runs(three))["p_value"] == pytest.approx(related(three, SE, BASE, (8, 7)).pvalue)


def test_with_the_last_planned_pair_or_an_earlier_stop_it_is_computed(small, tmp_path):
    make_study(small, only=lambda config: (config.arm, config.seed) != (SE, 5))
    with pytest.raises(StudyError, match="write the stop into the study file"):
        compare.primary(small, load_runs(small))
    stopped = small_study(tmp_path, "stop: {date: 2026-11-30, primary_pairs: 4}\n")
    result = compare.summary(stopped, load_runs(stopped))
    assert result["primary"]["complete"] and result["primary"]["n_pairs"] == 4  # not 5, which are finished
    assert result["primary"]["p_value"] == pytest.approx(related(stopped, SE, BASE, range(4)).pvalue)
    assert any("2026-11-30" in (row["detail"] or "") for row in result["deviations"])
    assert result["effects"][0]["n_pairs"] == 4 and result["trends"] == []  # four pairs are no cell of a trend
    make_study(small, only=lambda config: config.seed == 5)
    assert compare.primary(small, load_runs(small))["n_pairs"] == 6


def test_the_four_planned_contrasts_are_t_tests_adjusted_together(paper):
    table = compare.contrasts(paper, load_runs(paper))
    assert len(table) == 4 and (table["n_pairs"] == 10).all()
    tests = [related(paper, row.arm, row.baseline, range(10)) for row in table.itertuples()]
    assert table["p_value"].tolist() == pytest.approx([test.pvalue for test in tests])
    assert table["p_holm"].tolist() == pytest.approx(multipletests(table["p_value"], method="holm")[1])
    assert table.loc[0, "difference_pp"] == pytest.approx(3, abs=0.6)
    assert table.loc[0, ["low_pp", "high_pp"]].tolist() == pytest.approx(list(tests[0].confidence_interval()))


def test_a_missing_contrast_counts_in_the_family_and_an_unfinished_one_has_no_p_value(small):
    make_study(small, {NARROW_SE: 2.0})
    table = compare.contrasts(small, load_runs(small))
    assert table[["arm", "baseline"]].to_numpy().tolist() == [[NARROW_SE, STATIC], [STATIC, NARROW]]
    smaller, larger = sorted(table["p_value"])
    assert sorted(table["p_holm"]) == pytest.approx([4 * smaller, min(1, max(3 * larger, 4 * smaller))])
    (run_folder(small.name, STATIC, 7) / "summary.json").unlink()
    table = compare.contrasts(small, load_runs(small))
    assert len(table) == 2 and table["p_value"].isna().all() and table["difference_pp"].notna().all()
    assert compare.trends(small, load_runs(small)).set_index("trend")["p_value"].notna().any()


def test_where_the_winners_differ_the_static_gate_is_held_against_se_at_its_own_rate(small):
    runs = table_of({NARROW_SE: [90, 91], compare.SE_AT_PLAIN_RATE: [92, 94], STATIC: [91, 90]})
    differing = {BASE: {"learning_rate": 0.1}, SE: {"learning_rate": 0.2}}
    for winners, difference in ((differing, 2.5), ({BASE: {}, SE: {}}, 0.0), (None, 0.0)):
        table = compare.contrasts(small.model_copy(update={"winners": winners}), runs)
        assert table.loc[0, "difference_pp"] == pytest.approx(difference)


def test_the_two_planned_trends_agree_with_other_computations(paper):
    table, runs = compare.trends(paper, load_runs(paper)), load_runs(paper)

    def change(variant, ratio=False):
        wide = runs.pivot(index="seed", columns="arm", values="test_accuracy")
        arm, baseline = (wide[name + variant].dropna() for name in (SE, BASE))
        return np.log((1 - arm) / (1 - baseline)) if ratio else 100 * (arm - baseline)

    width, length = table.to_dict("records")
    welch = stats.ttest_ind(change(""), change("__quarter_width"), equal_var=False)
    assert width["n_pairs"] == [10, 20] and width["p_value"] == pytest.approx(welch.pvalue)
    assert (width["low_pp"], width["high_pp"]) == pytest.approx(tuple(welch.confidence_interval()))
    assert width["df"] == pytest.approx(welch.df) and width["estimate_pp"] == pytest.approx(-2, abs=0.6)
    assert width["estimate_pp"] == pytest.approx(change("").mean() - change("__quarter_width").mean())
    variants = [f"__quarter_width{epochs}" for epochs in ("_2_epochs", "_4_epochs", "", "_16_epochs", "_32_epochs")]
    assert length["x"] == [1, 2, 3, 4, 5] and length["n_pairs"] == [10, 10, 20, 10, 5]
    for name, ratio in (("estimate_pp", False), ("log_error_ratio", True)):
        means = [change(variant, ratio).mean() for variant in variants]
        assert length[name] == pytest.approx(stats.linregress(range(5), means).slope)
    p_values = [width["p_value"], length["p_value"]]
    assert [width["p_holm"], length["p_holm"]] == pytest.approx(multipletests(p_values, method="holm")[1])


def test_a_cell_counts_from_five_pairs_and_a_trend_from_two_cells(small):
    make_study(small, only=lambda config: config.seed < 5 or "__" not in config.arm)
    (row,) = compare.trends(small, load_runs(small)).to_dict("records")
    assert row["trend"] == "full − quarter width" and row["n_pairs"] == [6, 5]
    assert row["p_holm"] == pytest.approx(min(1, 2 * row["p_value"]))  # the missing trend belongs to the family
    (run_folder(small.name, NARROW, 4) / "summary.json").unlink()
    assert compare.trends(small, load_runs(small)).empty


def test_effects_hold_every_arm_against_the_baseline_of_its_variant(paper):
    table = compare.effects(paper, load_runs(paper)).set_index(["stage", "arm"])
    assert len(table) == 21 and not any(name.startswith("p_") for name in table)
    row = table.loc[("controls", STATIC)]
    assert (row["baseline"], row["n_pairs"], row["width"]) == (NARROW, 10, 0.25)
    assert table.loc[("narrow", NARROW_SE), "n_pairs"] == 20
    assert table.loc[("plain_rate", compare.SE_AT_PLAIN_RATE), "baseline"] == NARROW  # there is none at SE's own rate
    assert table.loc[("full_plain_rate", "se_resnet18__plain_rate"), "baseline"] == BASE
    assert table.loc[("literal", "se_skip_resnet18"), ["baseline", "n_pairs"]].tolist() == [BASE, 5]
    assert table.loc[("length", "se_resnet18__quarter_width_16_epochs"), "difference_pp"] == pytest.approx(5, abs=0.6)


def test_results_of_the_whole_study_have_the_agreed_keys_and_are_plain(paper):
    summary = compare.summary(paper, load_runs(paper))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    keys = "study title data_source data_fingerprint stages winners primary arms contrasts trends effects"
    keys += " gate_table lesion_table deviations"
    assert list(summary) == keys.split()
    keys = "arm baseline planned_pairs complete n_pairs difference_pp seed_interval_pp crossed_interval_pp p_value"
    keys += " brier by_kind sign_flip_p tost_p excludes_zero excludes_published_gain sd_difference_pp seed_correlation"
    keys += " log_error_ratio log_error_ratio_interval"
    assert set(summary["primary"]) == set(keys.split())
    assert [row["stage"] for row in summary["stages"]] == ["tuning", *(stage.name for stage in paper.stages)]
    assert all(row["planned"] == row["finished"] for row in summary["stages"])
    assert set(summary["arms"]) == {config.arm for config in paper.runs if not config.validation_images}
    assert summary["arms"][SE]["n_runs"] == 10
    kept = {"n_runs", "test_accuracy_mean", "test_accuracy_sd", "parameters", "train_seconds_mean"}
    assert all(kept <= set(row) and row["withheld"] is False for row in summary["arms"].values())
    assert summary["arms"][NARROW]["test_accuracy_mean"] == pytest.approx(0.87, abs=0.005)


KEPT = {"__": False, r"18 \d": True, "^(?!static)": True, "^se_resnet18 3": False}  # runs: are all primary ones there?


@pytest.mark.parametrize("kept", KEPT)
def test_missing_runs_never_stop_the_analysis(small, kept):
    make_study(small, only=lambda config: re.search(kept, f"{config.arm} {config.seed}"))
    summary = compare.summary(small, load_runs(small))
    json.dumps(summary, allow_nan=False)
    assert summary["primary"]["complete"] is KEPT[kept]
    assert any(row["deviation"] == "missing runs" for row in summary["deviations"])


def test_logits_of_another_run_are_refused(small):
    make_study(small)
    other, mine = (run_folder(small.name, arm, 0) / "test_logits.npz" for arm in (STATIC, SE))
    mine.write_bytes(other.read_bytes())
    with pytest.raises(StudyError, match="se_resnet18/seed-00"):
        compare.summary(small, load_runs(small))


def test_an_arm_of_which_all_runs_have_diverged_leaves_nothing_to_compare(small):
    make_study(small)
    for folder in (run_folder(small.name, SE, seed) for seed in range(6)):
        (folder / "summary.json").unlink()
        write_json(folder / "failure.json", {"reason": "the loss is nan"})
    primary = compare.summary(small, load_runs(small))["primary"]
    assert (primary["complete"], primary["n_pairs"], primary["difference_pp"]) == (True, 0, None)
