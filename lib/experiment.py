"""One run from its config to a complete run folder: train, checkpoint, resume, test once, summarise."""

import csv
import datetime
import hashlib
import io
import time

import numpy as np
import torch

from lib.config import config_hash
from lib.data import split_indices
from lib.devices import choose_device, choose_precision, describe_environment
from lib.models import build_model, multiply_adds, parameter_count
from lib.runs import atomic_write, lock, read_summary, save_logits, write_json
from lib.training import Trainer

CHECKPOINT_SECONDS = 20  # training time between checkpoints, so that saving stays a small share of it


def execute_run(config, dataset, folder, on_epoch=None, checkpoint_seconds=CHECKPOINT_SECONDS):
    """Train, test and save one run; returns its summary. A complete run is returned as it is, a cut one resumed.

    config: RunConfig; dataset: Dataset; folder: where the run lives; on_epoch(rows): called after each epoch, and once
    before the first, with all rows of metrics so far. Raises StudyError for a run that fails or cannot be saved, and
    when another process works on the same folder.
    """
    with lock(folder, f"{config.arm} seed {config.seed}"):
        summary = read_summary(folder, config)
        if summary:
            return summary
        return _train_and_test(config, dataset, folder, on_epoch or (lambda rows: None), checkpoint_seconds)


def _train_and_test(config, dataset, folder, on_epoch, checkpoint_seconds):
    device = choose_device()
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    train, validation = split_indices(dataset.train_labels, config.train_fraction, config.validation_images)
    model = build_model(config, len(dataset.classes))
    costs = {"parameters": parameter_count(model), "multiply_adds": multiply_adds(model)}
    trainer = Trainer(config, model, dataset.train_images[train], dataset.train_labels[train], device, precision)
    fingerprint = dataset.fingerprint
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "environment.json", describe_environment(device, precision))

    identity = {"config_hash": config_hash(config.to_dict()), "data_fingerprint": fingerprint}
    rows = _resume(folder, trainer, identity)
    on_epoch(rows)
    saved = time.perf_counter()
    while trainer.epoch < config.epochs:
        row = trainer.train_epoch()
        if len(validation):
            images, labels = dataset.train_images[validation], dataset.train_labels[validation]
            row |= {f"val_{name}": value for name, value in _score(trainer.predict(images), labels).items()}
        rows.append(row)
        _write_metrics(folder, rows)
        if time.perf_counter() - saved >= checkpoint_seconds or trainer.epoch == config.epochs:
            _save_checkpoint(folder, trainer, rows, identity)
            saved = time.perf_counter()
        on_epoch(rows)

    logits = trainer.predict(dataset.test_images)
    # Scores come from the logits as they are stored, so that anyone gets the same numbers from the file.
    save_logits(folder / "test_logits.npz", logits, dataset.test_labels)
    scores = _score(logits.astype(np.float16).astype(np.float32), dataset.test_labels)
    summary = {
        **identity,
        "data_source": dataset.source,
        **{f"test_{name}": value for name, value in scores.items()},
        "logits_sha256": hashlib.sha256(logits.tobytes()).hexdigest(),
        **costs,
        "train_seconds": sum(row["train_seconds"] for row in rows),
        "device": device.type,
        "precision": precision,
        "finished_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "summary.json", summary)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return summary


def _score(logits, labels):
    """Accuracy (fraction) and mean negative log-likelihood (nats) of logits (N, classes)."""
    logits = logits.astype(np.float64)
    likelihood = logits[np.arange(len(labels)), labels] - np.logaddexp.reduce(logits, axis=1)
    return {"accuracy": float((logits.argmax(1) == labels).mean()), "loss": float(-likelihood.mean())}


def _save_checkpoint(folder, trainer, rows, identity):
    state = {"identity": identity, "rows": rows, "trainer": trainer.state()}
    atomic_write(folder / "checkpoint.pt", lambda file: torch.save(state, file))


def _resume(folder, trainer, identity):
    """Bring the trainer to the last checkpoint of the same config and images; returns its rows of metrics, or []."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return []
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        if state["identity"] != identity:
            return []
        trainer.restore(state["trainer"])
        return state["rows"]
    except Exception:  # noqa: BLE001 a damaged checkpoint of any kind costs time, never correctness
        return []


def _write_metrics(folder, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "metrics.csv", lambda file: file.write(text.getvalue().encode()))
