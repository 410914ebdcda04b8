"""Many runs in one process: equal to runs on their own, with what can go wrong on a GPU rehearsed on the CPU."""

import copy
import functools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from unittest.mock import MagicMock

import pytest
import torch
from conftest import tiny_config, tiny_dataset, wait_until, write_study
from test_run import execute, is_run, results

from lib import data
from lib.files import ROOT, StudyError, read_json, run_folder, write_json
from lib.launch import sequence
from lib.launch.pool import missing_runs
from lib.runs import finished_runs
from lib.study import load_study
from lib.train import run as run_module
from lib.train import trainer as trainer_module
from lib.train.models import ARCHITECTURES
from lib.train.trainer import OWN, DivergedError, Speedups, Trainer


@pytest.fixture
def study(tmp_path, monkeypatch):
    few = tiny_dataset(512)  # eight steps an epoch
    for module in (sequence, data):
        monkeypatch.setattr(module, "load_dataset", lambda name: few)
    monkeypatch.setattr(sequence, "STUDIES", tmp_path)
    return load_study(str(write_study(tmp_path)))


def run_all(study, seconds=None):
    return sequence.run_sequence(study, missing_runs(study), seconds and time.monotonic() + seconds)


def addresses(trainer):
    own = [*trainer.plan, trainer.images, trainer.labels]
    own += [trainer.rates, trainer.cursor, trainer.loss_sum, trainer.correct]
    momenta = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    return [each.data_ptr() for each in (*trainer.model.state_dict().values(), *own, *momenta)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_restarted_trainer_equals_a_fresh_one_and_moves_no_tensor(make_trainer, precision):
    used = make_trainer(precision=precision, seed=5)
    used.train_epoch()
    used.first_losses(seed=6, steps=2)
    before = addresses(used)
    changes = {"seed": 7, "epochs": 2, "learning_rate": 0.05, "warmup_epochs": 0.5, "horizontal_flip": False}
    other, fresh = tiny_config(**changes), make_trainer(precision=precision, **changes)
    used.restart(other)
    for _ in range(2):
        assert used.train_epoch()["train_loss"] == fresh.train_epoch()["train_loss"]
    pairs = zip(used.model.state_dict().values(), fresh.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs) and addresses(used) == before
    used.restart(other)
    used.train_epoch()
    state = copy.deepcopy(used.state())
    last = used.train_epoch()["train_loss"]
    used.restart(other)
    used.restore(state)  # as a run that goes on does, after its step has been captured
    assert used.train_epoch()["train_loss"] == last and addresses(used) == before


def test_settings_that_are_part_of_the_step_need_another_seat(make_trainer):
    trainer = make_trainer(architecture="resnet18")
    others = {"architecture": "wide_resnet18", "dataset": "cifar10", "width": 0.5, "reduction": 2, "batch_size": 16}
    others |= {
        "momentum": 0.5,
        "weight_decay": 0.1,
        "decay_gates": False,
        "crop_padding": 1,
        "validation_images": 9,
        "precision": "bf16",
    }
    assert set(others) == set(trainer.config.model_dump()) - OWN
    for name, value in others.items():
        with pytest.raises(ValueError, match="another step"):
            trainer.restart(trainer.config.model_copy(update={name: value}))


@pytest.mark.slow
def test_the_run_folders_are_those_of_runs_on_their_own(study, tmp_path):
    assert run_all(study) == (0, 0) and len(finished_runs(study)) == 4
    for config, folder, summary in finished_runs(study):
        alone = tmp_path / "alone" / folder.name / config.arm
        expected = execute(config, data.load_dataset("digits"), alone)
        assert summary == expected | {name: summary[name] for name in ("train_seconds", "finished_utc")}
        assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
        if config.arm == "se_resnet18":
            assert results(folder) == results(alone)
    assert read_json(folder / "environment.json") == read_json(alone / "environment.json")
    assert missing_runs(study) == []


@pytest.mark.slow
def test_a_run_that_fails_or_cannot_be_written_stops_no_other(study, monkeypatch, capsys):
    train_epoch, write = Trainer.train_epoch, run_module.Run._write_summary

    def diverge(trainer):
        if (trainer.config.arm, trainer.config.seed) == ("resnet18", 0) and is_run(trainer):
            raise DivergedError("the loss is nan")
        return train_epoch(trainer)

    def fail(run, scores):
        if (run.config.arm, run.config.seed) == ("se_resnet18", 1):
            raise StudyError("the disk is full")
        write(run, scores)

    monkeypatch.setattr(Trainer, "train_epoch", diverge)
    monkeypatch.setattr(run_module.Run, "_write_summary", fail)
    assert run_all(study) == (2, 0) and len(finished_runs(study)) == 2
    assert read_json(run_folder("tiny", "resnet18", 0) / "failure.json") == {"reason": "the loss is nan"}
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
    assert lines == ["failed: resnet18 seed 0: the loss is nan", "failed: se_resnet18 seed 1: the disk is full"]


@pytest.mark.slow
def test_both_runs_of_a_pair_start_only_if_both_fit(study, monkeypatch):
    clock = MagicMock(side_effect=lambda: clock.now)
    clock.now, train = 0, sequence._Sequence.train

    def trained(self, config, trainer):
        clock.now += 100
        return train(self, config, trainer)

    monkeypatch.setattr(sequence._Sequence, "train", trained)
    monkeypatch.setattr(sequence.time, "monotonic", clock)
    assert sequence.run_sequence(study, study.runs, 200 + 2 * 100 * sequence.MARGIN - 1) == (0, 2)
    assert {config.seed for config, _, _ in finished_runs(study)} == {0}
    # nobody knows yet how long a run takes, so that the first pair starts
    assert sequence.run_sequence(study, missing_runs(study), clock.now + 1) == (0, 0)


@pytest.mark.slow
def test_the_first_steps_must_have_the_losses_of_the_reference(study):
    runpy.run_path(str(ROOT / ".ci" / "reference.py"))["write_reference"](study)
    reference = read_json(sequence.STUDIES / f"{study.name}.losses.json")
    assert {arm: len(each["losses"]) for arm, each in reference.items()} == {"resnet18": 8, "se_resnet18": 8}
    assert run_all(study, seconds=600) == (0, 0)
    shutil.rmtree(run_folder(study.name, "se_resnet18", 1))
    for step, factor in ((3, 1.002), (7, 1.02)):
        changed = copy.deepcopy(reference)
        changed["se_resnet18"]["losses"][step] *= factor
        write_json(sequence.STUDIES / f"{study.name}.losses.json", changed)
        with pytest.raises(StudyError, match="plain step of se_resnet18 has other losses .* not trained"):
            run_all(study)
    assert len(finished_runs(study)) == 3


def test_a_step_that_does_not_work_is_tried_anew_with_fewer_speedups(study, monkeypatch):
    made, init, starts = [], Trainer.__init__, []
    monkeypatch.setenv("STUDY_DEADLINE", "")  # what is set below ends with the test

    def pretend(trainer, *arguments):
        speedups = arguments[-1]
        made.append((speedups.compiled, speedups.cuda_graph))
        if speedups.compiled or speedups.cuda_graph:
            raise RuntimeError("pretended\nfailure")
        init(trainer, *arguments)

    monkeypatch.setattr(Trainer, "__init__", pretend)
    monkeypatch.setattr(trainer_module, "choose_speedups", lambda *_: Speedups(compiled=True, cuda_graph=True))
    monkeypatch.setattr(sequence.os, "execv", lambda program, words: starts.append(words) or sys.exit())
    for rung in range(3):
        monkeypatch.setenv("STUDY_RUNG", str(rung))
        with pytest.raises(SystemExit):
            run_all(study, seconds=600)
        assert os.environ["STUDY_RUNG"] == str(rung + 1) and starts[-1] == sys.orig_argv
        assert 0 < float(os.environ["STUDY_DEADLINE"]) - time.monotonic() < 600
    assert made == [(True, True), (True, False), (False, True)]
    config = study.runs[0]
    trainer = run_module.make_trainer(config, data.load_dataset("digits"))  # in a notebook, all are tried at once
    assert made[3:] == [*made[:3], (False, False)] and not trainer.speedups.compiled
    assert run_module.describe_environment(trainer)["speedups"]["cuda_graph"] is False
    full, busy = "CUDA out of memory", "CUDA-capable device(s) is/are busy or unavailable"
    errors = (torch.cuda.OutOfMemoryError(full), "memory is full"), (RuntimeError(busy), "another process")
    for error, told in (*errors, (TypeError("a fault"), "a fault")):
        monkeypatch.setattr(Trainer, "__init__", MagicMock(side_effect=error))
        with pytest.raises((StudyError, TypeError), match=told):
            run_all(study)  # now on the last rung


@pytest.mark.slow
def test_more_architectures_than_dynamo_recompiles_are_trained_in_one_process(make_trainer, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    cells = [(name, reduction) for name in ARCHITECTURES for reduction in (2, 4)]
    assert len(cells) > 8
    for name, reduction in cells:
        how = {"images": 32, "batch_size": 16, "speedups": Speedups(compiled=True)}
        make_trainer(architecture=name, reduction=reduction, **how).train_epoch()


# what a borrowed machine lacks of the environment; it is given pydantic, and has the rest
ABSENT = "IPython bs4 ipykernel ipywidgets jupyter_client jupyter_core jupyterlab latex2mathml nbclient nbconvert"
ABSENT += " nbformat papermill playwright pooch submitit tornado traitlets zmq"
BARE = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT.split()}))  # as if they were not installed\n"


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    """Starts the campaign on a copy of the tracked files, without history, Jupyter and network."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("needs the repository's history")
    copy, site, out = (tmp_path / name for name in ("copy", "site", "out"))
    for name in filter(None, tracked.stdout.split("\0")):
        if not name.startswith("outputs/") and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    assert sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) < 2**23
    monkeypatch.setenv("STUDY_DEADLINE", "")
    write_study(copy / "lib" / "studies")
    site.mkdir()
    out.mkdir()
    (site / "sitecustomize.py").write_text(BARE)
    (site / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (site / "python3").chmod(0o755)

    def start(study="tiny"):
        environment = os.environ | {"PYTHONPATH": str(site), "PATH": f"{site}:{os.environ['PATH']}"}
        environment |= {"STUDY_COMMIT": "c" * 40, "STUDY_DATA": str(tmp_path / "images")}
        command = [copy / ".ci" / "campaign.sh", study, "9", out]
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, env=environment, cwd=tmp_path, **how), out

    return start


def unpack(archives, folder):
    for archive in archives:
        shutil.unpack_archive(archive, folder, filter="data")
    return len(list(folder.rglob("summary.json")))


@pytest.mark.slow
def test_the_campaign_needs_images_survives_a_kill_and_brings_whole_runs_home(bare_machine, tmp_path, monkeypatch):
    process, out = bare_machine("replication")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1 and not list(out.glob("*.tar"))
    assert output.splitlines()[-1].startswith("error: CIFAR-10 is not whole in ")
    process, out = bare_machine()
    wait_until(lambda: list(out.glob("*.tar")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = unpack(out.glob("*.tar"), tmp_path / "copy" / "outputs")
    process, out = bare_machine()  # into the same folder
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"{first} of 4 runs are complete" in output and "papermill is not installed" in output
    assert len(list(out.iterdir())) <= 8
    monkeypatch.setenv("STUDY_OUTPUTS", str(tmp_path / "home"))
    assert 0 < first < unpack(out.glob("*.tar"), tmp_path / "home") == 4
    assert len(finished_runs(load_study(str(write_study(tmp_path))))) == 4
    environment = json.loads((run_folder("tiny", "resnet18", 0) / "environment.json").read_text())
    assert environment["commit"] == "c" * 40 and environment["uncommitted_changes"] is None
