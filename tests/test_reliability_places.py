"""The study in unfriendly places: a checkout with an odd path, no home that can be written, no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lib.notebooks import home_environment
from lib.paper import build_paper, missing_tex
from lib.paths import REPORT, ROOT

STUDY = """
title: A tiny study
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits, width: 0.0625, reduction: 4, epochs: 1, warmup_epochs: 1, batch_size: 64, probe_images: 8}
arms: {resnet18: {}, se_resnet18: {}}
stages: [{name: primary, arms: [resnet18, se_resnet18], seeds: 1}]
"""
PAPER = """
from lib.paper import build_paper
from lib.paths import REPORT
print(build_paper(REPORT / "paper.tex", REPORT / "paper.pdf"))
"""
# Python imports a module named sitecustomize when it starts; this one notes each look for another machine.
WATCH = """
import os, sys
def note(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    address = arguments[event == "socket.connect"]
    if event == "socket.connect" and not isinstance(address, tuple):
        return  # a socket of this machine that is a file
    host = address[0] if isinstance(address, tuple) else address
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open(os.environ["NETWORK_LOG"], "a") as file:
            print(event, host, file=file)
sys.addaudithook(note)
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout, without its results, in a folder with spaces and letters beyond ASCII."""
    folder = tmp_path / "Büro für Netze" / "study copy"
    for name in ("lib", "notebooks", "report"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pdf~"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def environment(checkout, tmp_path):
    """Variables of a process that uses the copy, has a home that cannot be made, and notes what it asks the network."""
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "file").write_text("")
    hidden = ("STUDY_DATA", "STUDY_OUTPUTS", "http_proxy", "https_proxy", "no_proxy", "MPLCONFIGDIR", "IPYTHONDIR")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    changed = {"HOME": str(tmp_path / "file" / "home"), "NETWORK_LOG": str(tmp_path / "network.log")}
    return kept | changed | {"PYTHONPATH": os.pathsep.join([str(watch), str(checkout)])}


def run(checkout, environment, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done


def texts(folder):
    """What the executed notebooks say, and the text of all pages."""
    for path in folder.rglob("*.ipynb"):
        yield from (str(cell.get("outputs", "")) for cell in nbformat.read(path, as_version=4).cells)
    yield from (path.read_text(encoding="utf-8") for path in folder.rglob("*.html"))


LOOKS = {
    "socket.getaddrinfo('192.0.2.1', 80)": "192.0.2.1",
    "socket.create_connection(('192.0.2.2', 80), timeout=0.01)": "192.0.2.2",
    "socket.create_connection(('127.0.0.1', 9))": None,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_for_another_machine_is_noted(checkout, environment, tmp_path, look):
    run(checkout, environment, "-c", f"import contextlib, socket\nwith contextlib.suppress(OSError): {look}")
    log = tmp_path / "network.log"
    assert log.exists() == bool(LOOKS[look]) and (not log.exists() or LOOKS[look] in log.read_text())


@pytest.mark.fault(
    "a checkout in `Büro für Netze/study copy`", "a study is trained, analysed and written as HTML there"
)
@pytest.mark.fault(
    "a home folder that cannot be made or written",
    "a study is trained and analysed, and no notebook or page has a warning of it",
)
@pytest.mark.fault("no network", "a study on the bundled images asks no other machine for anything")
def test_a_study_from_start_to_end_in_an_odd_place(checkout, environment, tmp_path):
    (checkout / "tiny study.yaml").write_text(STUDY)
    done = run(checkout, environment, "-m", "lib", "--study", "tiny study.yaml", "--jobs", "2")
    folder = checkout / "outputs" / "tiny study"
    assert json.loads((folder / "results.json").read_text())["primary"]["n_pairs"] == 1
    assert {path.stem for path in (folder / "html").iterdir()} >= {"index", "analysis", "train-resnet18"}
    assert "results: outputs/tiny study/results.json" in done.stdout
    said = [done.stdout, done.stderr, *texts(folder)]
    assert len(said) > 50
    for text in said:
        assert environment["HOME"] not in text and "temporary cache directory" not in text
    assert not (tmp_path / "network.log").exists()


@pytest.mark.skipif(bool(missing_tex()), reason=f"not installed: {', '.join(missing_tex())}")
@pytest.mark.fault(
    "a checkout in `Büro für Netze/study copy`, and a home folder that cannot be made",
    "the paper is built there, byte for byte the one that is built here",
)
def test_the_paper_in_an_odd_place(checkout, environment, tmp_path):
    pages = build_paper(REPORT / "paper.tex", tmp_path / "here.pdf")
    (checkout / "report" / "paper.pdf").unlink()
    done = run(checkout, environment, "-c", PAPER)
    assert done.stdout.strip() == str(pages) and not done.stderr
    assert (checkout / "report" / "paper.pdf").read_bytes() == (tmp_path / "here.pdf").read_bytes()


@pytest.mark.fault("a home folder on a read-only disk", "notebooks get another one, which ends with the command")
def test_read_only_home(tmp_path, monkeypatch, read_only):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert home_environment() == {}
    read_only(home)
    ask = "from lib.notebooks import home_environment; import os; home = home_environment()['HOME']; print(home)"
    told = f"{ask}; assert os.path.isdir(home) and home_environment()['HOME'] == home"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() not in ("", str(home)) and not Path(done.stdout.strip()).exists()
