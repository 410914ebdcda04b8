"""Where things are: every folder of the study is derived here and nowhere else."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "lib" / "studies"
REPORT = ROOT / "report"


def data_folder():
    """Folder of the images: data/, or what the variable STUDY_DATA names (a shared or scratch disk)."""
    return Path(os.environ.get("STUDY_DATA") or ROOT / "data").resolve()


def outputs_folder(study):
    """Folder of one study's results: outputs/<study>/, or <study>/ below the folder that STUDY_OUTPUTS names."""
    return Path(os.environ.get("STUDY_OUTPUTS") or ROOT / "outputs").resolve() / study


def run_folder(study, arm, seed):
    """Folder of one run: outputs/<study>/runs/<arm>/seed-<nn>/."""
    return outputs_folder(study) / "runs" / arm / f"seed-{seed:02d}"


def shown(path):
    """The path as a user would type it: relative to the checkout where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
