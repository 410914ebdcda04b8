"""run_all.sh on machines that lack things, with stand-ins for the programs that it calls."""

import shutil
import subprocess
import sys

import pytest
import yaml

from lib.files import ROOT

SHELLS = [shell for shell in ("bash", "dash") if shutil.which(shell)]
TOOLS = ("cat", "cksum", "dirname", "grep", "id", "readlink", "sed", "mkdir", "ln", "chmod", "rm")
FAKE_CONDA = f"""
echo "$@ $PYTHONNOUSERSITE" >>calls
mkdir -p .venv/bin .venv/conda-meta
printf '#!/bin/sh\\nexec "{sys.executable}" "$@"' >.venv/bin/python
chmod +x .venv/bin/python
"""
# a python3 that makes environments with itself in them; what it does as their pip is for the test to say
FAKE_PYTHON = """
case "$*" in
"-m venv .venv") mkdir -p .venv/bin; ln -sf "$0" .venv/bin/python ;;
"-m pip "*) {pip} ;;
"-P -m lib"*) echo "started: $*, user site off: $PYTHONNOUSERSITE" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the set-up reads, in a folder with a space and a non-ASCII letter."""
    folder = tmp_path / "my chéckout"
    folder.mkdir()
    for name in ("run_all.sh", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(params=SHELLS)
def run(checkout, programs, tmp_path, request):
    """run(*arguments): run_all.sh in the checkout, in each shell that is here; programs beside a few basic tools."""
    for tool in (*SHELLS, *TOOLS):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

    def run(*arguments, script="run_all.sh", cwd=checkout):
        environment = {"PATH": str(tmp_path / "bin"), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "/nonsense"}
        command = [request.param, script, *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_a_wrong_python_ends_the_script_but_for_its_help(run, programs, checkout):
    done = run("--help")
    assert done.returncode == 0 and "--time-budget" in done.stdout and not (checkout / ".venv").exists()
    programs(python3='[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    done = run("--study", "smoke")
    assert done.returncode == 1 and "started" not in done.stdout
    assert done.stderr.startswith("error: Python 3.11 to 3.14 is needed, and python3 here is Python 3.9.2")


def test_an_installation_that_fails_ends_the_script_and_is_tried_again(run, programs, checkout):
    programs(python3=FAKE_PYTHON.format(pip="exit 1"))
    for arguments in ((), ("test",), ("--study", "smoke")):
        done = run(*arguments)
        assert done.returncode == 1 and "could not be installed" in done.stderr and "started" not in done.stdout
    assert not (checkout / ".venv" / "complete").exists()
    programs(python3=FAKE_PYTHON.format(pip="echo global.target=/elsewhere"))
    assert "put packages elsewhere" in run("--study", "smoke").stderr
    programs(python3=FAKE_PYTHON.format(pip='cat /dev/stdin >installed; echo "$PIP_USER" >user'))
    assert "started: -P -m lib --study smoke, user site off: 1" in run("--study", "smoke").stdout
    installed = (checkout / "installed").read_text().splitlines()
    assert installed[-1] == "-e ." and any(line.startswith("torch==") for line in installed)
    assert (checkout / "user").read_text() == "0\n"  # whatever the user's pip.conf says


def test_the_script_is_found_through_links_and_from_elsewhere(run, programs, checkout, tmp_path):
    programs(python3=FAKE_PYTHON.format(pip="exit 0"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "go").symlink_to("../link")
    (tmp_path / "link").symlink_to(checkout / "run_all.sh")
    done = run("--study", "smoke", script="go", cwd=tmp_path / "elsewhere")
    assert "started: -P -m lib --study smoke" in done.stdout and (checkout / ".venv" / "complete").exists()


@pytest.mark.slow
def test_conda_gets_the_same_list_and_is_called_again_for_changed_versions(run, programs, checkout):
    programs(conda=FAKE_CONDA)
    for _ in range(2):
        assert "did you mean 'smoke'" in run("--study", "smok").stderr
    with (checkout / "environment.yml").open("a") as file:
        file.write("      - six==1.17.0\n")
    run("--study", "smok")
    calls = [line for line in (checkout / "calls").read_text().splitlines() if line.startswith("env")]
    assert [line.split()[1] for line in calls] == ["create", "update"]
    assert calls[0] == "env create --quiet --prefix .venv --file environment.yml 1"
    assert "nodefaults" in yaml.safe_load((checkout / "environment.yml").read_text())["channels"]
