"""What a run leaves in its folder, and how it is read back; no torch.

config.json, the settings; environment.json, versions, machine and commit; metrics.csv, a row an epoch; test_logits.npz,
the answers to the test images; gates.csv and lesions.csv, of networks with gates; and last summary.json, which makes
the run complete. While it trains, checkpoint.pt; where it diverged, failure.json; and papermill leaves notebook.ipynb.
"""

import hashlib
import io
import json
import zipfile

import numpy as np
import pandas as pd

from lib.files import StudyError, atomic_write, read_json, run_folder, shown

SUMMARY_KEYS = {"config_hash", "data_source", "data_fingerprint", "precision", "parameters", "train_seconds"}


def config_hash(values):
    """First 16 hex digits of the SHA-256 of a run's settings, a mapping of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def read_summary(folder, config):
    """The summary of a complete run, or None for a run that is missing or was cut short.

    Raises StudyError when the folder holds a complete run of other settings.
    """
    summary, stored = read_json(folder / "summary.json"), read_json(folder / "config.json")
    if summary is None or stored is None:
        return None
    part = "val" if stored.get("validation_images") else "test"
    if not set(summary) >= SUMMARY_KEYS | {f"{part}_accuracy", f"{part}_loss"}:
        return None
    if summary["config_hash"] != config_hash(stored):
        raise StudyError(f"{shown(folder)}: summary.json does not belong to config.json; move the folder away")
    if changed := config.differences(stored):
        other = f"{shown(folder)} holds a finished run of other settings ({'; '.join(changed)})"
        raise StudyError(f"{other}: move it away, or give the changed study a name of its own")
    return summary


def diverged_runs(study):
    """(config, folder, why) of every run that has diverged; they are excluded, and not repeated by themselves."""
    found = []
    for config in study.runs:
        folder = run_folder(study.name, config.arm, config.seed)
        failure, stored = read_json(folder / "failure.json"), read_json(folder / "config.json")
        if failure and stored and not config.differences(stored):
            found.append((config, folder, failure.get("reason", "no reason was kept")))
    return found


def finished_runs(study):
    """(config, folder, summary) of every complete run of a study, in the order of the study.

    Raises StudyError when they do not all stem from the same images.
    """
    found, folders = [], {}
    for config in study.runs:
        folder = run_folder(study.name, config.arm, config.seed)
        if summary := read_summary(folder, config):
            found.append((config, folder, summary))
            folders.setdefault(summary["data_fingerprint"], []).append(shown(folder))
    if len(folders) > 1:
        *others, most = sorted(folders.values(), key=len)
        raise StudyError(f"{', '.join(sum(others, []))} saw different images than {most[0]}: move them away")
    return found


def stored_logits(logits):
    """Logits (N, classes) as they are stored, float16: rounded to 1/32, which makes the archive smaller.

    The largest of a row stays the largest, so that no prediction changes; too large for float16 becomes infinite.
    """
    with np.errstate(over="ignore"):
        rounded = (np.round(logits * 32) / 32).astype(np.float16)
    best = logits.argmax(1)
    tied = np.flatnonzero(rounded.argmax(1) != best)
    rounded[tied, best[tied]] = np.nextafter(rounded[tied, best[tied]], np.float16(np.inf))
    return rounded


def save_arrays(path, **arrays):
    """Write named arrays as a compressed archive for np.load, without pickles, atomically."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_BZIP2) as archive:  # a sixth smaller than np.savez_compressed
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    atomic_write(path, buffer.getvalue())


def load_logits(folder):
    """Logits float32 (N, classes) and labels int64 (N,) of a run; raises StudyError for a missing or damaged file."""
    path = folder / "test_logits.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["logits"].astype(np.float32), stored["labels"].astype(np.int64)
    except Exception as error:  # noqa: BLE001 zip, zlib, value and system errors all mean the same here
        raise _damaged(path, error) from None


def load_table(folder, name):
    """One CSV file of a run folder as a DataFrame; raises StudyError for a missing or damaged file."""
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        return pd.read_csv(io.StringIO(text))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path, error):
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return StudyError(f"{shown(path)} is missing or damaged ({reason}): delete its folder and run again")
