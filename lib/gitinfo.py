"""What git knows of a checkout; no torch."""

import datetime
import subprocess
from pathlib import Path


def git(*arguments, folder):
    """What `git <arguments>` prints in a folder, stripped; None where it fails, as without git or without history."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # a copy without git history is a fine place to run
    return done.stdout.strip()


def commit(checkout):
    """The commit that is checked out in this folder; None for a copy without history of its own."""
    return git("rev-parse", "HEAD", folder=checkout) if _is_own_repository(checkout) else None


def uncommitted_changes(checkout):
    """Whether code or notebooks differ from that commit; None where git does not tell."""
    if not _is_own_repository(checkout):
        return None
    changes = git("status", "--porcelain", "--", "lib", "notebooks", folder=checkout)
    return None if changes is None else bool(changes)


def _is_own_repository(checkout):
    top = git("rev-parse", "--show-toplevel", folder=checkout)
    return top is not None and Path(top).resolve() == checkout  # else it lies inside somebody else's repository


def commits(*arguments, folder):
    """(hash, date in UTC) of the commits that `git log <arguments>` lists in a folder, newest first."""
    lines = (git("log", "--format=%H %cI", *arguments, folder=folder) or "").splitlines()
    dates = {commit: datetime.datetime.fromisoformat(date) for commit, date in map(str.split, lines)}
    return [(commit, date.astimezone(datetime.UTC)) for commit, date in dates.items()]
