import csv
import dataclasses
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lib import devices, evaluation, experiment
from lib.data import split_indices
from lib.errors import DivergedError, StudyError
from lib.experiment import execute_run
from lib.models import build_model, parameter_count
from lib.paths import ROOT
from lib.runs import load_logits, read_json, read_summary, save_arrays, save_logits
from lib.training import Trainer

RECORDS = {"config.json", "environment.json", "metrics.csv"}
FILES = RECORDS | {"summary.json", "test_logits.npz", "corruptions.csv", "gates.csv", "gates.npz", "interventions.csv"}
PROBED = 8  # test images that are corrupted, so that a run stays short


class Interruption(Exception):
    pass


def interrupt(config, dataset, folder, epoch, checkpoint_seconds=0):
    """Runs up to the end of `epoch` and stops there, like a person or a time limit would."""

    def stop(rows):
        if len(rows) == epoch:
            raise Interruption

    with pytest.raises(Interruption):
        execute_run(config, dataset, folder, stop, checkpoint_seconds)


def read_metrics(folder):
    return list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text())))


def contents(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def make_config(make_config):
    return functools.partial(make_config, probe_images=PROBED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_config, dataset):
    """Folder of one run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "seed-00"
    execute_run(make_config(), dataset, folder)
    return folder


@pytest.fixture(scope="module")
def expected_hash(whole):
    return json.loads((whole / "summary.json").read_text())["logits_sha256"]


def test_complete_run_leaves_the_files_of_a_run_folder(whole):
    assert {path.name for path in whole.iterdir()} - {".lock"} == FILES


def test_config_is_kept(whole, make_config):
    assert json.loads((whole / "config.json").read_text()) == make_config().to_dict()


def test_scores_follow_from_the_stored_logits_alone(whole, dataset):
    summary = json.loads((whole / "summary.json").read_text())
    logits, labels = load_logits(whole)
    shares = np.exp(logits.astype(float))
    shares /= shares.sum(1, keepdims=True)
    assert summary["test_accuracy"] == np.mean(
        [row.argmax() == label for row, label in zip(logits, labels, strict=True)]
    )
    assert summary["test_loss"] == pytest.approx(-np.mean(np.log(shares[np.arange(len(labels)), labels])))
    np.testing.assert_array_equal(labels, dataset.test_labels)


def test_summary_says_what_was_trained_on_what(whole, dataset, make_config):
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["data_fingerprint"] == dataset.fingerprint
    assert summary["data_source"] == "digits"
    assert summary["parameters"] == parameter_count(build_model(make_config(), 10))
    assert (summary["device"], summary["precision"]) == ("cpu", "fp32")
    assert summary["train_seconds"] == pytest.approx(sum(float(row["train_seconds"]) for row in read_metrics(whole)))
    assert summary["evaluation_seconds"] > 0


def test_summary_holds_what_was_asked_beyond_accuracy(whole):
    summary = json.loads((whole / "summary.json").read_text())
    corruptions = pd.read_csv(whole / "corruptions.csv")
    assert len(corruptions) == 40
    assert summary["corruption_accuracy"] == pytest.approx(corruptions["accuracy"].mean())
    assert 0 <= summary["test_ece"] <= 1
    assert summary["lossless_accuracy"] is None
    assert not any(name.startswith("val_") for name in summary)


def test_metrics_have_one_row_an_epoch(whole):
    rows = read_metrics(whole)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"learning_rate", "train_loss", "train_accuracy", "train_seconds", "images_per_second"} < set(rows[0])
    assert not any(name.startswith(("val_", "test_")) for name in rows[0])


def test_records_name_no_path_or_host(whole):
    for path in whole.glob("*.json"):
        for private in (str(ROOT), str(whole.parent), str(Path.home()) + "/", socket.gethostname()):
            assert private not in path.read_text()


def test_run_folder_of_full_size_is_small(whole, tmp_path):
    random = np.random.default_rng(0)
    save_logits(tmp_path / "test_logits.npz", random.normal(0, 5, (10_000, 10)), np.zeros(10_000))
    save_logits(tmp_path / "lossless_logits.npz", random.normal(0, 5, (1017, 10)), np.zeros(1017))
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    gates = {f"block{number}": random.random((10, width)).astype(np.float16) for number, width in enumerate(widths, 1)}
    save_arrays(tmp_path / "gates.npz", **gates)
    large = {path.name for path in tmp_path.glob("*.npz")}
    others = sum((whole / name).stat().st_size for name in FILES - large - {"metrics.csv"})
    metrics = (whole / "metrics.csv").stat().st_size / 3 * 200
    assert sum((tmp_path / name).stat().st_size for name in large) + others + metrics < 300_000


def test_complete_run_is_returned_and_not_touched(whole, make_config, dataset):
    before = contents(whole)
    calls = []
    summary = execute_run(make_config(), dataset, whole, calls.append)
    after = contents(whole)
    assert {name: after[name] for name in FILES} == {name: before[name] for name in FILES}
    assert summary == json.loads((whole / "summary.json").read_text())
    assert calls == []


def test_complete_run_of_other_settings_is_not_overwritten(whole, make_config, dataset):
    before = contents(whole)
    with pytest.raises(StudyError, match="epochs 3 there, 2 here"):
        execute_run(make_config(epochs=2), dataset, whole)
    after = contents(whole)
    assert {name: after[name] for name in FILES} == {name: before[name] for name in FILES}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"architecture": "resnet18"}])
def test_another_seed_or_architecture_gives_another_network(tmp_path, make_config, dataset, expected_hash, changes):
    assert execute_run(make_config(**changes), dataset, tmp_path)["logits_sha256"] != expected_hash


def test_rows_are_reported_before_the_first_epoch_and_after_each(tmp_path, make_config, dataset):
    lengths = []
    execute_run(make_config(epochs=2), dataset, tmp_path, lambda rows: lengths.append(len(rows)))
    assert lengths == [0, 1, 2]


def spy_on_predictions(monkeypatch):
    """A list that grows by (finished epochs, images) with every prediction."""
    seen, predict = [], Trainer.predict
    monkeypatch.setattr(
        Trainer, "predict", lambda self, images: seen.append((self.epoch, images)) or predict(self, images)
    )
    return seen


def test_test_images_are_predicted_once_and_after_the_last_epoch(tmp_path, monkeypatch, make_config, dataset):
    seen = spy_on_predictions(monkeypatch)
    execute_run(make_config(epochs=2), dataset, tmp_path)
    assert {epoch for epoch, _ in seen} == {2}
    assert [len(images) for _, images in seen if len(images) != PROBED] == [len(dataset.test_images)]
    np.testing.assert_array_equal(seen[0][1], dataset.test_images)


@pytest.fixture
def without_test_images(dataset):
    """The data set with test images that no network can read and labels that no class has."""
    return dataclasses.replace(dataset, test_images=np.zeros((5, 7), np.uint8), test_labels=np.full(3, 99, np.uint8))


def test_test_images_that_cannot_be_read_fail_a_run_that_reads_them(tmp_path, make_config, without_test_images):
    with pytest.raises(RuntimeError):
        execute_run(make_config(epochs=1), without_test_images, tmp_path)


def test_run_with_held_out_images_never_reads_the_test_images(tmp_path, monkeypatch, make_config, without_test_images):
    seen = spy_on_predictions(monkeypatch)
    config = make_config(validation_images=20, batch_size=16, epochs=2)
    summary = execute_run(config, without_test_images, tmp_path)
    _, validation = split_indices(without_test_images.train_labels, 1.0, 20)
    ((epoch, images),) = seen
    assert epoch == 2
    np.testing.assert_array_equal(images, without_test_images.train_images[validation])
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == RECORDS | {"summary.json"}
    assert {"val_accuracy", "val_loss"} < set(summary)
    assert not any(name.startswith(("test_", "corruption_", "lossless_")) for name in summary)
    rows = read_metrics(tmp_path)
    assert len(rows) == 2 and not any(name.startswith(("val_", "test_")) for name in rows[0])


def test_validation_scores_are_those_of_a_network_trained_on_the_other_images(tmp_path, make_config, dataset):
    config = make_config(validation_images=20, batch_size=16, epochs=2)
    summary = execute_run(config, dataset, tmp_path)
    train, validation = split_indices(dataset.train_labels, 1.0, 20)
    model = build_model(config, 10)
    arrays = dataset.train_images[train], dataset.train_labels[train]
    trainer = Trainer(config, model, *arrays, torch.device("cpu"), "fp32")
    for _ in range(2):
        trainer.train_epoch()
    logits, labels = trainer.predict(dataset.train_images[validation]), dataset.train_labels[validation]
    assert summary["val_accuracy"] == np.mean(logits.argmax(1) == labels)
    shares = torch.from_numpy(logits).double().log_softmax(1).numpy()
    assert summary["val_loss"] == pytest.approx(-shares[np.arange(20), labels].mean())


def test_both_arms_and_all_cells_hold_out_the_same_images(tmp_path, monkeypatch, make_config, dataset):
    trained, held_out = [], []

    class Spy(Trainer):
        def __init__(self, config, model, images, *arguments):
            trained.append(images)
            super().__init__(config, model, images, *arguments)

        def predict(self, images):
            held_out.append(images)
            return super().predict(images)

    monkeypatch.setattr(experiment, "Trainer", Spy)
    cells = [
        {"architecture": architecture, "learning_rate": rate, "seed": seed}
        for architecture, rate, seed in (("resnet18", 0.1, 0), ("se_resnet18", 0.1, 0), ("se_resnet18", 0.05, 1))
    ]
    for index, cell in enumerate(cells):
        config = make_config(validation_images=20, batch_size=16, epochs=1, **cell)
        execute_run(config, dataset, tmp_path / str(index))
    assert (len(trained), len(held_out)) == (3, 3)
    for one, other in ((trained, trained[0]), (held_out, held_out[0])):
        assert all(np.array_equal(images, other) for images in one)
    train, validation = split_indices(dataset.train_labels, 1.0, 20)
    assert not set(train) & set(validation)
    np.testing.assert_array_equal(trained[0], dataset.train_images[train])
    np.testing.assert_array_equal(held_out[0], dataset.train_images[validation])


def test_interrupted_run_with_held_out_images_ends_like_an_uninterrupted_one(tmp_path, make_config, dataset):
    config = make_config(validation_images=20, batch_size=16)
    interrupt(config, dataset, tmp_path / "cut", 2)
    summaries = [execute_run(config, dataset, tmp_path / name) for name in ("cut", "whole")]
    assert summaries[0]["val_loss"] == summaries[1]["val_loss"]


def results(folder):
    """The files of a run that hold what the analysis reads of the network."""
    return {path.name: path.read_bytes() for path in folder.glob("*.csv") if path.name != "metrics.csv"} | {
        f"{path.name}/{name}": array.tobytes()
        for path in folder.glob("*.npz")
        for name, array in np.load(path, allow_pickle=False).items()
    }


@pytest.mark.fault(
    "a run cut short at each step of its evaluation", "it is evaluated again from its last epoch, with the same results"
)
@pytest.mark.parametrize("step", ["corruption_scores", "_evaluate_lossless", "_save_gates", "interventions"])
def test_killed_evaluation_is_repeated_from_the_last_epoch(
    tmp_path, monkeypatch, make_config, dataset, whole, expected_hash, step
):
    def stop(*arguments):
        raise Interruption

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(evaluation, step, stop)
        execute_run(make_config(), dataset, tmp_path, checkpoint_seconds=1000)
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "test_logits.npz").exists()
    resumed_with = []
    summary = execute_run(make_config(), dataset, tmp_path, lambda rows: resumed_with.append(len(rows)))
    assert resumed_with == [3]
    assert summary["logits_sha256"] == expected_hash
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == FILES
    assert results(tmp_path) == results(whole)


def test_half_of_the_images_is_an_epoch_of_half_the_steps(tmp_path, make_config, dataset):
    trained = []
    execute_run(make_config(train_fraction=0.5, batch_size=16, epochs=1), dataset, tmp_path, trained.append)
    row = trained[-1][0]
    assert row["images_per_second"] * row["train_seconds"] == pytest.approx(48)


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, make_config, dataset, expected_hash, whole, epoch):
    interrupt(make_config(), dataset, tmp_path, epoch)
    assert not (tmp_path / "summary.json").exists()
    resumed_with = []
    summary = execute_run(make_config(), dataset, tmp_path, lambda rows: resumed_with.append(len(rows)))
    assert resumed_with == list(range(epoch, 4))
    assert summary["logits_sha256"] == expected_hash
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == FILES
    assert results(tmp_path) == results(whole)
    timed = {"train_seconds", "images_per_second"}
    for row, reference in zip(read_metrics(tmp_path), read_metrics(whole), strict=True):
        assert {name: row[name] for name in set(row) - timed} == {name: reference[name] for name in set(row) - timed}


def test_run_interrupted_twice_has_one_row_an_epoch(tmp_path, make_config, dataset, expected_hash):
    interrupt(make_config(), dataset, tmp_path, 1)
    interrupt(make_config(), dataset, tmp_path, 2, checkpoint_seconds=1000)
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


def test_run_interrupted_before_its_first_checkpoint_starts_over(tmp_path, make_config, dataset, expected_hash):
    interrupt(make_config(), dataset, tmp_path, 2, checkpoint_seconds=1000)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


@pytest.mark.parametrize("steps", [3, 8])  # of three an epoch
def test_a_person_who_interrupts_loses_the_current_epoch_only(
    tmp_path, monkeypatch, make_config, dataset, expected_hash, whole, steps
):
    taken, step = [], Trainer._step

    def interrupted_step(self):
        step(self)
        taken.append(1)
        if len(taken) == steps:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", interrupted_step)
        execute_run(make_config(), dataset, tmp_path, checkpoint_seconds=1000)
    resumed_with = []
    summary = execute_run(make_config(), dataset, tmp_path, lambda rows: resumed_with.append(len(rows)))
    assert resumed_with[0] == (steps - 1) // 3
    assert summary["logits_sha256"] == expected_hash
    assert results(tmp_path) == results(whole)
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


def test_an_interruption_between_two_epochs_loses_nothing(tmp_path, make_config, dataset, expected_hash):
    def stop(rows):
        if len(rows) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_run(make_config(), dataset, tmp_path, stop, checkpoint_seconds=1000)
    trained = read_metrics(tmp_path)
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash
    assert read_metrics(tmp_path)[:2] == trained  # their times too: they were not trained again


CHILD = """
import sys, time
from pathlib import Path
from conftest import tiny_config, tiny_dataset
from lib.experiment import execute_run
config, folder = tiny_config(probe_images=8), Path(sys.argv[1])
execute_run(config, tiny_dataset(), folder, lambda rows: time.sleep(0.5), checkpoint_seconds=0)
"""


@pytest.mark.fault(
    "kill -9 of a training, while a second one asks for the same run",
    "the second is refused in one line; afterwards the run goes on and ends with the same logits",
)
def test_killed_run_resumes_and_ends_like_an_uninterrupted_one(tmp_path, make_config, dataset, expected_hash):
    folder = tmp_path / "seed-00"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder], env=os.environ | {"PYTHONPATH": paths})
    try:
        deadline = time.monotonic() + 120
        while not (folder / "metrics.csv").exists() or len(read_metrics(folder)) < 2:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(StudyError, match="already being worked on by another process"):
            execute_run(make_config(), dataset, folder)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (folder / "summary.json").exists()
    resumed_with = []
    summary = execute_run(make_config(), dataset, folder, lambda rows: resumed_with.append(len(rows)))
    assert resumed_with[0] >= 1
    assert summary["logits_sha256"] == expected_hash
    assert [row["epoch"] for row in read_metrics(folder)] == ["1", "2", "3"]


def flip_a_bit(share):
    """A damage that hits one bit at a share of the file's length."""

    def damage(content):
        position = int(share * len(content))
        return content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]

    return damage


