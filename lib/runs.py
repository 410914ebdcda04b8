"""Run folders on disk: atomic writing, locks, completeness, and all runs of a study as one table."""

import contextlib
import fcntl
import json
import os

import numpy as np
import pandas as pd

from lib.config import RunConfig, config_hash
from lib.errors import StudyError
from lib.paths import outputs_folder, run_folder, shown


def atomic_write(path, write):
    """Make `path` whole or not at all: `write(file)` fills a partial file that then takes its place.

    Raises StudyError where the folder cannot be written or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise StudyError(f"cannot write {shown(path)}: {reason}; free space or set STUDY_OUTPUTS") from None


def write_json(path, values):
    """Write plain values as indented JSON, atomically."""
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    atomic_write(path, lambda file: file.write(text.encode()))


def write_table(path, table):
    """Write a pandas table as CSV without its index, atomically."""
    atomic_write(path, lambda file: table.to_csv(file, index=False))


@contextlib.contextmanager
def lock(folder, what):
    """Hold `folder`/.lock while the body runs; raises StudyError at once when another process holds it.

    The lock ends with the process that took it, however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise StudyError(f"cannot write in {shown(folder)}: {error.strerror}; set STUDY_OUTPUTS") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"{what} is already being worked on by another process: wait for it or stop it") from None
        yield


def read_summary(folder, config):
    """The summary of a complete run, or None for a run that is missing or was cut short.

    Raises StudyError when the folder holds a complete run of other settings.
    """
    summary, stored = _read_json(folder / "summary.json"), _read_json(folder / "config.json")
    if summary is None or stored is None:
        return None
    if summary.get("config_hash") != config_hash(stored):
        raise StudyError(f"{shown(folder)}: summary.json does not belong to config.json; move the folder away")
    if RunConfig.from_dict(stored) != config:
        now = config.to_dict()
        changed = [
            f"{name} {stored.get(name)!r} there, {now[name]!r} here" for name in now if stored.get(name) != now[name]
        ]
        raise StudyError(
            f"{shown(folder)} holds a finished run of other settings ({'; '.join(changed)}): "
            "move it away, or give the changed study a name of its own"
        )
    return summary


def save_logits(path, logits, labels):
    """Write logits (N, classes) as float16 and labels (N,) as uint8, in test order, without pickles."""
    arrays = {"logits": logits.astype(np.float16), "labels": labels.astype(np.uint8)}
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))


def load_logits(folder):
    """Logits float32 (N, classes) and labels int64 (N,) of a run; raises StudyError for a damaged file."""
    path = folder / "test_logits.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["logits"].astype(np.float32), stored["labels"].astype(np.int64)
    except Exception as error:  # noqa: BLE001 zip, zlib, value and system errors all mean the same here
        raise StudyError(f"{shown(path)} is damaged ({error}): delete the folder and run again") from None


def finished_runs(study):
    """(config, folder, summary) of every complete run of a study, in the order of the study.

    Raises StudyError when they do not all stem from the same images.
    """
    found = []
    for config in study.runs:
        folder = run_folder(study.name, config.arm, config.seed)
        summary = read_summary(folder, config)
        if summary:
            found.append((config, folder, summary))
    sources = {(summary["data_source"], summary["data_fingerprint"]) for _, _, summary in found}
    if len(sources) > 1:
        names = ", ".join(f"{source} ({fingerprint[:12]})" for source, fingerprint in sorted(sources))
        raise StudyError(f"{shown(outputs_folder(study.name))} mixes runs on different images: {names}; move some away")
    return found


def load_runs(study):
    """One row for each complete run with its settings and its summary; raises StudyError as finished_runs does."""
    return pd.DataFrame([{**config.to_dict(), **summary} for config, _, summary in finished_runs(study)])


def load_metrics(study):
    """All rows of all metrics.csv of a study, with the columns arm and seed."""
    parts = [
        pd.read_csv(folder / "metrics.csv").assign(arm=config.arm, seed=config.seed)
        for config, folder, _ in finished_runs(study)
    ]
    return pd.concat(parts, ignore_index=True)


def load_predictions(study, arm, seeds):
    """Predicted classes int64 (runs, N) of one arm, in the order of `seeds`, and labels int64 (N,)."""
    logits, labels = zip(*(load_logits(run_folder(study.name, arm, seed)) for seed in seeds), strict=True)
    return np.stack([run.argmax(1) for run in logits]), labels[0]


def _read_json(path):
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
