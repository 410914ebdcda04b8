"""The command as a user runs it: python -m lib. What trains runs in processes of their own, the rest is called here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from conftest import STUDY, end, is_free, wait_until, write_study
from made_runs import make_run, make_study

from lib import __main__ as command
from lib.files import ROOT, StudyError, outputs_folder, read_json, run_folder, write_json
from lib.launch import pool, slurm
from lib.paper import MissingTeXError
from lib.study import load_study

TUNING = "tuning: {arms: [resnet18, se_resnet18], seeds: [7], validation_images: 9, grid: {learning_rate: [0.05, 0.1]}}"


@pytest.fixture
def study_file(tmp_path):
    return write_study(tmp_path, STUDY.replace("seeds: 2", "seeds: 1").replace("epochs: 2", "epochs: 4"))


@pytest.fixture
def tuned_file(study_file):
    return write_study(study_file.parent, study_file.read_text() + TUNING)


def start_lib(*arguments, **environment):
    """Start python -m lib in a process of its own, with the folders of the test."""
    command_line = [sys.executable, "-m", "lib", *map(str, arguments)]
    how = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "umask": 0o077}
    return subprocess.Popen(command_line, env=os.environ | environment, **how)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """run_here(*arguments): the command in this process."""
    monkeypatch.setattr(command, "signal", types.SimpleNamespace(SIGTERM=None, signal=lambda *arguments: None))

    def run(*arguments):
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return types.SimpleNamespace(returncode=status, out=printed.out, err=printed.err)

    return run


def one_error_line(done):
    (line,) = filter(str.strip, done.err.splitlines())
    assert done.returncode != 0
    return line


def files(pattern="*"):
    """{path: content} of what the command has made, without logs and locks."""
    paths = [path for path in outputs_folder("tiny").rglob(pattern) if path.is_file()]
    return {path: path.read_bytes() for path in paths if path.parent.name != "logs" and path.name != ".lock"}


def notebooks_of(study_file):
    """{arm: process id} of the notebooks that train runs of this study now."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            parameters = json.loads(words[3])["parameters"] if "lib.launch.notebook" in words else {}
            if parameters.get("study") == str(study_file) and parameters["arm"]:
                found[parameters["arm"]] = int(folder.name)
    return found


