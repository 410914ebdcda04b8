import dataclasses
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_config, tiny_dataset, wait_until

from lib.data import split_indices
from lib.files import ROOT, StudyError, read_json, write_json
from lib.runs import load_logits
from lib.train import evaluate, models, run, trainer
from lib.train.models import SEGate, StaticGate
from lib.train.run import Interrupted, Run
from lib.train.trainer import DivergedError, Speedups, Trainer

TUNING_FILES = {"config.json", "environment.json", "metrics.csv", "summary.json"}
FILES = TUNING_FILES | {"test_logits.npz", "gates.csv", "lesions.csv"}
CHANGED_GATE = (SEGate, "gate", lambda self, x: 0 * x.mean((2, 3)))


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("STUDY_HEADLESS", "1")


def execute(config, dataset, folder):
    """Train, evaluate and save a run as train.ipynb does, unless it is complete; returns its summary."""
    this = Run(config, folder)
    if this.summary is None:
        with this.training(dataset) as trainer:
            while trainer.epoch < config.epochs:
                this.save(trainer.train_epoch())
            this.finish(evaluate.evaluate(trainer, dataset))
    return this.summary


def finish(folder, **changes):
    """Train to the end; returns the summary."""
    return execute(tiny_config(**changes), tiny_dataset(), folder)


def start(folder, epochs, error=KeyboardInterrupt, expected=Interrupted, **changes):
    """Train to the end of so many epochs and stop with an error within the next one; returns the Run."""
    this = Run(tiny_config(**changes), folder)
    with pytest.raises(expected), this.training(tiny_dataset()) as trainer:
        while trainer.epoch < epochs:
            this.save(trainer.train_epoch())
        trainer._load_epoch()
        trainer._step()
        raise error
    assert Run(this.config, folder).summary is None
    return this