@pytest.mark.fault(
    "a checkpoint that is empty, truncated, foreign or has one wrong bit",
    "the run starts over and ends with the same logits",
)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-5000], id="truncated"),
        pytest.param(lambda content: b"not a checkpoint", id="foreign"),
        *[pytest.param(flip_a_bit(share), id=f"one bit at {share}") for share in (0.2, 0.5, 0.8)],
    ],
)
def test_damaged_checkpoint_costs_time_and_nothing_else(tmp_path, make_config, dataset, expected_hash, damage):
    interrupt(make_config(), dataset, tmp_path, 2)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    resumed_with = []
    summary = execute_run(make_config(), dataset, tmp_path, lambda rows: resumed_with.append(len(rows)))
    assert summary["logits_sha256"] == expected_hash
    assert resumed_with[0] == 0
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


@pytest.mark.parametrize("missing", ["model", "optimizer", "scaler", "epoch"])
def test_checkpoint_of_another_version_is_ignored(tmp_path, monkeypatch, make_config, dataset, expected_hash, missing):
    state = Trainer.state
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "state", lambda self: {k: v for k, v in state(self).items() if k != missing})
        interrupt(make_config(), dataset, tmp_path, 2)
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash
    assert [row["epoch"] for row in read_metrics(tmp_path)] == ["1", "2", "3"]


