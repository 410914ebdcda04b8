"""The whole pipeline as a user runs it: python -m lib on small studies of the bundled digits."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import nbformat
import pytest

from lib import __main__ as command
from lib import launch
from lib.config import config_hash
from lib.data import load_dataset
from lib.paths import ROOT, run_folder
from lib.runs import lock, write_json

STUDY = """
title: A tiny study
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits, width: 0.125, reduction: 4, epochs: 2, warmup_epochs: 1, batch_size: 64}
arms: {resnet18: {}, se_resnet18: {}}
stages: [{name: primary, arms: [resnet18, se_resnet18], seeds: 2}]
"""
TUNING = """
tuning: {arms: [resnet18, se_resnet18], seeds: [7, 8], validation_images: 97, grid: {learning_rate: [0.05, 0.1]}}
stages:
  - {name: primary, arms: [resnet18, se_resnet18], seeds: 2}
  - {name: cross_winner, arms: [resnet18, se_resnet18], seeds: 1, winner: other}
  - {name: length, arms: [resnet18, se_resnet18], seeds: 1, variants: {short: {epochs: 1}}}
"""
TUNED = STUDY.split("stages:")[0] + TUNING
TRAINING_PAGES = {"train-resnet18", "train-se_resnet18"}


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "tiny.yaml"
    path.write_text(STUDY)
    return path


def run_lib(outputs, *arguments, wait=True, cwd=ROOT, **environment):
    """Start python -m lib with one thread a run, no GPU, no network and a folder of its own for the outputs."""
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    variables = {"CUDA_VISIBLE_DEVICES": "", "STUDY_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"} | offline
    process = subprocess.Popen(
        [sys.executable, "-m", "lib", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | variables | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.out, process.err = process.communicate(timeout=600)
    return process


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory):
    """Outputs folder of the tiny study, finished without interruption."""
    outputs = tmp_path_factory.mktemp("outputs with a space and ü")
    done = run_lib(outputs, "--study", study_file, "--jobs", 2)
    assert done.returncode == 0, done.err
    return outputs


def summaries(outputs):
    return {path.parent: json.loads(path.read_text()) for path in sorted(outputs.rglob("summary.json"))}


def test_pipeline_writes_everything(finished):
    folder = finished / "tiny"
    assert len(summaries(finished)) == 4
    results = json.loads((folder / "results.json").read_text())
    assert results["study"] == "tiny" and results["data_source"] == "digits"
    primary = results["primary"]
    assert (primary["arm"], primary["baseline"], primary["n_pairs"]) == ("se_resnet18", "resnet18", 2)
    low, high = primary["seed_interval_pp"]
    assert low <= primary["difference_pp"] <= high and primary["p_value"] in (0.5, 1.0)
    means = {arm: values["test_accuracy_mean"] for arm, values in results["arms"].items()}
    assert primary["difference_pp"] == pytest.approx(100 * (means["se_resnet18"] - means["resnet18"]))
    figures = {path.name for path in (folder / "figures").iterdir()}
    names = {"learning_curves", "accuracy_by_seed", "confusion", "recall_by_class", "churn", "disagreements"}
    names |= {"reliability", "corruptions", "gates"}
    assert figures == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}
    pages = {path.name for path in (folder / "html").iterdir()}
    assert pages == {f"{page}.html" for page in ("index", "analysis", "preregistration", *TRAINING_PAGES)}
    assert not list(folder.rglob("checkpoint.pt")) and not list(folder.rglob("*.partial*"))


def test_executed_notebooks_hold_no_errors_and_no_warnings(finished):
    notebooks = list(finished.rglob("*.ipynb"))
    assert len(notebooks) == 5
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert outputs and not [output for output in outputs if output.output_type == "error"]
        assert not [output for output in outputs if output.get("name") == "stderr"], path


def test_rerunning_repeats_no_run_and_gives_the_same_results(finished, study_file):
    before = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in summaries(finished)}
    results = (finished / "tiny" / "results.json").read_text()
    done = run_lib(finished, "--study", study_file)
    assert done.returncode == 0 and "4 of 4 runs are complete" in done.out
    assert before == {folder: (folder / "summary.json").stat().st_mtime_ns for folder in summaries(finished)}
    assert (finished / "tiny" / "results.json").read_text() == results


def test_kill_9_in_the_middle_then_the_same_command_ends_alike(finished, study_file, tmp_path):
    first = run_lib(tmp_path, "--study", study_file, "--jobs", 2, wait=False)
    deadline = time.monotonic() + 300
    while not list(tmp_path.rglob("metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(summaries(tmp_path)) < 4
    done = run_lib(tmp_path, "--study", study_file, "--jobs", 2)
    assert done.returncode == 0, done.err
    expected = {folder.relative_to(finished): s["logits_sha256"] for folder, s in summaries(finished).items()}
    assert {folder.relative_to(tmp_path): s["logits_sha256"] for folder, s in summaries(tmp_path).items()} == expected


def test_a_diverging_arm_fails_alone(tmp_path):
    study = tmp_path / "diverging.yaml"
    hopeless = "arms: {resnet18: {}, se_resnet18: {learning_rate: 100, weight_decay: 1, warmup_epochs: 0}}"
    study.write_text(STUDY.replace("arms: {resnet18: {}, se_resnet18: {}}", hopeless).replace("seeds: 2", "seeds: 1"))
    done = run_lib(tmp_path / "out", "--study", study, "--jobs", 2)
    assert done.returncode == 1
    assert "failed: se_resnet18 seed 0: the training loss is" in done.err
    results = json.loads((tmp_path / "out" / "diverging" / "results.json").read_text())
    assert results["primary"]["n_pairs"] == 0 and results["primary"]["difference_pp"] is None
    assert list(results["arms"]) == ["resnet18"]


def test_dry_run_lists_and_writes_nothing(study_file, tmp_path):
    done = run_lib(tmp_path / "out", "--study", study_file, "--dry-run")
    assert done.returncode == 0
    assert done.out.splitlines()[:2] == ["resnet18  seed 0", "se_resnet18  seed 0"]
    assert "4 runs to do" in done.out and not (tmp_path / "out").exists()


def test_the_paper_study_can_be_listed_anywhere(tmp_path):
    done = run_lib(tmp_path, "--study", "paper", "--dry-run")
    assert done.returncode == 0 and "se_skip_resnet18  seed 9" in done.out


def test_time_budget_starts_no_run_that_would_not_finish(study_file, tmp_path):
    done = run_lib(tmp_path, "--study", study_file, "--time-budget", "0.01")
    assert done.returncode == 0 and "leaves 4 runs for next time" in done.out
    assert not summaries(tmp_path)


def test_bare_command_without_images_takes_smoke(tmp_path):
    done = run_lib(tmp_path / "out", STUDY_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.err
    assert "no GPU here: taking 'laptop'" in done.out and "'smoke' on the bundled digits instead" in done.out
    assert "4 runs to do, 2 at a time on the CPU: about" in done.out
    assert json.loads((tmp_path / "out" / "smoke" / "results.json").read_text())["primary"]["n_pairs"] == 2


def one_error_line(done):
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.returncode != 0
    assert len(lines) == 1, done.err
    return lines[0]


def test_explicit_study_without_images_is_an_error(tmp_path):
    done = run_lib(tmp_path / "out", "--study", "laptop", STUDY_DATA=str(tmp_path / "data"))
    line = one_error_line(done)
    assert "cifar-10-python.tar.gz" in line and "--study smoke" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--study", "smok"), "did you mean 'smoke'"),
        (("--study", "missing.yaml"), "/missing.yaml': take one of"),
    ],
)
def test_unknown_study(arguments, expected, tmp_path):
    assert expected in one_error_line(run_lib(tmp_path, *arguments))


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--time-budget", "soon"), ("--stduy", "smoke")])
def test_wrong_options_are_refused(arguments, tmp_path):
    done = run_lib(tmp_path, *arguments)
    assert done.returncode == 2 and "error: " in done.err


def test_study_files_and_outputs_are_relative_to_the_caller(finished, study_file, tmp_path):
    variables = {"STUDY_OUTPUTS": os.path.relpath(finished, study_file.parent), "PYTHONPATH": str(ROOT)}
    done = run_lib(finished, "--study", study_file.name, "--dry-run", cwd=study_file.parent, **variables)
    assert "all 4 runs of tiny are complete" in done.out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("reduction: 4", "reduction: 3", "reduction = 3 does not divide"),
        ("width: 0.125", "width: -1", "width = -1.0 is out of range"),
        ("epochs: 2", "epoch: 2", "unknown setting 'epoch': did you mean 'epochs'"),
        ("arms: {resnet18: {}", "arms: {resnet18: {architecture: resnet81}", "did you mean 'resnet18'"),
    ],
)
def test_studies_that_cannot_be_built_are_refused_before_launch(old, new, expected, tmp_path):
    study = tmp_path / "wrong.yaml"
    study.write_text(STUDY.replace(old, new))
    assert expected in one_error_line(run_lib(tmp_path / "out", "--study", study))
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_written(study_file, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "set STUDY_OUTPUTS" in one_error_line(run_lib(blocked, "--study", study_file))


def test_a_second_command_on_the_same_study_stops_at_once(study_file, tmp_path):
    with lock(tmp_path / "tiny", "this test"):
        done = run_lib(tmp_path, "--study", study_file)
    assert "study 'tiny' is already being worked on" in one_error_line(done)


def test_runs_on_other_images_are_not_mixed(finished, study_file, tmp_path):
    subprocess.run(["cp", "-r", f"{finished}/tiny", tmp_path], check=True)
    folders = list(summaries(tmp_path))
    (folders[-1] / "summary.json").unlink()
    for folder in folders[:-1]:
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"data_fingerprint": "0" * 64}))
    line = one_error_line(run_lib(tmp_path, "--study", study_file))
    assert "000000000000" in line and "set STUDY_OUTPUTS" in line


def test_a_full_disk_is_named_and_no_run_counts_as_complete(study_file, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        done = run_lib(tmp_path, "--study", study_file, "--jobs", 2)
        assert done.returncode == 1
        assert "the disk is full" in done.err or "No space left on device" in done.err
        assert not summaries(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


RUN_SECONDS = 100  # that a run takes by the clock of the tests below


@pytest.fixture
def rehearsal(monkeypatch, tmp_path):
    """The command on the tuned study, with runs that are complete at once and score what `accuracy` says.

    start(*arguments) returns the exit status; started holds the configs in the order of their start, analysed the
    studies that were analysed; a config for which failing(config) is true fails.
    """
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED)
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic, clock.sleep = lambda: clock.now, lambda seconds: None
    origin = {"data_source": "digits", "data_fingerprint": load_dataset("digits").fingerprint, "precision": "fp32"}
    stage = types.SimpleNamespace(started=[], analysed=[], path=path, failing=lambda config: False)
    stage.accuracy = lambda config: 0.9 if (config.architecture, config.learning_rate) == ("resnet18", 0.05) else 0.5

    def wait():
        clock.now += RUN_SECONDS
        return True

    def start_run(study, study_name, config, environment):
        stage.started.append(config)
        failed = stage.failing(config)
        if not failed:
            part = "val" if config.validation_images else "test"
            scores = {f"{part}_accuracy": stage.accuracy(config), f"{part}_loss": 1.0}
            summary = origin | scores | {"parameters": 1, "train_seconds": 1.0}
            folder = run_folder(study.name, config.arm, config.seed)
            write_json(folder / "config.json", config.to_dict())
            write_json(folder / "summary.json", summary | {"config_hash": config_hash(config.to_dict())})
        return types.SimpleNamespace(finished=wait, failed=failed, error=lambda: "no luck", stop=lambda: None)

    monkeypatch.setattr(launch, "start_run", start_run)
    monkeypatch.setattr(launch, "choose_slots", lambda config, gpus, jobs: ([{}], 1e-6))
    monkeypatch.setattr(launch, "time", clock)
    monkeypatch.setattr(command, "time", clock)
    monkeypatch.setattr(command, "signal", types.SimpleNamespace(SIGTERM=None, signal=lambda *arguments: None))
    monkeypatch.setattr(command, "resolve_precision", lambda config, device: "fp32")
    monkeypatch.setattr(command, "_analyse", lambda study, name, environment: stage.analysed.append(study))
    stage.start = lambda *arguments: command.main(["--study", str(path), *arguments])
    return stage


TRIALS = 8
STAGED = [
    *(("resnet18", 0, 0.05), ("se_resnet18", 0, 0.1), ("resnet18", 1, 0.05), ("se_resnet18", 1, 0.1)),
    *(("resnet18__other_winner", 0, 0.1), ("se_resnet18__other_winner", 0, 0.05)),
    *(("resnet18__short", 0, 0.05), ("se_resnet18__short", 0, 0.1)),
]


def names(configs):
    return [(config.arm, config.seed, config.learning_rate) for config in configs]


def test_stages_follow_the_tuning_with_its_winners(rehearsal, capsys):
    assert rehearsal.start() == 0
    trials, staged = rehearsal.started[:TRIALS], rehearsal.started[TRIALS:]
    assert {config.seed for config in trials} == {7, 8} and {config.validation_images for config in trials} == {97}
    assert names(staged) == STAGED
    (analysed,) = rehearsal.analysed
    assert len(analysed.runs) == len(rehearsal.started) and not analysed.awaiting
    assert "0 of 16 runs are complete" in capsys.readouterr().out
    assert rehearsal.start() == 0
    assert len(rehearsal.started) == TRIALS + len(STAGED)
    assert "nothing is left to train" in capsys.readouterr().out


def test_nothing_is_crossed_after_a_tuning_that_both_arms_win_alike(rehearsal):
    rehearsal.accuracy = lambda config: config.learning_rate
    assert rehearsal.start() == 0
    expected = [(arm, seed, 0.1) for arm, seed, _ in STAGED if "other_winner" not in arm]
    assert names(rehearsal.started[TRIALS:]) == expected


def test_no_stage_starts_while_a_run_of_the_tuning_is_missing(rehearsal, capsys):
    rehearsal.failing = lambda config: (config.architecture, config.learning_rate, config.seed) == ("resnet18", 0.1, 7)
    assert rehearsal.start() == 1
    assert len(rehearsal.started) == TRIALS and not rehearsal.analysed
    printed = capsys.readouterr()
    assert "failed: tuning__resnet18__learning_rate_0.1 seed 7: no luck" in printed.err
    assert "no run on the test images is complete" in printed.out
    rehearsal.failing = lambda config: False
    assert rehearsal.start() == 0
    assert names(rehearsal.started[TRIALS:]) == [("tuning__resnet18__learning_rate_0.1", 7, 0.1), *STAGED]


def test_failed_run_of_a_stage_is_named_after_all_others(rehearsal, capsys):
    rehearsal.failing = lambda config: config.arm == "resnet18__short"
    assert rehearsal.start() == 1
    assert names(rehearsal.started[TRIALS:]) == STAGED and len(rehearsal.analysed) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "failed: resnet18__short seed 0: no luck"


@pytest.mark.parametrize(("runs_in_time", "analyses"), [(3, 0), (TRIALS, 0), (TRIALS + 3, 1)])
def test_time_budget_counts_from_the_start_through_tuning_and_stages(rehearsal, capsys, runs_in_time, analyses):
    last_start = (runs_in_time - 1) * RUN_SECONDS + launch.NOTEBOOK_SECONDS + launch.MARGIN * RUN_SECONDS
    minutes = (last_start + RUN_SECONDS / 2 + command.ANALYSIS_SECONDS) / 60
    assert rehearsal.start("--time-budget", str(minutes)) == 0
    assert (len(rehearsal.started), len(rehearsal.analysed)) == (runs_in_time, analyses)
    left = TRIALS + len(STAGED) - runs_in_time
    assert f"the time budget leaves {left} runs for next time" in capsys.readouterr().out
    assert rehearsal.start() == 0
    assert names(rehearsal.started[TRIALS:]) == STAGED


def test_dry_run_lists_what_waits_for_the_tuning(rehearsal, capsys):
    assert rehearsal.start("--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not rehearsal.started
    assert lines[0] == "tuning__resnet18__learning_rate_0.05  seed 7"
    waiting = "  (with the settings that the tuning finds)"
    assert [line.endswith(waiting) for line in lines[: TRIALS + len(STAGED)]] == [False] * TRIALS + [True] * len(STAGED)
    listed = [line.removesuffix(waiting) for line in lines[TRIALS : TRIALS + len(STAGED)]]
    assert listed == [f"{arm}  seed {seed}" for arm, seed, _ in STAGED]
    assert lines[-1].startswith(f"{TRIALS + len(STAGED)} runs to do")
    rehearsal.start()
    capsys.readouterr()
    assert rehearsal.start("--dry-run") == 0
    assert "all 16 runs of tuned are complete" in capsys.readouterr().out


def test_tuned_study_runs_through_its_notebooks(tmp_path):
    study = tmp_path / "tuned.yaml"
    tuning = TUNING.split("stages:")[0].replace("[0.05, 0.1]", "[0.1]").replace("[7, 8]", "[7]")
    study.write_text(STUDY.replace("seeds: 2", "seeds: 1") + tuning)
    done = run_lib(tmp_path / "out", "--study", study, "--jobs", 2)
    assert done.returncode == 0, done.err
    folder = tmp_path / "out" / "tuned"
    found = {path.parent.name: summary for path, summary in summaries(folder).items()}
    arms = {"resnet18", "se_resnet18"}
    assert set(found) == arms | {f"tuning__{arm}__learning_rate_0.1" for arm in arms}
    assert {name for name, summary in found.items() if "test_accuracy" in summary} == arms
    assert {name for name, summary in found.items() if "val_accuracy" not in summary} == arms
    assert not list(folder.rglob("tuning__*/*/*.npz"))
    assert {path.stem for path in (folder / "html").glob("train-*")} == TRAINING_PAGES
    assert not list(folder.rglob("*.partial*"))
