"""The whole pipeline as a user runs it: python -m lib on small studies of the bundled digits.

What trains runs in a process of its own; what ends before a run starts is called here.
"""

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
from lib import estimate, launch, preview, slurm
from lib.config import config_hash
from lib.data import load_dataset
from lib.paths import ROOT, STUDIES, outputs_folder, run_folder
from lib.runs import lock, write_json

STUDY = """
title: A tiny study
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits, width: 0.125, reduction: 4, epochs: 2, warmup_epochs: 1, batch_size: 64,
  probe_images: 50}
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


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "studies" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(STUDY)
    return path


def run_lib(outputs, *arguments, wait=True, **environment):
    """Start python -m lib with one thread a run, no GPU, no network and a folder of its own for the outputs."""
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    variables = {"CUDA_VISIBLE_DEVICES": "", "STUDY_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"} | offline
    process = subprocess.Popen(
        [sys.executable, "-m", "lib", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | variables | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        process.out, process.err = process.communicate(timeout=600)
    return process


@pytest.fixture
def run_here(monkeypatch, capsys):
    """run_here(*arguments): the command in this process, with the folders of the test."""
    monkeypatch.setattr(command, "signal", types.SimpleNamespace(SIGTERM=None, signal=lambda *arguments: None))

    def run(*arguments):
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return types.SimpleNamespace(returncode=status, out=printed.out, err=printed.err)

    return run


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The command without a word where there are no images, ended, and the folder of its outputs."""
    outputs = tmp_path_factory.mktemp("outputs with a space and ü")
    return run_lib(outputs, STUDY_DATA=str(outputs / "no data")), outputs


@pytest.fixture(scope="module")
def finished(bare):
    """Outputs folder of the smoke study, finished without interruption."""
    return bare[1]


def summaries(outputs):
    return {path.parent: json.loads(path.read_text()) for path in sorted(outputs.rglob("summary.json"))}


@pytest.mark.fault("no network and no images, and no study named", "the study on the bundled images is taken")
def test_bare_command_without_images_takes_smoke(bare):
    done, _ = bare
    assert done.returncode == 0, done.err
    assert "no GPU here: taking 'laptop'" in done.out and "'smoke' on the bundled digits instead" in done.out
    assert f"4 runs to do, {min(2, len(os.sched_getaffinity(0)))} at a time on the CPU: about" in done.out


def test_pipeline_writes_everything(finished):
    folder = finished / "smoke"
    assert len(summaries(finished)) == 4
    results = json.loads((folder / "results.json").read_text())
    assert results["study"] == "smoke" and results["data_source"] == "digits"
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


def test_rerunning_repeats_no_run_and_gives_the_same_results(finished):
    before = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in summaries(finished)}
    results = (finished / "smoke" / "results.json").read_text()
    done = run_lib(finished, "--study", "smoke")
    assert done.returncode == 0 and "4 of 4 runs are complete" in done.out
    assert before == {folder: (folder / "summary.json").stat().st_mtime_ns for folder in summaries(finished)}
    assert (finished / "smoke" / "results.json").read_text() == results


