"""Where things are, how files are written and locked, what git knows, and the error that users are meant to read."""

import contextlib
import difflib
import json
import os
import secrets
import subprocess
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "lib" / "studies"
REPORT = ROOT / "report"


class StudyError(Exception):
    """What is wrong and what to do about it, in one line; shown without a traceback."""

    def _render_traceback_(self):
        """What IPython shows of it, instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def suggestion(name, known):
    """The end of an error line about an unknown name: the nearest accepted one, or all of them."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(name), known, n=1)
    return f": did you mean {near[0]!r}?" if near else f": take one of {', '.join(sorted(known))}"


def data_folder():
    """Folder of the images: data/, or what the variable STUDY_DATA names, such as a shared or scratch disk."""
    return _folder("STUDY_DATA", "data")


def outputs_folder(study):
    """Folder of one study's results: outputs/<study>/, or <study>/ below the folder that STUDY_OUTPUTS names."""
    return _folder("STUDY_OUTPUTS", "outputs") / study


def run_folder(study, arm, seed):
    """Folder of one run: outputs/<study>/runs/<arm>/seed-<nn>/."""
    return outputs_folder(study) / "runs" / arm / f"seed-{seed:02d}"


def _folder(variable, default):
    try:  # relative paths count from the repository's root, since notebooks run in other folders
        return (ROOT / Path(os.environ.get(variable) or default).expanduser()).resolve()
    except RuntimeError as error:
        raise StudyError(f"{variable}={os.environ[variable]} names no folder: {error}") from None


def shown(path):
    """The path as a user would type it: relative to the repository's root where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def atomic_write(path, content):
    """Write bytes to `path`, whole or not at all; StudyError where the folder cannot be written or the disk is full."""
    partial = path.with_name(f"{path.name}.partial-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StudyError(f"cannot write {shown(path)}: {error.strerror}; free space or set STUDY_OUTPUTS") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_json(path, values):
    """Write plain values as indented JSON, atomically."""
    atomic_write(path, (json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def read_json(path):
    """The mapping in a JSON file, or None where there is none or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def write_table(path, table):
    """Write a pandas table as CSV without its index, atomically."""
    atomic_write(path, table.to_csv(index=False, lineterminator="\n").encode())


@contextlib.contextmanager
def lock(folder, what):
    """Hold `folder`/.lock while the body runs; raises StudyError at once when another process holds it.

    The lock ends with the process that took it, however that ends.
    """
    held = FileLock(folder / ".lock", mode=0o666)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        raise StudyError(f"{what} is already being worked on by another process: wait for it or stop it") from None
    except (OSError, NotImplementedError) as error:
        raise StudyError(f"cannot lock {shown(folder)} ({error}): set STUDY_OUTPUTS to a folder elsewhere") from None
    try:
        yield
    finally:
        held.release()


def git(*arguments):
    """What `git <arguments>` prints in this repository, stripped; None without git or a repository of our own."""
    ours = f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"  # and no repository in which a copy may lie
    try:
        done = subprocess.run(["git", *ours, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
