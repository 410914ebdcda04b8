"""run_all.sh on machines that lack things, with stand-ins for the programs that it calls."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement

from lib.paths import ROOT

FAKE_CONDA = f"""
echo "$@" >>calls
mkdir -p .venv/bin .venv/conda-meta
echo 'exec "{sys.executable}" "$@"' >.venv/bin/python
chmod +x .venv/bin/python
"""
TOOLS = ("bash", "cat", "cksum", "dirname", "sed", "mkdir", "ln", "chmod")


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the set-up reads, in a folder with a space and a non-ASCII letter."""
    folder = tmp_path / "my chéckout"
    folder.mkdir()
    for name in ("run_all.sh", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "lib", folder / "lib")
    return folder


@pytest.fixture
def programs(tmp_path):
    """A folder for PATH that holds a few basic tools; tests add stand-ins to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def add_program(programs, name, script):
    (programs / name).write_text(f"#!/bin/bash\n{script}\n")
    (programs / name).chmod(0o755)


def run(checkout, programs, *arguments):
    environment = {"PATH": str(programs), "STUDY_OUTPUTS": str(checkout / "out"), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        ["bash", "run_all.sh", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
    )


def test_help_needs_no_environment(checkout, programs):
    done = run(checkout, programs, "--help")
    assert done.returncode == 0 and not (checkout / ".venv").exists()
    for option in ("--study", "--jobs", "--time-budget", "--dry-run", "test"):
        assert option in done.stdout


def test_a_wrong_python_is_named(checkout, programs):
    add_program(programs, "python3", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    done = run(checkout, programs, "--dry-run")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: Python 3.11 to 3.14 is needed, and python3 here is Python 3.9.2: install one of these"
    )


@pytest.mark.fault("an installation that fails", "it is said in one line and tried again the next time")
def test_a_failed_installation_is_said_and_tried_again(checkout, programs):
    fake = 'case "$1" in -m) mkdir -p .venv/bin; ln -sf "$0" .venv/bin/python; [ "$2" = venv ];; *) exit 0;; esac'
    add_program(programs, "python3", fake)
    for _ in range(2):
        done = run(checkout, programs, "--dry-run")
        assert done.returncode == 1 and "could not be installed" in done.stderr
    assert not (checkout / ".venv" / "complete").exists()


def test_conda_gets_the_same_list_and_is_called_once(checkout, programs):
    add_program(programs, "conda", FAKE_CONDA)
    for _ in range(2):
        assert "unknown study 'nothing'" in run(checkout, programs, "--study", "nothing").stderr
    calls = (checkout / "calls").read_text().splitlines()
    assert calls == ["env create --quiet --prefix .venv --file environment.yml"]


def test_changed_versions_are_installed(checkout, programs):
    add_program(programs, "mamba", FAKE_CONDA)
    run(checkout, programs, "--study", "nothing")
    with (checkout / "environment.yml").open("a") as file:
        file.write("      - six==1.17.0\n")
    run(checkout, programs, "--study", "nothing")
    assert [line.split()[1] for line in (checkout / "calls").read_text().splitlines()] == ["create", "update"]


def test_every_version_is_pinned_in_the_one_list():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert content["dependencies"][:2] == ["python=3.11", "pip"]
    *pins, checkout = content["dependencies"][2]["pip"]
    assert checkout == "-e ."
    for pin in pins:
        assert re.fullmatch(r"==[\d.]+", str(Requirement(pin).specifier)), pin
    listed = subprocess.run(["sed", "-n", "s/^      - //p", ROOT / "environment.yml"], capture_output=True, text=True)
    assert listed.stdout.splitlines() == [*pins, checkout]


def test_continuous_integration_runs_the_tests():
    assert "./run_all.sh test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and os.access(ROOT / "run_all.sh", os.X_OK)