def test_checkpoint_of_another_config_is_ignored(tmp_path, make_config, dataset, expected_hash):
    interrupt(make_config(seed=1), dataset, tmp_path, 2)
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_checkpoint_of_other_images_is_ignored(tmp_path, make_config, dataset, expected_hash):
    other = dataclasses.replace(dataset, train_images=dataset.train_images[::-1].copy())
    interrupt(make_config(), other, tmp_path, 2)
    assert execute_run(make_config(), dataset, tmp_path)["logits_sha256"] == expected_hash


def test_checkpoint_in_another_precision_is_ignored(tmp_path, monkeypatch, make_config, dataset):
    config = make_config(precision="auto")
    monkeypatch.setattr(devices, "choose_precision", lambda device: "fp32")
    interrupt(config, dataset, tmp_path / "cut", 2)
    monkeypatch.setattr(devices, "choose_precision", lambda device: "bf16")
    resumed, reference = (execute_run(config, dataset, tmp_path / name) for name in ("cut", "whole"))
    assert resumed["precision"] == "bf16"
    assert resumed["logits_sha256"] == reference["logits_sha256"]


@pytest.mark.fault(
    "parts of files and checkpoints left in a run folder by a killed process", "the next start removes them"
)
@pytest.mark.parametrize("left", ["checkpoint.pt", "checkpoint.pt.partial-99999", "summary.json.partial-99999"])
def test_what_a_killed_process_left_is_cleared_away(tmp_path, make_config, dataset, whole, left):
    for name, state in (("complete", whole), ("cut", None)):
        folder = tmp_path / name
        shutil.copytree(state, folder) if state else folder.mkdir()
        (folder / left).write_bytes(b"left")
        execute_run(make_config(), dataset, folder)
        assert {path.name for path in folder.iterdir()} - {".lock"} == FILES


