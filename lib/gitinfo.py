"""What git knows of a checkout; no torch."""

import datetime
import subprocess


def git(*arguments, folder):
    """What `git <arguments>` prints in a folder, stripped; None where it fails, as without git or without history."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # a copy without git history is a fine place to run
    return done.stdout.strip()


def commits(*arguments, folder):
    """(hash, date in UTC) of the commits that `git log <arguments>` lists in a folder, newest first."""
    lines = (git("log", "--format=%H %cI", *arguments, folder=folder) or "").splitlines()
    dates = {commit: datetime.datetime.fromisoformat(date) for commit, date in map(str.split, lines)}
    return [(commit, date.astimezone(datetime.UTC)) for commit, date in dates.items()]
