"""train.ipynb in JupyterLab, as a person meets it in a browser; on a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys

import matplotlib.font_manager  # makes the list of fonts
import pandas as pd
import pytest
from conftest import wait_until

from lib.files import ROOT, read_json

PATIENCE = 180_000  # milliseconds; a busy machine takes many times as long as an idle one
OUTPUT = ".jp-OutputArea-output"
ERROR = f'{OUTPUT}[data-mime-type="application/vnd.jupyter.stderr"]'  # tracebacks too
WAITING = '.jp-InputPrompt:has-text("[*]")'
EPOCHS = 6


@pytest.fixture
def checkout(tmp_path):
    """Folder of a copy of the repository in which train.ipynb trains for some seconds."""
    folder = tmp_path / "my study"
    for part in ("lib", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    notebook = folder / "notebooks" / "train.ipynb"
    notebook.write_text(notebook.read_text().replace("settings = {}", f"settings = {{'epochs': {EPOCHS}}}"))
    return folder


@pytest.fixture
def page(checkout, tmp_path):
    """The notebook in a browser with its kernel ready, from a JupyterLab server in the root of the copy."""
    settings = tmp_path / ".jupyter/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))  # else it asks, over the notebook
    foreign = ("STUDY_", "JUPYTER", "MPL", "XDG")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(checkout), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # with the list of fonts, or a kernel tells of making one
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    how = {"executable_path": shutil.which("chromium") or pytest.skip("apt-get install chromium")}
    how["args"] = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with api.sync_playwright() as tools, tools.chromium.launch(**how) as browser, (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            wait_until(lambda: any(map(read_json, tmp_path.glob("jpserver-*.json"))))
            found = read_json(*tmp_path.glob("jpserver-*.json"))
            page.goto(f"{found['url']}lab/tree/notebooks/train.ipynb?token={found['token']}", timeout=PATIENCE)
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=PATIENCE)
            page.get_by_text("| Idle").wait_for(timeout=PATIENCE)  # before, running cells asks for a kernel
            yield page
        finally:
            server.terminate()
            server.wait(60)


def choose(page, menu, entry):
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(".lm-Menu").get_by_text(entry, exact=True).click()


def is_idle(page):
    return page.locator(WAITING).count() == 0 and page.get_by_text("| Idle").count()


def run_all(page):
    """Run all cells and wait for the last one; no cell may fail."""
    choose(page, "Run", "Run All Cells")
    page.locator(WAITING).first.wait_for(timeout=PATIENCE)
    wait_until(lambda: is_idle(page))
    assert page.locator(ERROR).all_text_contents() == []


def cell(page, code):
    return page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text=code))


def printed(place):
    return "\n".join(place.locator(OUTPUT).all_text_contents())


def pictures(place):
    return place.locator(f"{OUTPUT} img").evaluate_all("all => all.filter(one => one.naturalWidth > 0).length")


@pytest.mark.slow
def test_a_person_trains_interrupts_goes_on_and_changes_the_gate(page, checkout):
    training, costs = cell(page, "run.save(trainer.train_epoch())"), cell(page, "note := run.stale")
    folder = checkout / "outputs" / "smoke" / "runs" / f"se_resnet18__trial_epochs_{EPOCHS}" / "seed-00"
    choose(page, "Run", "Run All Cells")
    wait_until(lambda: f"3/{EPOCHS} epochs" in printed(training) or page.locator(ERROR).count())
    wait_until(lambda: pictures(training) == 1)
    assert re.search(r"\d\d:\d\d left", printed(training))
    choose(page, "Kernel", "Interrupt Kernel")
    page.locator(ERROR).first.wait_for(state="attached", timeout=PATIENCE)
    (line,) = page.locator(ERROR).all_text_contents()
    assert line == "Interrupted: run this again, and it goes on after the last finished epoch"
    wait_until(lambda: is_idle(page))  # the cells that were waiting behind it are given up
    run_all(page)
    assert f"{EPOCHS}/{EPOCHS} epochs" in printed(training) and len(printed(training).splitlines()) <= 8
    assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert re.search(r"test accuracy \d+\.\d\d%", printed(page)) and "stale" not in printed(costs)
    assert pictures(page) == 5  # crops, live curve, curves, confusions, mistakes
    cell(page, "inspect.getsource(gate)").locator(".jp-InputPrompt").click()
    page.keyboard.press("b")  # a new cell below
    page.keyboard.press("Enter")
    page.keyboard.insert_text("models.SEGate.gate = lambda self, x: 0 * self.averages(x)")
    run_all(page)
    assert "stale: this run stems from another network" in printed(costs)
    shutil.rmtree(folder)
    run_all(page)
    assert "stale" not in printed(costs) and pictures(page) == 5