@pytest.mark.fault(
    "kill -9 of the command while its runs train", "the same command goes on and ends with the same logits for all runs"
)
def test_kill_9_in_the_middle_then_the_same_command_ends_alike(finished, tmp_path):
    half, outputs = tmp_path / "smoke.yaml", tmp_path / "out"
    half.write_text((STUDIES / "smoke.yaml").read_text().replace("seeds: 2", "seeds: 1"))
    first = run_lib(outputs, "--study", half, "--jobs", 2, wait=False)
    deadline = time.monotonic() + 300
    while not list(outputs.rglob("metrics.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(summaries(outputs)) < 2
    done = run_lib(outputs, "--study", half, "--jobs", 2)
    assert done.returncode == 0, done.err
    expected = {folder.relative_to(finished): s["logits_sha256"] for folder, s in summaries(finished).items()}
    found = {folder.relative_to(outputs): s["logits_sha256"] for folder, s in summaries(outputs).items()}
    assert len(found) == 2 and found.items() <= expected.items()


@pytest.mark.fault("a run that diverges", "it is named in one line, the others go on, and the analysis leaves it out")
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


def test_dry_run_lists_and_writes_nothing(study_file, run_here):
    done = run_here("--study", study_file, "--dry-run")
    assert done.returncode == 0
    assert done.out.splitlines()[:2] == ["resnet18  seed 0", "se_resnet18  seed 0"]
    assert "4 runs to do" in done.out and not outputs_folder("tiny").parent.exists()


@pytest.mark.parametrize("engine", [(), ("--engine", "slurm")])
def test_the_paper_study_can_be_listed_anywhere(engine, run_here, monkeypatch):
    monkeypatch.setattr(preview, "choose_slots", lambda config, gpus, jobs: ([{}], 1e-6))
    monkeypatch.setattr(slurm, "check_slurm", lambda: None)
    done = run_here("--study", "paper", "--dry-run", *engine)
    assert done.returncode == 0 and "se_skip_resnet18  seed 9" in done.out
    assert ("as SLURM jobs, as many at a time as it allows" in done.out) == bool(engine)


def test_time_budget_starts_no_run_that_would_not_finish(study_file, run_here, monkeypatch):
    monkeypatch.setattr(preview, "choose_slots", lambda config, gpus, jobs: ([{}], 1e-6))
    done = run_here("--study", study_file, "--time-budget", "0.01")
    assert done.returncode == 0 and "leaves 4 runs for next time" in done.out
    assert not summaries(outputs_folder("tiny"))


def one_error_line(done):
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.returncode != 0
    assert len(lines) == 1, done.err
    return lines[0]


@pytest.mark.fault("no network and no images", "one line says where to put them and which study needs none")
def test_explicit_study_without_images_is_an_error(run_here):
    line = one_error_line(run_here("--study", "laptop"))
    assert "cifar-10-python.tar.gz" in line and "--study smoke" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--study", "smok"), "did you mean 'smoke'"),
        (("--study", "missing.yaml"), "/missing.yaml': take one of"),
        (("--study", "benchmark", "--engine", "slurm"), "the benchmark takes no further options"),
    ],
)
def test_unknown_study(arguments, expected, run_here):
    assert expected in one_error_line(run_here(*arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--jobs", "0"), "--jobs: invalid positive int"),
        (("--time-budget", "soon"), "--time-budget: invalid positive float"),
        (("--stduy", "smoke"), "unrecognized arguments: --stduy"),
        (("--engine", "cloud"), "--engine: invalid choice"),
        (("--engine", "slurm"), "--engine slurm needs --study"),
        (("--study", "smoke", "--engine", "slurm", "--time-budget", "5"), "SBATCH_TIMELIMIT limits each job"),
    ],
)
def test_wrong_options_are_refused(arguments, expected, run_here):
    done = run_here(*arguments)
    assert done.returncode == 2 and "error: " in done.err and expected in done.err


def test_slurm_where_there_is_none_is_an_error(run_here, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "--engine slurm needs sbatch" in one_error_line(run_here("--study", "smoke", "--engine", "slurm"))
    assert not outputs_folder("smoke").exists()


def test_study_files_and_outputs_are_relative_to_the_caller(finished, tmp_path, run_here, monkeypatch):
    (tmp_path / "smoke.yaml").write_text((STUDIES / "smoke.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_OUTPUTS", os.path.relpath(finished, tmp_path))
    assert "all 4 runs of smoke are complete" in run_here("--study", "smoke.yaml", "--dry-run").out
    assert os.environ["STUDY_OUTPUTS"] == str(finished.resolve())  # notebooks run in another folder


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("reduction: 4", "reduction: 3", "reduction = 3 does not divide"),
        ("width: 0.125", "width: -1", "width = -1.0 is out of range"),
        ("epochs: 2", "epoch: 2", "unknown setting 'epoch': did you mean 'epochs'"),
        ("arms: {resnet18: {}", "arms: {resnet18: {architecture: resnet81}", "did you mean 'resnet18'"),
    ],
)
def test_studies_that_cannot_be_built_are_refused_before_launch(old, new, expected, study_file, run_here):
    study_file.write_text(STUDY.replace(old, new))
    assert expected in one_error_line(run_here("--study", study_file))
    assert not outputs_folder("tiny").parent.exists()


@pytest.mark.fault("outputs below a regular file", "one line names STUDY_OUTPUTS")
def test_outputs_that_cannot_be_written(study_file, tmp_path, run_here, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("STUDY_OUTPUTS", str(blocked))
    assert "set STUDY_OUTPUTS" in one_error_line(run_here("--study", study_file))


@pytest.mark.fault("the same study started twice at once", "the second command stops in one line")
def test_a_second_command_on_the_same_study_stops_at_once(study_file, run_here):
    with lock(outputs_folder("tiny"), "this test"):
        done = run_here("--study", study_file)
    assert "study 'tiny' is already being worked on" in one_error_line(done)


@pytest.mark.fault("finished runs on other images", "the command refuses in one line to mix them")
@pytest.mark.parametrize("engine", [(), ("--engine", "slurm")])
def test_runs_on_other_images_are_not_mixed(engine, finished, tmp_path, run_here, monkeypatch):
    subprocess.run(["cp", "-r", f"{finished}/smoke", tmp_path], check=True)
    folders = list(summaries(tmp_path))
    (folders[-1] / "summary.json").unlink()
    for folder in folders[:-1]:
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"data_fingerprint": "0" * 64}))
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(slurm, "check_slurm", lambda: None)
    line = one_error_line(run_here("--study", "smoke", *engine))
    assert "000000000000" in line and "set STUDY_OUTPUTS" in line