def test_run_that_goes_on_elsewhere_keeps_the_earlier_environments(tmp_path, make_config, dataset):
    for epoch, elsewhere in ((1, "first"), (2, "second")):
        interrupt(make_config(), dataset, tmp_path, epoch)
        record = json.loads((tmp_path / "environment.json").read_text())
        (tmp_path / "environment.json").write_text(json.dumps(record | {"device_name": elsewhere}))
    execute_run(make_config(), dataset, tmp_path)
    record = json.loads((tmp_path / "environment.json").read_text())
    assert [earlier["device_name"] for earlier in record["earlier"]] == ["first", "second"]
    assert record["device_name"] == devices.device_name(torch.device("cpu"))


@pytest.mark.filterwarnings("error")
def test_run_whose_last_update_spoils_the_network_names_the_learning_rate(tmp_path, make_config, dataset):
    config = make_config(epochs=1, warmup_epochs=0, learning_rate=100.0, batch_size=96)
    with pytest.raises(StudyError, match="learning_rate"):
        execute_run(config, dataset, tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_more_validation_images_than_images_are_refused(tmp_path, make_config, dataset):
    with pytest.raises(StudyError, match="validation_images"):
        execute_run(make_config(validation_images=120, train_fraction=0.5, batch_size=16), dataset, tmp_path)


@pytest.mark.fault(
    "a disk that is full when the checkpoint is saved",
    "the run ends in one line; no part of a file is left, and it does not count as complete",
)
def test_full_disk_ends_the_run_in_one_line(small_disk, make_config, dataset):
    with pytest.raises(StudyError, match=r"cannot write .*checkpoint\.pt.*free space or set STUDY_OUTPUTS") as caught:
        execute_run(make_config(), dataset, small_disk / "seed-00", checkpoint_seconds=0)
    assert "\n" not in str(caught.value)
    assert "space" in str(caught.value).split(";")[0].lower()
    assert {path.name for path in (small_disk / "seed-00").iterdir()} == RECORDS | {".lock"}


def test_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path, make_config, dataset):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write in .*STUDY_OUTPUTS"):
        execute_run(make_config(), dataset, tmp_path / "file" / "seed-00")


