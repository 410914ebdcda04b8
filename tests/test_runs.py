"""What runs leave in their folders, and the tables that the analysis makes of it."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_config
from made_runs import ENVIRONMENT, make_run, make_study, small_study
from scipy import stats

from lib import runs
from lib.analyse import compare, gates, results, statistics
from lib.files import StudyError, outputs_folder, read_json, run_folder, shown, write_json
from lib.runs import config_hash, finished_runs, load_logits, load_table, read_summary
from lib.study import load_study

TUNING = "tuning: {arms: [resnet18, se_resnet18], seeds: [9], validation_images: 50, grid: {learning_rate: [0.1]}}\n"
PRIMARY = ("resnet18", "se_resnet18")


@pytest.fixture
def folder(tmp_path):
    """The folder of a finished run of tiny_config()."""
    make_run(tmp_path, tiny_config())
    return tmp_path


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "pickle": lambda path: np.savez(path.open("wb"), logits=np.array([{}], object), labels=np.ones(1)),
    "changed": lambda path: path.write_bytes(b"\xff" * 300 + path.read_bytes()[300:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["summary.json", "config.json", "test_logits.npz", "metrics.csv"])
def test_a_damaged_file(folder, name, damage):
    DAMAGES[damage](folder / name)
    if name.endswith(".json"):  # cut short before it was complete: it is made again
        assert read_summary(folder, tiny_config()) is None
        return
    with pytest.raises(StudyError, match=rf"^[^\n]*{name} [^\n]*delete its folder and run again$"):
        load_logits(folder) if name.endswith(".npz") else load_table(folder, name)


@pytest.mark.parametrize(("part", "held_out"), [("test", 0), ("val", 20)])
def test_a_run_is_finished_when_its_results_are_there(tmp_path, part, held_out):
    config = tiny_config(validation_images=held_out)
    assert read_summary(tmp_path, config) is None
    make_run(tmp_path, config)
    summary = read_summary(tmp_path, config)
    for entry in (f"{part}_accuracy", f"{part}_loss", "config_hash", "data_fingerprint"):
        write_json(tmp_path / "summary.json", {name: summary[name] for name in summary if name != entry})
        assert read_summary(tmp_path, config) is None


def test_a_run_of_other_settings_is_refused_with_what_differs(folder):
    def store(settings):
        summary = read_json(folder / "summary.json") | {"config_hash": config_hash(settings)}
        write_json(folder / "config.json", settings)
        write_json(folder / "summary.json", summary)

    config = tiny_config()
    with pytest.raises(StudyError, match="epochs 3 there, 2 here; learning_rate 0.1 there, 0.2 here") as caught:
        read_summary(folder, tiny_config(epochs=2, learning_rate=0.2))
    assert str(folder) in str(caught.value) and "seed" not in str(caught.value)
    store({name: value for name, value in config.model_dump().items() if name != "momentum"})
    assert read_summary(folder, config)  # the setting is newer than the run: its default was in force
    with pytest.raises(StudyError, match="momentum 0.9 there, 0.5 here"):
        read_summary(folder, tiny_config(momentum=0.5))
    store(config.model_dump() | {"dropout": 0.1})
    with pytest.raises(StudyError, match="dropout 0.1 there"):
        read_summary(folder, config)
    write_json(folder / "config.json", config.model_dump())
    with pytest.raises(StudyError, match=r"summary\.json .*config\.json"):  # of two different runs
        read_summary(folder, config)


def test_finished_runs_come_in_the_order_of_the_study_and_from_the_same_images():
    study = load_study("smoke")
    folders = [run_folder("smoke", config.arm, config.seed) for config in study.runs]
    for index in (2, 0):
        make_run(folders[index], study.runs[index])
    assert [run[:2] for run in finished_runs(study)] == [(study.runs[index], folders[index]) for index in (0, 2)]
    write_json(folders[2] / "summary.json", read_json(folders[2] / "summary.json") | {"data_fingerprint": "0" * 64})
    with pytest.raises(StudyError, match=f"{shown(folders[0])} saw different images than {shown(folders[2])}"):
        finished_runs(study)


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_stored_logits_are_close_and_keep_every_prediction(tmp_path, scale):
    logits = np.random.default_rng(0).normal(0, scale, (10_000, 10)).astype(np.float32)
    stored = runs.stored_logits(logits)
    runs.save_arrays(tmp_path / "test_logits.npz", logits=stored, labels=np.arange(10_000, dtype=np.uint16))
    stored, labels = load_logits(tmp_path)
    assert (stored.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(stored.argmax(1), logits.argmax(1))
    best = np.arange(10) == logits.argmax(1)[:, None]
    assert np.abs(stored - logits)[~best].max() <= 1 / 64 and np.abs(stored - logits)[best].max() < 1 / 16


def has(*arms, seeds=range(100)):
    return lambda config: config.arm in arms and config.seed in seeds


def row_of(table, deviation):
    return table[table["deviation"] == deviation].to_dict("records")


def test_rows_hold_settings_summary_and_machine_and_logits_are_stacked_in_the_order_of_the_seeds(small):
    arm = "resnet18__quarter_width"
    make_study(small, only=has(arm))
    rows = results.load_runs(small).set_index("seed")
    logits, labels = results.load_logit_stack(small, arm, [2, 0])
    assert logits.shape == (2, 1000, 10) and logits.dtype == np.float32 and labels.dtype == np.int64
    for run, seed in zip(logits, (2, 0), strict=True):
        np.testing.assert_array_equal(run, load_logits(run_folder(small.name, arm, seed))[0])
        assert rows.loc[seed, "test_accuracy"] == np.mean(run.argmax(1) == labels)
    row = rows.loc[3]
    assert (row["arm"], row["width"], row["epochs"]) == (arm, 0.25, 8)
    assert (row["kind"], row["training_code"]) == ("AMD EPYC, bf16, torch 2.14.1", "c0de")
    assert row["precision"] == "bf16"  # what "auto" came to
    epochs = results.load_metrics(small).groupby(["arm", "seed"])["epoch"].max()
    assert epochs.to_dict() == {(arm, seed): 8 for seed in range(8)}


def test_runs_of_the_tuning_are_no_results(tmp_path):
    make_study(small := small_study(tmp_path, TUNING), only=lambda config: config.seed == 9)
    runs = results.load_runs(small)
    summary = compare.summary(small, runs)
    assert runs.empty and summary["primary"]["n_pairs"] == 0 and summary["arms"] == {}
    assert summary["stages"][0] == {"stage": "tuning", "planned": 2, "finished": 2}
    small = small_study(tmp_path, TUNING)  # with the winners
    make_study(small, only=lambda config: config.seed == 0)
    assert set(results.load_runs(small)["seed"]) == {0}
    assert results.plan(small).iloc[0].tolist() == ["tuning", 2, 2]


@pytest.mark.parametrize("one, two, both", [(False, True, True), (True, None, True), (None, False, None), (False,) * 3])
def test_uncommitted_code_of_any_part_of_a_run_counts(small, one, two, both):
    first, second = ({"uncommitted_changes": state} for state in (one, two))
    environment = second | {"earlier": [ENVIRONMENT | first]}
    make_study(small, only=has("resnet18", seeds=[0]), environment=lambda config: environment)
    assert results.load_runs(small)["uncommitted_changes"].iloc[0] == both


def test_a_diverged_run_is_named_and_its_seed_does_not_hold_up_the_others(small):
    make_study(small, only=lambda config: (config.arm, config.seed) != ("se_resnet18", 2))
    folder = run_folder(small.name, "se_resnet18", 2)
    write_json(folder / "failure.json", {"reason": "the loss is not finite"})
    for settings in ({}, {"epochs": 9}):  # a failure of unknown or of other settings excludes nothing
        write_json(folder / "config.json", small.run("se_resnet18", 2).model_dump() | settings if settings else {})
        assert not results.primary_is_complete(small)
    write_json(folder / "config.json", small.run("se_resnet18", 2).model_dump())
    assert results.primary_is_complete(small) and results.finished_pairs(small) == 5
    (row,) = row_of(results.deviations(small), "diverged and excluded")
    assert row["where"] == "se_resnet18 seed 2" and row["detail"] == "the loss is not finite"


def test_plan_counts_what_is_there_for_each_stage_and_nothing_finished_is_one_line(small):
    for load in (results.load_runs, results.load_metrics, results.deviations):
        with pytest.raises(StudyError, match="run_all.sh"):
            load(small)
    assert results.plan(small)["finished"].sum() == 0
    make_study(small, only=has("resnet18", "static_gate_resnet18__quarter_width", seeds=[0, 1]))
    assert results.plan(small).to_numpy().tolist() == [["primary", 12, 2], ["narrow", 24, 2]]
    missing = {row["where"]: row["count"] for row in row_of(results.deviations(small), "missing runs")}
    assert missing == {"primary": 10, "narrow": 22}


def test_deviations_count_machines_code_and_unknown_states(small):
    def environment(config):
        changed = {"device_name": "AMD EPYC" if config.seed else "Tesla T4", "uncommitted_changes": config.seed == 1}
        commit, code = None if config.seed == 2 else "0" * 40, "other" if config.seed == 3 else "c0de"
        return changed | {"commit": commit, "training_code": code}

    make_study(small, environment=environment)
    table = results.deviations(small)
    machines = {row["where"]: row["count"] for row in row_of(table, "machine")}
    assert machines == {"AMD EPYC, bf16, torch 2.14.1": 31, "Tesla T4, bf16, torch 2.14.1": 5}
    assert {row["where"]: row["count"] for row in row_of(table, "training code")} == {"c0de": 31, "other": 5}
    for name in ("uncommitted changes", "unknown commit"):
        assert {row["where"]: row["count"] for row in row_of(table, name)} == {config.arm: 1 for config in small.runs}
    assert row_of(table, "missing runs") == []


BEFORE, LATER = "aaa 2025-12-31T22:58:00+01:00\n", "bbb 2026-01-02T00:00:00+00:00\n"
STARTED = "ccc 2025-12-31T23:59:30+00:00\n"  # the first run was started 80 seconds before 2026-01-01 00:00:00 UTC
DATED = [
    (BEFORE, "false", [("before the first", "aaa")]),
    (LATER + STARTED + BEFORE, "false", [("before the first", "aaa"), ("changed later", "bbb, ccc")]),
    (LATER + STARTED, "false", [("after the first", "ccc")]),
]
DATED += [(*how, [("unknown date", "report/preregistration.md")]) for how in ((BEFORE, "true"), (None, None))]


@pytest.mark.parametrize(("log", "shallow", "expected"), DATED)
def test_the_preregistration_is_dated_against_the_first_primary_run(small, monkeypatch, log, shallow, expected):
    make_study(small, only=has(*PRIMARY, seeds=[0]))
    monkeypatch.setattr(results, "PREREGISTERED", small.name)
    monkeypatch.setattr(results, "git", lambda command, *_: log if command == "log" else shallow)
    table = results.deviations(small)
    rows = table[table["deviation"].str.contains("prereg")].to_dict("records")
    for row, (deviation, where) in zip(rows, expected, strict=True):
        assert deviation in row["deviation"] and row["where"] == where
    write_json(outputs_folder(small.name) / "results.json", {"deviations": [row | {"count": None} for row in rows]})
    monkeypatch.setattr(results, "git", lambda *_: None)  # a copy without history keeps what was known
    assert results.deviations(small)["where"].tolist() == table["where"].tolist()


def test_measures_are_compared_pair_by_pair():
    arm, baseline = np.array([[100, 90], [90, 90], [80, 90]]), np.array([[90, 90], [70, 90], [50, 90]])
    table = statistics.paired_table(arm, baseline, pd.Index(["cat", "dog"], name="class"), "_pp")
    cat, dog = table.loc["cat"], table.loc["dog"]
    half_width = 4.302652729911275 * 10 / 3**0.5  # of the differences 10, 20, 30; t quantile with 2 degrees of freedom
    assert (cat["arm"], cat["baseline"], cat["n_pairs"]) == (pytest.approx(90), pytest.approx(70), 3)
    assert cat[["difference_pp", "low_pp", "high_pp"]].tolist() == pytest.approx([20, 20 - half_width, 20 + half_width])
    assert dog["difference_pp"] == 0 and dog[["low_pp", "high_pp"]].isna().all()  # equal differences: no interval
    with pytest.raises(ValueError, match="cannot be paired"):
        statistics.paired_table(np.ones((2, 1)), np.ones((1, 1)), pd.Index(["nll"]))


def test_gates_and_lesions_are_means_over_the_runs_that_have_them(small):
    make_study(small, only=lambda config: config.seed < 3)
    runs, folders = results.load_runs(small), [run_folder(small.name, "se_resnet18", seed) for seed in range(3)]
    tables = [load_table(folder, "gates.csv").set_index("block") for folder in folders]
    spreads = [table.loc["block3", "sd_channels"] for table in tables]
    table = gates.gate_table(small, runs).set_index(["arm", "block"])
    assert not any(arm.startswith("resnet18") for arm, _ in table.index)
    row = table.loc[("se_resnet18", "block3")]
    assert (row["n_runs"], row["sd_channels"]) == (3, pytest.approx(np.mean(spreads)))
    assert row["sd_channels_sd"] == pytest.approx(np.std(spreads, ddof=1))
    tables = [load_table(folder, "lesions.csv").set_index(["lesion", "block"])["accuracy"] for folder in folders]
    drops = [100 * (accuracy["none", "none"] - accuracy["shuffled", "all"]) for accuracy in tables]
    table = gates.lesion_table(small, runs).set_index(["arm", "lesion", "block"])
    row, test = table.loc[("se_resnet18", "shuffled", "all")], stats.ttest_1samp(drops, 0)
    assert (row["n_runs"], row["drop_pp"]) == (3, pytest.approx(np.mean(drops)))
    assert (row["low_pp"], row["high_pp"]) == pytest.approx(tuple(test.confidence_interval()))
    plain = runs[runs["arm"] == "resnet18"]
    assert gates.gate_table(small, plain).empty and gates.lesion_table(small, plain).empty
