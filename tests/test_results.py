import numpy as np
import pytest
from made_runs import ENVIRONMENT, make_study, small_study

from lib.analyse import compare, results
from lib.files import StudyError, run_folder, write_json
from lib.runs import load_logits

STOP = "stop: {date: 2026-11-30, primary_pairs: 4}\n"
PRIMARY = ("resnet18", "se_resnet18")


def has(*arms, seeds=range(100)):
    return lambda config: config.arm in arms and config.seed in seeds


def row_of(table, deviation):
    return table[table["deviation"] == deviation].to_dict("records")


@pytest.fixture
def study(tmp_path):
    return small_study(tmp_path)


def test_a_row_holds_settings_summary_and_machine(study):
    make_study(study, only=has("se_resnet18__quarter_width", seeds=[3]))
    (row,) = results.load_runs(study).to_dict("records")
    assert (row["arm"], row["seed"], row["width"], row["epochs"]) == ("se_resnet18__quarter_width", 3, 0.25, 8)
    assert (row["kind"], row["training_code"]) == ("AMD EPYC, bf16, torch 2.14.1", "c0de")
    assert row["precision"] == "bf16"  # what "auto" came to
    logits, labels = load_logits(run_folder(study.name, row["arm"], 3))
    assert row["test_accuracy"] == np.mean(logits.argmax(1) == labels)
    assert row["uncommitted_changes"] is False or row["uncommitted_changes"] == np.False_


def test_runs_of_the_tuning_are_no_results(tmp_path):
    tuning = (
        "tuning: {arms: [resnet18, se_resnet18], seeds: [9], validation_images: 50, grid: {learning_rate: [0.1]}}\n"
    )
    make_study(study := small_study(tmp_path, tuning), only=lambda config: config.seed == 9)
    runs = results.load_runs(study)
    summary = compare.results(study, runs)
    assert runs.empty and summary["primary"]["n_pairs"] == 0 and summary["arms"] == {}
    assert summary["stages"][0] == {"stage": "tuning", "planned": 2, "finished": 2}
    study = small_study(tmp_path, tuning)  # with the winners
    make_study(study, only=lambda config: config.seed == 0)
    assert set(results.load_runs(study)["seed"]) == {0}
    assert results.plan(study).iloc[0].tolist() == ["tuning", 2, 2]


@pytest.mark.parametrize(
    ("states", "expected"),
    [((False, True), True), ((True, None), True), ((None, False), None), ((False, False), False)],
)
def test_uncommitted_code_of_any_part_of_a_run_counts(study, states, expected):
    first, second = ({"uncommitted_changes": state} for state in states)
    environment = second | {"earlier": [ENVIRONMENT | first]}
    make_study(study, only=has("resnet18", seeds=[0]), environment=lambda config: environment)
    assert results.load_runs(study)["uncommitted_changes"].iloc[0] == expected


def test_nothing_finished_is_one_line_that_says_what_to_do(study):
    for load in (results.load_runs, results.load_metrics, results.deviations):
        with pytest.raises(StudyError, match="run_all.sh"):
            load(study)
    assert results.plan(study)["finished"].sum() == 0


def test_metrics_of_all_runs_stand_in_one_table(study):
    make_study(study, only=has(*PRIMARY, seeds=[0, 1]))
    metrics = results.load_metrics(study)
    assert metrics.groupby(["arm", "seed"])["epoch"].max().to_dict() == {(a, s): 8 for a in PRIMARY for s in (0, 1)}
    (run_folder(study.name, "resnet18", 1) / "metrics.csv").write_text("epoch,tr")
    with pytest.raises(StudyError, match=r"metrics.csv"):
        results.load_metrics(study)


def test_logits_are_stacked_in_the_order_of_the_seeds(study):
    arm = "resnet18__quarter_width"
    make_study(study, only=has(arm))
    logits, labels = results.load_logit_stack(study, arm, [2, 0])
    assert logits.shape == (2, 1000, 10) and logits.dtype == np.float32 and labels.dtype == np.int64
    for row, seed in zip(logits, (2, 0), strict=True):
        np.testing.assert_array_equal(row, load_logits(run_folder(study.name, arm, seed))[0])