def test_checkpoints_are_as_far_apart_as_asked_for(tmp_path, monkeypatch, make_config, dataset):
    saved = []
    save = experiment._save_checkpoint
    monkeypatch.setattr(experiment, "_save_checkpoint", lambda *arguments: saved.append(1) or save(*arguments))
    execute_run(make_config(), dataset, tmp_path, checkpoint_seconds=1000)
    assert len(saved) == 1


def diverge(trainer):
    raise DivergedError("the training loss is nan in epoch 1")


def test_a_run_that_diverges_fails_and_leaves_its_reason_until_it_succeeds(tmp_path, make_config, dataset, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", diverge)
        with pytest.raises(StudyError, match="nan in epoch 1"):
            execute_run(make_config(), dataset, tmp_path)
    assert read_json(tmp_path / "failure.json")["reason"] == "the training loss is nan in epoch 1"
    assert not (tmp_path / "summary.json").exists()
    execute_run(make_config(), dataset, tmp_path)
    assert not (tmp_path / "failure.json").exists()


def test_a_run_of_the_tuning_that_diverges_counts_as_accuracy_zero(tmp_path, make_config, dataset, monkeypatch):
    monkeypatch.setattr(Trainer, "train_epoch", diverge)
    config = make_config(validation_images=20, batch_size=16)
    summary = execute_run(config, dataset, tmp_path)
    assert summary["val_accuracy"] == 0 and "nan in epoch 1" in summary["diverged"]
    assert read_summary(tmp_path, config) == summary