@pytest.mark.fault(
    "a disk that fills up while the command trains", "the full disk is named, and no run counts as complete"
)
def test_a_full_disk_is_named_and_no_run_counts_as_complete(study_file, tmp_path, run_here, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    study_file.write_text(STUDY.replace("seeds: 2", "seeds: 1"))
    monkeypatch.setenv("STUDY_OUTPUTS", str(full))
    monkeypatch.setattr(preview, "choose_slots", lambda config, gpus, jobs: ([{}, {}], 1e-6))
    try:
        done = run_here("--study", study_file)
        assert done.returncode == 1
        assert "the disk is full" in done.err or "No space left on device" in done.err
        assert not summaries(full)
    finally:
        subprocess.run(["umount", full], check=True)


RUN_SECONDS = 100  # that a run takes by the clock of the tests below


@pytest.fixture
def rehearsal(monkeypatch, tmp_path):
    """The command on the tuned study, with runs that are complete at once and score what `accuracy` says.

    start(*arguments) returns the exit status; started holds the configs in the order of their start, analysed the
    studies that were analysed, batches what SLURM got: (runs, at most at once); a config for which failing(config) is
    true fails.
    """
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED)
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic, clock.sleep = lambda: clock.now, lambda seconds: None
    origin = {"data_source": "digits", "data_fingerprint": load_dataset("digits").fingerprint, "precision": "fp32"}
    stage = types.SimpleNamespace(started=[], analysed=[], batches=[], path=path, failing=lambda config: False)
    stage.accuracy = lambda config: 0.9 if (config.architecture, config.learning_rate) == ("resnet18", 0.05) else 0.5

    def wait():
        clock.now += RUN_SECONDS
        return True

    def run(study, config):
        stage.started.append(config)
        failed = stage.failing(config)
        if not failed:
            part = "val" if config.validation_images else "test"
            scores = {f"{part}_accuracy": stage.accuracy(config), f"{part}_loss": 1.0}
            summary = origin | scores | {"parameters": 1, "train_seconds": 1.0}
            folder = run_folder(study.name, config.arm, config.seed)
            write_json(folder / "config.json", config.to_dict())
            write_json(folder / "summary.json", summary | {"config_hash": config_hash(config.to_dict())})
        return failed

    def start_run(study, study_name, config, environment):
        failed = run(study, config)
        return types.SimpleNamespace(finished=wait, failed=failed, error=lambda: "no luck", stop=lambda: None)

    def run_jobs(study, study_name, configs, jobs):
        stage.batches.append((len(configs), jobs))
        return [f"{config.arm} seed {config.seed}: no luck" for config in configs if run(study, config)]

    monkeypatch.setattr(slurm, "check_slurm", lambda: None)
    monkeypatch.setattr(slurm, "run_jobs", run_jobs)
    monkeypatch.setattr(launch, "start_run", start_run)
    monkeypatch.setattr(preview, "choose_slots", lambda config, gpus, jobs: ([{}], 1e-6))
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


def test_slurm_gets_the_tuning_and_then_what_its_winners_settle(rehearsal, capsys, monkeypatch):
    monkeypatch.setattr(preview, "choose_slots", None)  # nothing is measured where nothing runs
    assert rehearsal.start("--engine", "slurm", "--jobs", "3") == 0
    assert rehearsal.batches == [(TRIALS, 3), (len(STAGED), 3)] and len(rehearsal.analysed) == 1
    assert names(rehearsal.started[TRIALS:]) == STAGED
    assert "16 runs to do as SLURM jobs, 3 at a time" in capsys.readouterr().out


def test_runs_that_failed_as_jobs_are_named_and_tried_again_alone(rehearsal, capsys):
    rehearsal.failing = lambda config: (config.learning_rate, config.seed) == (0.1, 7)
    assert rehearsal.start("--engine", "slurm") == 1
    assert rehearsal.batches == [(TRIALS, None)] and not rehearsal.analysed
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    arms = ("resnet18", "se_resnet18")
    assert failed == [f"failed: tuning__{arm}__learning_rate_0.1 seed 7: no luck" for arm in arms]
    rehearsal.failing = lambda config: False
    assert rehearsal.start("--engine", "slurm") == 0
    assert rehearsal.batches[1:] == [(2, None), (len(STAGED), None)]


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
    last_start = (runs_in_time - 1) * RUN_SECONDS + estimate.NOTEBOOK_SECONDS + launch.MARGIN * RUN_SECONDS
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