def test_a_diverged_run_is_named_and_its_seed_does_not_hold_up_the_others(study):
    make_study(study, only=lambda config: (config.arm, config.seed) != ("se_resnet18", 2))
    folder = run_folder(study.name, "se_resnet18", 2)
    write_json(folder / "failure.json", {"reason": "the loss is not finite"})
    runs = results.load_runs(study)
    for settings in ({}, {"epochs": 9}):  # a failure of unknown or of other settings excludes nothing
        write_json(folder / "config.json", study.run("se_resnet18", 2).to_dict() | settings if settings else {})
        assert not results.primary_is_complete(study, runs)
    write_json(folder / "config.json", study.run("se_resnet18", 2).to_dict())
    runs = results.load_runs(study)
    assert results.primary_is_complete(study, runs) and results.finished_pairs(study, runs) == 5
    (row,) = row_of(results.deviations(study), "diverged and excluded")
    assert row["where"] == "se_resnet18 seed 2" and row["detail"] == "the loss is not finite"


def test_plan_counts_what_is_there_for_each_stage(study):
    make_study(study, only=has("resnet18", "static_gate_resnet18__quarter_width", seeds=[0, 1]))
    assert results.plan(study).to_dict("records") == [
        {"stage": "primary", "planned": 12, "finished": 2},
        {"stage": "narrow", "planned": 24, "finished": 2},
    ]
    missing = {row["where"]: row["count"] for row in row_of(results.deviations(study), "missing runs")}
    assert missing == {"primary": 10, "narrow": 22}


def test_deviations_count_machines_code_and_unknown_states(study):
    def environment(config):
        return {
            "device_name": "Tesla T4" if config.seed == 0 else "AMD EPYC",
            "uncommitted_changes": config.seed == 1,
            "commit": None if config.seed == 2 else "0" * 40,
            "training_code": "other" if config.seed == 3 else "c0de",
        }

    make_study(study, environment=environment)
    table = results.deviations(study)
    machines = {row["where"]: row["count"] for row in row_of(table, "machine")}
    assert machines == {"AMD EPYC, bf16, torch 2.14.1": 31, "Tesla T4, bf16, torch 2.14.1": 5}
    assert {row["where"]: row["count"] for row in row_of(table, "training code")} == {"c0de": 31, "other": 5}
    for name in ("uncommitted changes", "unknown commit"):
        assert {row["where"]: row["count"] for row in row_of(table, name)} == dict.fromkeys(
            (*PRIMARY, *(f"{arm}__quarter_width" for arm in (*PRIMARY, "static_gate_resnet18"))), 1
        )
    assert row_of(table, "missing runs") == []


BEFORE, LATER = "aaa 2025-12-31T22:58:00+01:00\n", "bbb 2026-01-02T00:00:00+00:00\n"
STARTED = "ccc 2025-12-31T23:59:30+00:00\n"  # the first run was started 80 seconds before 2026-01-01 00:00:00 UTC


@pytest.mark.parametrize(
    ("log", "shallow", "expected"),
    [
        (BEFORE, "false", [("before the first", "aaa")]),
        (LATER + STARTED + BEFORE, "false", [("before the first", "aaa"), ("changed later", "bbb, ccc")]),
        (LATER + STARTED, "false", [("after the first", "ccc")]),
        (BEFORE, "true", [("unknown date", "report/preregistration.md")]),
        (None, None, [("unknown date", "report/preregistration.md")]),
    ],
)
def test_the_preregistration_is_dated_against_the_first_primary_run(study, monkeypatch, log, shallow, expected):
    make_study(study, only=has(*PRIMARY, seeds=[0]))
    monkeypatch.setattr(results, "PREREGISTERED", study.name)
    monkeypatch.setattr(results, "git", lambda command, *_: log if command == "log" else shallow)
    table = results.deviations(study)
    rows = table[table["deviation"].str.contains("prereg")].to_dict("records")
    for row, (deviation, where) in zip(rows, expected, strict=True):
        assert deviation in row["deviation"] and row["where"] == where