@pytest.mark.slow
def test_from_kill_9_and_a_killed_run_to_a_finished_study_that_is_analysed_again_alike(study_file, run_here):
    first = start_lib("--study", study_file, "--jobs", 2)
    wait_until(lambda: notebooks_of(study_file))
    assert "study 'tiny' is already being worked on" in one_error_line(run_here("--study", study_file))
    victim, process_id = notebooks_of(study_file).popitem()
    os.kill(process_id, signal.SIGKILL)
    assert end(first).returncode == 1
    (line,) = [line for line in first.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith(f"failed: {victim} seed 0: its process was killed")
    before = files("summary.json")
    assert len(before) == 1
    second = start_lib("--study", study_file)
    wait_until(lambda: files(f"{victim}/*/metrics.csv"))
    second.kill()
    wait_until(lambda: not notebooks_of(study_file), seconds=60)
    strange = {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C", "HOME": "/proc/none"}  # Latin-1 has no ellipsis
    done = end(start_lib("--study", study_file, **strange))
    assert done.returncode == 0 and "error" not in done.err and "\r" not in done.err, done.err
    assert len(files("summary.json")) == 2 and before.items() <= files("summary.json").items()
    found, folder = files(), outputs_folder("tiny")
    primary = json.loads(found[folder / "results.json"])["primary"]
    assert (primary["arm"], primary["n_pairs"], primary["complete"]) == ("se_resnet18", 1, True)
    pages = {path.name for path in (folder / "html").iterdir()}
    assert pages == {"analysis.html", "train-resnet18.html", "train-se_resnet18.html"}
    for path in (folder / "notebooks").iterdir():
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
        assert outputs and not {output.get("name", output.output_type) for output in outputs} & {"stderr", "error"}
    assert not [path for path in found if path.name == "checkpoint.pt" or "partial" in path.name]
    again = run_here("--study", study_file)
    assert again.returncode == 0 and "2 of 2 runs are complete" in again.out
    assert files() == found


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_stop_all_processes(number, status, study_file):
    process = start_lib("--study", study_file, "--jobs", 1)
    wait_until(lambda: files("config.json"))
    process.send_signal(number)
    assert end(process).returncode == status and "Traceback" not in process.err and "failed" not in process.err
    assert len(files("config.json")) == 1 and not files("summary.json")  # no other run was started
    wait_until(lambda: is_free(run_folder("tiny", "resnet18", 0)) and not notebooks_of(study_file), seconds=60)


@pytest.mark.slow
def test_a_full_disk_is_named_and_no_run_counts_as_complete(study_file, small_disk, run_here, monkeypatch):
    monkeypatch.setenv("STUDY_OUTPUTS", str(small_disk))
    done = run_here("--study", study_file)
    assert done.returncode == 1 and ("the disk is full" in done.err or "No space left on device" in done.err)
    assert not list(small_disk.rglob("summary.json"))


class StandIns:
    """Runs that are complete at once and executed notebooks, with what they were asked for."""

    def __init__(self):
        self.trained, self.executed, self.batches, self.fails = [], [], [], lambda config: False

    def run_process(self, study, name, config, environment):
        self.trained.append((config.arm, config.seed, config.learning_rate))

        def wait():
            if self.fails(config):
                raise StudyError("no luck")
            make_run(run_folder(study.name, config.arm, config.seed), config)
            summary = run_folder(study.name, config.arm, config.seed) / "summary.json"
            better = {"val_accuracy": 0.99} if config.learning_rate == 0.05 and "se_" not in config.arm else {}
            write_json(summary, read_json(summary) | better)

        return types.SimpleNamespace(wait=wait)

    def run_jobs(self, study, name, configs, jobs):
        self.batches.append((len(configs), jobs))
        for config in configs:
            self.run_process(study, name, config, {}).wait()
        return 0

    def execute(self, name, folder, parameters):
        self.executed.append((name, parameters))
        write_json(folder / "results.json", {"primary": {"complete": True}})
        return folder / f"{name}.ipynb"


@pytest.fixture
def stand_ins(monkeypatch):
    found = StandIns()
    monkeypatch.setattr(pool, "run_process", found.run_process)
    monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(slurm, "run_jobs", found.run_jobs)
    monkeypatch.setattr(command, "check_trainable", lambda study, missing: None)
    monkeypatch.setattr(command, "execute", found.execute)
    monkeypatch.setattr("lib.launch.pages.write_pages", lambda study, name: outputs_folder(study.name) / "html")
    return found


@pytest.mark.parametrize("engine", [(), ("--engine", "slurm", "--jobs", "3")])
def test_one_command_tunes_and_then_trains_with_the_winners(engine, tuned_file, run_here, stand_ins):
    assert run_here("--study", tuned_file, *engine).returncode == 0
    assert {name.split("__")[0] for name, _, _ in stand_ins.trained[:4]} == {"tuning"}
    assert sorted(stand_ins.trained[4:]) == [("resnet18", 0, 0.05), ("se_resnet18", 0, 0.1)]  # 0.05 has won
    assert stand_ins.executed == [("analysis", {"study": str(tuned_file), "arm": "", "baseline": ""})]
    assert stand_ins.batches == ([(4, 3), (2, 3)] if engine else [])


def test_no_training_follows_a_tuning_of_which_a_run_failed(tuned_file, run_here, stand_ins):
    stand_ins.fails = lambda config: "se_" in config.arm and config.learning_rate == 0.05
    done = run_here("--study", tuned_file)
    assert done.returncode == 1 and len(stand_ins.trained) == 4
    assert done.err.count("no luck") == 1
    stand_ins.fails = lambda config: False
    assert run_here("--study", tuned_file).returncode == 0
    assert len(stand_ins.trained) == 4 + 1 + 2


def test_a_time_budget_that_is_spent_leaves_all_runs_for_next_time(tuned_file, run_here, stand_ins):
    make_study(load_study(str(tuned_file)), only=lambda config: config.learning_rate == 0.05)
    done = run_here("--study", tuned_file, "--time-budget", "0.01")
    assert done.returncode == 0 and not stand_ins.trained and "leaves 4 runs" in done.out


def test_finished_studies_need_no_images_and_no_torch(study_file, run_here, stand_ins, monkeypatch):
    make_study(load_study(str(study_file)))
    for name in ("check_trainable", "load_dataset", "visible_gpus"):
        monkeypatch.setattr(command, name, None)
    monkeypatch.chdir(study_file.parent)
    assert run_here("--study", "tiny.yaml").returncode == 0  # relative to the caller
    assert stand_ins.executed == [("analysis", {"study": str(study_file), "arm": "", "baseline": ""})]


def test_without_a_word_the_study_is_what_the_machine_can_do(run_here, stand_ins, monkeypatch):
    monkeypatch.setattr(command, "_run", lambda study, name, options: print(f"study {name}"))
    monkeypatch.setattr(command, "visible_gpus", lambda: [])
    assert "study smoke" in run_here().out  # no images here, and no network
    monkeypatch.setattr(command, "load_dataset", lambda name: None)
    assert "study laptop" in run_here().out
    monkeypatch.setattr(command, "visible_gpus", lambda: ["0"])
    assert "study paper" in run_here().out
    make_study(load_study("laptop"))
    monkeypatch.setattr(command, "visible_gpus", lambda: [])
    monkeypatch.setattr(command, "load_dataset", None)
    assert "study laptop" in run_here().out  # which is finished


@pytest.mark.parametrize("name", ["paper", "replication", "gates"])
@pytest.mark.parametrize("result", ["4", MissingTeXError("no TeX"), StudyError("a claim")])
def test_the_paper_follows_the_analysis_of_its_studies(name, result, run_here, stand_ins, monkeypatch):
    monkeypatch.setattr(command, "missing_runs", lambda study: [])
    monkeypatch.setattr(command, "finished_runs", lambda study: ["a run"])
    monkeypatch.setattr("lib.paper.build", mock.Mock(side_effect=[result]))
    assert run_here("--study", name).returncode == 0  # STUDY_OUTPUTS is set, and the paper is about outputs/
    folder = outputs_folder(name)
    monkeypatch.setattr(command, "outputs_folder", lambda name: folder)
    monkeypatch.delenv("STUDY_OUTPUTS")
    done = run_here("--study", name)
    assert done.returncode == (type(result) is StudyError) and str(result) in done.out + done.err


def test_the_benchmark_is_executed_and_shown(run_here, stand_ins, monkeypatch):
    monkeypatch.setattr("lib.launch.pages.notebook_to_html", shown := mock.Mock())
    assert run_here("--study", "benchmark").returncode == 0
    assert stand_ins.executed == [("benchmark", {})] and shown.call_count == 1


REFUSED = {
    "--study smok": (1, "did you mean 'smoke'"),
    "--study missing.yml": (1, "missing.yml"),
    "--study smoke --engine slurm": (1, "SLURM"),
    "--study laptop": (1, "cifar-10-python.tar.gz"),  # neither here nor to be downloaded
    "smoke": (2, "did you mean --study smoke?"),
    "--stduy smoke": (2, "unknown word '--stduy'"),
    "--jobs 0": (2, "must be more than 0"),
    "--time-budget -1": (2, "must be more than 0"),
    "--engine slurm": (2, "needs --study"),
    "--study smoke --engine slurm --time-budget 5": (2, "SBATCH_TIMELIMIT"),
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_run_is_refused(arguments, run_here, monkeypatch):
    monkeypatch.setenv("PATH", "")
    done, (status, told) = run_here(*arguments.split()), REFUSED[arguments]
    assert done.returncode == status and told in (one_error_line(done) if status == 1 else done.err)
