"""Run folders on disk: atomic writing, locks, completeness, and all runs of a study as one table."""

import contextlib
import fcntl
import io
import json
import os
import socket

import numpy as np
import pandas as pd

from lib.config import RunConfig, config_hash
from lib.errors import StudyError
from lib.paths import outputs_folder, run_folder, shown

ORIGIN_KEYS = ("data_source", "data_fingerprint", "precision")  # equal in all runs that are compared
SUMMARY_KEYS = {*ORIGIN_KEYS, "config_hash", "parameters", "train_seconds"}


def atomic_write(path, write, remedy="free space or set STUDY_OUTPUTS"):
    """Make `path` whole or not at all: `write(file)` fills a partial file that then takes its place.

    Partial files of `path` that processes killed on this machine have left are removed. Raises StudyError, which ends
    with the remedy, where the folder cannot be written or the disk is full.
    """
    mark = f"{path.name}.partial-{socket.gethostname()}-"
    partial = path.with_name(f"{mark}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, mark)
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = error.strerror or "the system gives no reason"
        raise StudyError(f"cannot write {shown(path)}: {reason}; {remedy}") from None


def _remove_abandoned(folder, mark):
    """Remove the files named `mark` and a process number whose processes are gone."""
    for left in folder.iterdir():
        number = left.name.removeprefix(mark)
        if left.name.startswith(mark) and number.isdecimal() and not _is_alive(int(number)):
            with contextlib.suppress(OSError):  # it is another user's, and stays
                left.unlink(missing_ok=True)


def _is_alive(process):
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # the latter for a number that no process has
        return False
    except PermissionError:  # it is another user's
        return True
    return True


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
        except OSError as error:
            reason = f"{shown(folder)} is on a disk without file locks ({error.strerror})"
            raise StudyError(f"{reason}: set STUDY_OUTPUTS to a folder on another disk") from None
        yield


def read_summary(folder, config):
    """The summary of a complete run, or None for a run that is missing or was cut short.

    Settings that are newer than the run count as their defaults. Raises StudyError when the folder holds a complete run
    of other settings.
    """
    summary, stored = read_json(folder / "summary.json"), read_json(folder / "config.json")
    if summary is None or stored is None:
        return None
    part = "val" if stored.get("validation_images") else "test"
    if not set(summary) >= SUMMARY_KEYS | {f"{part}_accuracy", f"{part}_loss"}:
        return None
    if summary["config_hash"] != config_hash(stored):
        raise StudyError(f"{shown(folder)}: summary.json does not belong to config.json; move the folder away")
    if not _same_settings(stored, config):
        now = config.to_dict()
        changed = [
            f"{name} {stored.get(name)!r} there, {now.get(name)!r} here"
            for name in {**now, **stored}
            if stored.get(name) != now.get(name)
        ]
        raise StudyError(
            f"{shown(folder)} holds a finished run of other settings ({'; '.join(changed)}): "
            "move it away, or give the changed study a name of its own"
        )
    return summary


def _same_settings(stored, config):
    try:
        return RunConfig.from_dict(stored) == config
    except (StudyError, TypeError):  # settings that are unknown, out of range or missing today
        return False


def stored_logits(logits):
    """Logits (N, classes) as they are stored, float16: rounded to 1/32, which takes a third less room in the archive.

    The largest of a row stays the largest, so that no prediction changes; too large for float16 becomes infinite.
    """
    with np.errstate(over="ignore"):
        rounded = (np.round(logits * 32) / 32).astype(np.float16)
    best = logits.argmax(1)
    tied = np.flatnonzero(rounded.argmax(1) != best)
    rounded[tied, best[tied]] = np.nextafter(rounded[tied, best[tied]], np.float16(np.inf))
    return rounded


def save_logits(path, logits, labels):
    """Write logits (N, classes) as stored_logits gives them and labels (N,) as uint8, in test order."""
    save_arrays(path, logits=stored_logits(logits), labels=labels.astype(np.uint8))


def save_arrays(path, **arrays):
    """Write named arrays as a compressed archive without pickles, atomically."""
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

    Raises StudyError when they do not all stem from the same images, trained in the same precision.
    """
    found = []
    for config in study.runs:
        folder = run_folder(study.name, config.arm, config.seed)
        summary = read_summary(folder, config)
        if summary:
            found.append((config, folder, summary))
    origins = sorted({tuple(summary[key] for key in ORIGIN_KEYS) for _, _, summary in found})
    if len(origins) > 1:
        names = ", ".join(f"{source} ({fingerprint[:12]}) in {precision}" for source, fingerprint, precision in origins)
        raise StudyError(
            f"{shown(outputs_folder(study.name))} mixes runs that cannot be compared: {names}; move some away"
        )
    return found


def load_runs(study):
    """One row for each complete run on the test images with its settings and its summary.

    Raises StudyError as finished_runs does.
    """
    rows = []
    for config, folder, summary in finished_runs(study):
        if config.validation_images:
            continue
        environment = read_json(folder / "environment.json") or {}
        rows.append({**config.to_dict(), **summary, "device_name": environment.get("device_name", "unknown")})
    return pd.DataFrame(rows)


def load_metrics(study):
    """All rows of metrics.csv of the runs of load_runs, with arm and seed; StudyError for a damaged file or no run."""
    parts = []
    for config, folder, _ in finished_runs(study):
        if config.validation_images:
            continue
        table = load_run_table(folder, "metrics.csv")
        if list(table.get("epoch", ())) != list(range(1, config.epochs + 1)):
            raise StudyError(f"{shown(folder)}/metrics.csv lacks epochs: delete the folder and run again")
        parts.append(table.assign(arm=config.arm, seed=config.seed))
    if not parts:
        raise StudyError(f"no run of {study.name!r} is complete yet")
    return pd.concat(parts, ignore_index=True)


def load_logit_stack(study, arm, seeds):
    """Logits float32 (runs, N, classes) of an arm on the test images, in the order of `seeds`, and labels int64 (N,).

    Without seeds the stack is (0, 0, 1), so that it has an argmax. Raises StudyError for a damaged file.
    """
    if not seeds:
        return np.empty((0, 0, 1), np.float32), np.empty(0, np.int64)
    logits, labels = zip(*(load_logits(run_folder(study.name, arm, seed)) for seed in seeds), strict=True)
    return np.stack(logits), labels[0]


def load_run_table(folder, name, columns=None):
    """The columns {name: type} of one CSV file of a run folder, by default all as they are.

    Raises StudyError for a missing or damaged file.
    """
    try:
        text = (folder / name).read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        return pd.read_csv(io.StringIO(text), usecols=columns and list(columns), dtype=columns)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(
            f"{shown(folder / name)} is missing or damaged ({reason}): delete the folder and run again"
        ) from None


def load_arrays(path, *names):
    """The named arrays of an archive of save_arrays, in this order; raises StudyError for a missing or damaged file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except Exception as error:  # noqa: BLE001 zip, zlib, value and system errors all mean the same here
        reason = " ".join(str(error).split())
        raise StudyError(f"{shown(path)} is missing or damaged ({reason}): delete the folder and run again") from None


def read_json(path):
    """The mapping in a JSON file, or None where there is none or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
