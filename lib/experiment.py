"""One run from its config to a complete run folder: train, checkpoint, resume, test once, summarise."""

import copy
import csv
import datetime
import hashlib
import io
import time

import torch

from lib.config import config_hash
from lib.data import split_indices
from lib.devices import choose_device, describe_environment, resolve_precision
from lib.errors import DivergedError
from lib.evaluation import evaluate_on_held_out, evaluate_on_test
from lib.fixedanswers import fixed_answers
from lib.models import build_model, multiply_adds, parameter_count
from lib.runs import atomic_write, lock, read_json, read_summary, write_json
from lib.training import Trainer

CHECKPOINT_SECONDS = 20  # training time between checkpoints, so that saving stays a small share of it


def execute_run(config, dataset, folder, on_epoch=None, checkpoint_seconds=CHECKPOINT_SECONDS):
    """Train, test and save one run; returns its summary. A complete run is returned as it is, a cut one resumed.

    config: RunConfig; dataset: Dataset; folder: where the run lives; on_epoch(rows): called after each epoch, and once
    before the first, with all rows of metrics so far. Raises StudyError for a run that fails or cannot be saved, and
    when another process works on the same folder. KeyboardInterrupt passes through when the last whole epoch is saved.
    """
    with lock(folder, f"{config.arm} seed {config.seed}"):
        for left in folder.glob("*.partial-*"):  # by a process that was killed
            left.unlink()
        summary = read_summary(folder, config)
        if summary:
            (folder / "checkpoint.pt").unlink(missing_ok=True)
            return summary
        return _train_and_test(config, dataset, folder, on_epoch or (lambda rows: None), checkpoint_seconds)


def _train_and_test(config, dataset, folder, on_epoch, checkpoint_seconds):
    device = choose_device()
    precision = resolve_precision(config, device)
    identity = {"config_hash": config_hash(config.to_dict()), "data_fingerprint": dataset.fingerprint}
    machine = {"device": device.type, "precision": precision}
    train, validation = split_indices(dataset.train_labels, config.validation_images)

    def new_trainer():
        model = build_model(config, len(dataset.classes))
        return Trainer(config, model, dataset.train_images[train], dataset.train_labels[train], device, precision)

    trainer, rows = _resumed(folder, new_trainer, identity | machine)
    costs = {"parameters": parameter_count(trainer.model), "multiply_adds": multiply_adds(trainer.model)}
    write_json(folder / "config.json", config.to_dict())
    _write_environment(folder, describe_environment(device, precision), resumed=bool(rows))
    on_epoch(rows)
    try:
        _train(config, folder, trainer, rows, identity | machine, on_epoch, checkpoint_seconds)
        started = time.perf_counter()
        if config.validation_images:
            scores = evaluate_on_held_out(trainer, dataset.train_images[validation], dataset.train_labels[validation])
        else:
            scores = evaluate_on_test(trainer, dataset, folder)
        scores["evaluation_seconds"] = time.perf_counter() - started
    except DivergedError as error:
        if not config.validation_images:
            write_json(folder / "failure.json", {"reason": str(error), "finished_utc": _now()})
            raise
        scores = {"val_accuracy": 0.0, "val_loss": None, "diverged": str(error)}  # settings that diverge cannot win
    summary = {
        **identity,
        "data_source": dataset.source,
        **scores,
        **costs,
        "train_seconds": sum(row["train_seconds"] for row in rows),
        **machine,
        "fixed_answers": fixed_answers(config, len(dataset.classes)),
        "finished_utc": _now(),
    }
    write_json(folder / "summary.json", summary)
    for left in ("checkpoint.pt", "failure.json"):
        (folder / left).unlink(missing_ok=True)
    return summary


def _train(config, folder, trainer, rows, identity, on_epoch, checkpoint_seconds):
    """Train the epochs that are left; `rows` gets a row of metrics for each.

    A person who interrupts loses the current epoch only: the state before it, kept in memory, becomes the checkpoint.
    """
    saved, unsaved = time.perf_counter(), None
    try:
        while trainer.epoch < config.epochs:
            rows.append(trainer.train_epoch())
            due = time.perf_counter() - saved >= checkpoint_seconds or trainer.epoch == config.epochs
            if not due:
                unsaved = copy.deepcopy((trainer.state(), rows))  # the next epoch changes both in place
            _write_metrics(folder, rows)
            if due:
                _save_checkpoint(folder, trainer.state(), rows, identity)
                saved, unsaved = time.perf_counter(), None
            on_epoch(rows)
    except KeyboardInterrupt:
        if unsaved:
            _save_checkpoint(folder, *unsaved, identity)
        raise


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _save_checkpoint(folder, state, rows, identity):
    buffer = io.BytesIO()
    torch.save({"identity": identity, "rows": rows, "trainer": state}, buffer)
    content = buffer.getvalue()
    atomic_write(folder / "checkpoint.pt", lambda file: file.write(hashlib.sha256(content).digest() + content))


def _resumed(folder, new_trainer, identity):
    """A trainer at the last checkpoint of the same config, images and machine, and its rows of metrics.

    Where there is no such checkpoint, or a damaged one, a trainer at its start and no rows.
    """
    trainer = new_trainer()
    path = folder / "checkpoint.pt"
    if not path.exists():
        return trainer, []
    try:
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        state = torch.load(io.BytesIO(content), map_location=trainer.device, weights_only=True)
        if hashlib.sha256(content).digest() == digest and state["identity"] == identity:
            trainer.restore(state["trainer"])
            return trainer, state["rows"]
    except Exception:  # noqa: BLE001 whatever is wrong with it, the run starts over
        pass
    return new_trainer(), []  # a restore that failed half-way has touched the first one


def _write_environment(folder, environment, resumed):
    """Write environment.json; a run that goes on elsewhere, or with other code, keeps the earlier records in it."""
    path = folder / "environment.json"
    earlier = read_json(path) if resumed else None
    if earlier:
        history = earlier.pop("earlier", [])
        environment = environment | {"earlier": history + [earlier] * (earlier != environment)}
    write_json(path, environment)


def _write_metrics(folder, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", lambda file: file.write(text.getvalue().encode()))