def files(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def results(folder):
    """All that a run has found out, without times."""
    metrics = pd.read_csv(folder / "metrics.csv").drop(columns=["train_seconds", "images_per_second"])
    tables = [(folder / name).read_text() for name in ("gates.csv", "lesions.csv")]
    return [metrics.to_csv(), *tables, *(array.tobytes() for array in np.load(folder / "test_logits.npz").values())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of one run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "seed-00"
    finish(folder)
    return folder


def check_end(folder, whole):
    """Let a run go on to its end, which must be that of the uninterrupted one, bit for bit."""
    finish(folder)
    assert results(folder) == results(whole) and files(folder) == FILES


def is_run(trainer):
    """Whether a trainer serves a run, not its fixed answers."""
    return trainer.config.batch_size > evaluate.FIXED_IMAGES


@pytest.fixture
def epochs(monkeypatch):
    """A list that grows by the number of each epoch that a run trains."""
    epochs, train_epoch = [], Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", lambda t: epochs.extend([t.epoch + 1] * is_run(t)) or train_epoch(t))
    return epochs


def test_a_run_leaves_its_files_and_a_summary_that_follows_from_them(whole, dataset):
    assert files(whole) == FILES and read_json(whole / "config.json") == tiny_config().model_dump()
    summary, (logits, labels) = read_json(whole / "summary.json"), load_logits(whole)
    assert summary["test_accuracy"] == np.mean(logits.argmax(1) == labels)
    assert summary["data_fingerprint"] == dataset.fingerprint and (labels == dataset.test_labels).all()
    assert summary["train_seconds"] == pytest.approx(pd.read_csv(whole / "metrics.csv")["train_seconds"].sum())
    assert max(whole.iterdir(), key=lambda path: path.stat().st_mtime_ns).name == "summary.json"
    for private in (str(ROOT), str(whole.parent), f"{Path.home()}/", socket.gethostname()):
        assert not any(private in path.read_text() for path in whole.glob("*.json"))


def test_a_complete_run_is_neither_repeated_nor_overwritten(whole, dataset, epochs):
    before = {path: path.read_bytes() for path in whole.iterdir()}
    late = Run(tiny_config(), whole)  # as made before another process has finished the run
    assert finish(whole) == read_json(whole / "summary.json")
    with pytest.raises(StudyError, match="is complete by now"), late.training(dataset):
        pass
    with pytest.raises(StudyError, match="epochs 3 there, 2 here"):
        finish(whole, epochs=2)
    assert not epochs and before == {path: path.read_bytes() for path in whole.iterdir()}


def test_test_images_are_read_after_the_last_epoch_and_never_in_the_tuning(tmp_path, monkeypatch, dataset):
    seen, predict = [], Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda t, x: seen.extend([(t.epoch, x)] * is_run(t)) or predict(t, x))
    finish(tmp_path / "test", epochs=2, architecture="resnet18")
    ((epoch, images),) = seen
    assert epoch == 2 and (images == dataset.test_images).all()
    monkeypatch.setattr(type(dataset), "fingerprint", "")
    without = dataclasses.replace(dataset, test_images=None, test_labels=None)
    execute(tiny_config(validation_images=20, batch_size=16), without, tmp_path / "tuning")
    _, held_out = split_indices(dataset.train_labels, 20)
    assert (seen[1][1] == dataset.train_images[held_out]).all() and files(tmp_path / "tuning") == TUNING_FILES


@pytest.mark.parametrize(("done", "seconds"), [(0, 1000), (1, 1000), (1, 0), (3, 1000)])
def test_an_interrupted_run_goes_on_after_its_last_whole_epoch(tmp_path, monkeypatch, whole, epochs, done, seconds):
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", seconds)  # 1000: a checkpoint comes with the interruption only
    start(tmp_path, done)
    check_end(tmp_path, whole)
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize("place", [(evaluate, "evaluate"), (run, "save_arrays"), (Run, "_write_summary")])
def test_a_half_written_run_does_not_count_and_is_evaluated_again(tmp_path, monkeypatch, whole, epochs, place):
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(*place, MagicMock(side_effect=MemoryError))
        finish(tmp_path)
    assert Run(tiny_config(), tmp_path).summary is None
    check_end(tmp_path, whole)
    assert epochs == [1, 2, 3]


def test_the_same_run_starts_over_after_an_error_that_left_no_checkpoint(tmp_path, dataset):
    this = start(tmp_path, 2, MemoryError(), MemoryError)
    assert "checkpoint.pt" not in files(tmp_path)
    with pytest.raises(StudyError, match="has 1 of 3 epochs: train on"), this.training(dataset) as trainer:
        this.save(trainer.train_epoch())
        this.finish(evaluate.evaluate(trainer, dataset))
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [1]


CHILD = """
import sys, time
from pathlib import Path
from lib.train import run
from test_run import finish
run.CHECKPOINT_SECONDS = 0
run.RunProgress.show = lambda self, rows: time.sleep(0.5)
finish(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_no_other_process_works_on_it_meanwhile(tmp_path, whole, epochs):
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], env=os.environ | {"PYTHONPATH": paths})
    try:
        wait_until(lambda: (tmp_path / "checkpoint.pt").exists() or child.poll())
        with pytest.raises(StudyError, match="already being worked on by another process"):
            finish(tmp_path)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert "summary.json" not in files(tmp_path)
    check_end(tmp_path, whole)
    assert 1 not in epochs


@pytest.mark.parametrize("length", [0, 5000])
def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path, whole, epochs, capsys, length):
    start(tmp_path, 1)
    os.truncate(tmp_path / "checkpoint.pt", length)
    check_end(tmp_path, whole)
    assert epochs == [1, 1, 2, 3] and "checkpoint.pt is damaged: starting over\n" in capsys.readouterr().out


def test_a_checkpoint_of_other_settings_images_or_networks_is_refused_and_kept(tmp_path, dataset, monkeypatch):
    this = start(tmp_path, 2)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(StudyError, match="has other settings .epochs 3 there, 2 here.: go back to them, or delete"):
        finish(tmp_path, epochs=2)
    with pytest.raises(StudyError, match="stems from other images: bring those back, or delete"):
        execute(tiny_config(), dataclasses.replace(dataset, train_images=dataset.train_images[::-1]), tmp_path)
    monkeypatch.setattr(*CHANGED_GATE)
    for each in (this, Run(tiny_config(), tmp_path)):  # a gate may change between two executions of a cell
        with pytest.raises(StudyError, match="stems from another network .*: go back to it, or delete"):
            each.training(dataset).__enter__()
    assert (tmp_path / "checkpoint.pt").read_bytes() == content
    assert read_json(tmp_path / "config.json") == tiny_config().model_dump()


def test_a_checkpoint_in_another_precision_is_refused_and_kept(tmp_path, monkeypatch, epochs):
    monkeypatch.setattr(trainer, "choose_precision", lambda device: "fp32")
    start(tmp_path, 2, precision="auto")
    monkeypatch.setattr(trainer, "choose_precision", lambda device: "bf16")
    with pytest.raises(StudyError, match="trained in fp32 on cpu, which cannot go on in bf16 on cpu: .* delete"):
        finish(tmp_path, precision="auto")
    monkeypatch.setattr(trainer, "choose_precision", lambda device: "fp32")
    assert finish(tmp_path, precision="auto")["precision"] == "fp32" and epochs == [1, 2, 3]


def test_a_run_that_diverges_leaves_its_reason_until_it_succeeds_and_in_the_tuning_counts_as_0(tmp_path, whole):
    error = DivergedError("the loss is nan")
    start(tmp_path, 1, error, DivergedError)
    assert read_json(tmp_path / "failure.json")["reason"] == "the loss is nan"
    check_end(tmp_path, whole)
    this = Run(tiny_config(validation_images=20, batch_size=16), tmp_path / "tuning")
    with this.training(tiny_dataset()):
        raise error
    assert Run(this.config, this.folder).summary == this.summary
    assert (this.summary["val_accuracy"], this.summary["diverged"]) == (0, "the loss is nan")


CHANGED = [
    CHANGED_GATE,
    (torch.optim, "SGD", lambda parameters, **_: torch.optim.Adam(parameters, lr=torch.tensor(0.01))),
    (trainer, "crop_and_flip", lambda images, order, *_: images[order, :32, :32]),
    (models, "initialise", lambda model, seed: model),
    (SEGate, "gate", lambda self, x: torch.nn.Hardsigmoid()(self.excite(torch.relu(self.squeeze(self.averages(x)))))),
    (trainer.functional, "cross_entropy", partial(trainer.functional.cross_entropy, label_smoothing=0.1)),
]
ALIKE = [
    (SEGate, "averages", lambda self, x: x.mean((2, 3))),
    (StaticGate, "gate", None),  # of another architecture
    (trainer, "choose_precision", lambda device: "bf16"),
    (evaluate, "Speedups", lambda: Speedups(channels_last=False, fused_optimizer=False)),
]


@pytest.mark.parametrize("change", [*CHANGED, *ALIKE])
def test_a_run_is_stale_when_the_code_builds_or_trains_another_network(whole, monkeypatch, change):
    this = Run(tiny_config(), whole)
    monkeypatch.setattr(*change)
    assert this.stale.startswith("stale: ") if change in CHANGED else this.stale is None
    this.summary["fixed_answers"] = {}  # never kept, so nothing is known
    assert this.stale is None


def test_the_record_of_a_run_says_what_is_unknown_and_keeps_earlier_places(tmp_path, monkeypatch):
    start(tmp_path, 1)
    first = read_json(tmp_path / "environment.json")
    write_json(tmp_path / "environment.json", first | {"device_name": "elsewhere"})
    monkeypatch.setattr(run, "git", lambda *arguments: None)
    finish(tmp_path)
    record = read_json(tmp_path / "environment.json")
    assert record.pop("earlier") == [first | {"device_name": "elsewhere"}]
    assert record == first | {"commit": None, "uncommitted_changes": None}
