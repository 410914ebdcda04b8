"""The notebooks in JupyterLab, as a person meets them in a browser; on copies, in a folder outside the checkout."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.font_manager  # makes the list of fonts
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from browser import Witness, chromium, screenshot

from lib.data import load_dataset
from lib.madeup import BLOCKS, make_up_run
from lib.paths import NOTEBOOKS, outputs_folder, run_folder
from lib.runs import load_logits, read_json, save_arrays, save_logits, write_json
from lib.study import load_study

PATIENCE = 180_000  # milliseconds; a busy machine takes many times as long as an idle one
OUTPUT = ".jp-OutputArea-output"
ERROR = f'{OUTPUT}[data-mime-type="application/vnd.jupyter.stderr"]'  # tracebacks too
EPOCHS = 12
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # else it asks, over the notebook


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Lab:
    """A JupyterLab server of its own on the loopback interface, behind a token, with all it writes below `folder`."""

    def __init__(self, folder):
        self.root, self.runtime = folder / "root", folder / "runtime"
        self.places = {"STUDY_OUTPUTS": str(folder / "outputs"), "STUDY_DATA": str(folder / "data")}
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        for needed in (self.root, self.runtime, folder / "home", settings.parent):
            needed.mkdir(parents=True)
        settings.write_text(json.dumps(NO_NEWS))
        self.token = secrets.token_urlsafe()
        environment = (
            os.environ
            | self.places
            | {
                "HOME": str(folder / "home"),
                "JUPYTER_TOKEN": self.token,
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
                "JUPYTER_RUNTIME_DIR": str(self.runtime),
                "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                "MPLCONFIGDIR": matplotlib.get_cachedir(),  # with the list of fonts, or a kernel says that it makes one
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            }
        )
        for name in ("STUDY_HEADLESS", "PYTHONPATH", "MPLBACKEND"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0"]
        command += [f"--ServerApp.root_dir={self.root}"] + ["--allow-root"] * (os.geteuid() == 0)
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.log = folder / "log"

    def address(self, notebook):
        """Where a browser opens a notebook below the root; waits until the server listens."""
        deadline = time.monotonic() + PATIENCE / 1000
        while not (records := list(self.runtime.glob("jpserver-*.json"))) or not (record := read_json(records[0])):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return f"{record['url']}lab/tree/{notebook}?reset&token={self.token}"

    def stop(self):
        """End the server and its kernels."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture
def open_notebook(lab, browser, monkeypatch):
    """A function that opens a copy of a notebook, with parameters of one's own, and returns its page and witness."""
    for name, value in lab.places.items():
        monkeypatch.setenv(name, value)
    pages = []

    def open_notebook(name, copy, **parameters):
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
        (lab.root / copy).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, lab.root / copy)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        pages.append(page)
        witness = Witness(page)
        page.goto(lab.address(copy), timeout=PATIENCE)
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=PATIENCE)
        page.get_by_text("| Idle").wait_for(timeout=PATIENCE)  # the kernel; before, running cells asks for one
        return page, witness

    yield open_notebook
    for page in pages:
        page.close()


def choose(page, menu, entry):
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(".lm-Menu").get_by_text(entry, exact=True).click()


def cell(page, code):
    return page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text=code))


def wait_for_output(page, text):
    """Wait until an output holds the text, or until a cell fails."""
    shown = page.locator(OUTPUT, has_text=text).or_(page.locator(ERROR))
    shown.first.wait_for(state="attached", timeout=PATIENCE)


def output_text(place):
    return "\n".join(place.locator(OUTPUT).all_text_contents())


def wait_until(page, condition):
    """Wait until condition() holds, letting the page work meanwhile."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        page.wait_for_timeout(200)


def epochs_on_the_bar(place):
    bars = re.findall(rf"(\d+)/{EPOCHS} epochs", output_text(place))
    return int(bars[-1]) if bars else 0


def loaded_images(place):
    return place.locator(f"{OUTPUT} img").evaluate_all("all => all.filter(one => one.naturalWidth > 0).length")


@pytest.fixture
def long_study(tmp_path):
    """Path of a study of one tiny network that trains for some seconds."""
    content = {
        "title": "Watched",
        "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
        "recipe": {"dataset": "digits", "width": 0.0625, "reduction": 4, "train_fraction": 0.5, "batch_size": 32}
        | {"epochs": EPOCHS, "warmup_epochs": 1, "horizontal_flip": False, "probe_images": 20},
        "arms": {"resnet18": {}, "se_resnet18": {}},
        "stages": [{"name": "primary", "arms": ["resnet18", "se_resnet18"], "seeds": 1}],
    }
    path = tmp_path / "watched.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_training_is_watched_interrupted_and_goes_on(open_notebook, long_study, tmp_path):
    page, witness = open_notebook("train.ipynb", "elsewhere/my training.ipynb", study=str(long_study))
    choose(page, "Run", "Run All Cells")
    training, folder = cell(page, "TrainingProgress"), run_folder("watched", "se_resnet18", 0)
    wait_until(page, lambda: epochs_on_the_bar(training) >= 3 or page.locator(ERROR).count())
    wait_until(page, lambda: loaded_images(training) == 1)
    assert re.search(r"\d\d:\d\d left", output_text(training))
    screenshot(page, "training-live", tmp_path, training)

    choose(page, "Kernel", "Interrupt Kernel")
    page.locator(ERROR).first.wait_for(state="attached", timeout=PATIENCE)
    assert page.locator(ERROR).all_text_contents() == [
        "Stopped. Run this cell again, and it goes on after the last finished epoch."
    ]
    screenshot(page, "training-interrupted", tmp_path, training)
    assert epochs_on_the_bar(training) < EPOCHS and not (folder / "summary.json").exists()
    trained = pd.read_csv(folder / "metrics.csv")

    waiting = page.locator(".jp-InputPrompt", has_text="[*]")
    wait_until(page, lambda: waiting.count() == 0 and page.get_by_text("| Idle").count())
    choose(page, "Run", "Run All Cells")
    wait_until(page, lambda: page.locator(ERROR).count() == 0)  # the cell runs again
    wait_for_output(page, "test accuracy")
    assert page.locator(ERROR).count() == 0
    wait_until(page, lambda: loaded_images(page) == 4)  # crops, live curve, curve, confusion matrix
    assert epochs_on_the_bar(training) == EPOCHS
    assert re.search(r"test accuracy \d+\.\d\d%", output_text(page))
    assert len(output_text(training).splitlines()) <= 8
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["epoch"].tolist() == list(range(1, EPOCHS + 1))
    kept = trained[:-1]  # the last may have been written just before the interruption, and trained again
    pd.testing.assert_frame_equal(metrics[: len(kept)], kept)
    screenshot(page, "training-finished", tmp_path, training)
    assert witness.requests and witness.requests_other_than("127.0.0.1", "data", "blob") == []


@pytest.fixture
def finished_smoke_study(lab, monkeypatch):
    """The runs of the study `smoke`, made up on the real test images, where the server's notebooks look for them."""
    monkeypatch.setenv("STUDY_OUTPUTS", lab.places["STUDY_OUTPUTS"])
    digits, random = load_dataset("digits"), np.random.default_rng(0)
    for config in load_study("smoke").runs:
        folder = run_folder("smoke", config.arm, config.seed)
        make_up_run(folder, config, images=len(digits.test_labels))
        logits, labels = load_logits(folder)
        moved = (np.arange(10) + (labels - digits.test_labels)[:, None]) % 10  # the same answers to the true labels
        save_logits(folder / "test_logits.npz", np.take_along_axis(logits, moved, 1), digits.test_labels)
        if (folder / "gates.npz").exists():
            gates = {block: random.normal(0.5, 0.1, (10, 8)).astype(np.float16) for block in BLOCKS}
            save_arrays(folder / "gates.npz", **gates)
        write_json(
            folder / "summary.json", read_json(folder / "summary.json") | {"data_fingerprint": digits.fingerprint}
        )


def test_the_analysis_shows_figures_and_menus_that_react(open_notebook, finished_smoke_study, tmp_path):
    page, witness = open_notebook("analysis.ipynb", "analysis.ipynb")
    choose(page, "Run", "Run All Cells")
    wait_for_output(page, "tables, ")
    assert page.locator(ERROR).all_text_contents() == []
    assert len(list((outputs_folder("smoke") / "figures").glob("*.png"))) >= 8
    explorer = cell(page, "explore(chosen)")
    arm = explorer.locator("select").nth(1)
    arm.wait_for(timeout=PATIENCE)
    assert explorer.locator("select").evaluate_all("all => all.map(one => one.value)") == [
        "smoke",
        "se_resnet18",
        "resnet18",
    ]
    wait_until(page, lambda: loaded_images(explorer) == 3)
    screenshot(page, "analysis-explorer", tmp_path, explorer)

    arm.select_option("resnet18")
    explorer.locator(OUTPUT, has_text="resnet18 has no gates.").first.wait_for(timeout=PATIENCE)
    explorer.locator("select").nth(2).select_option("se_resnet18")
    explorer.locator(OUTPUT, has_text="More often right in se_resnet18").first.wait_for(timeout=PATIENCE)
    wait_until(page, lambda: loaded_images(explorer) == 2)
    screenshot(page, "analysis-explorer-changed", tmp_path, explorer)
    wait_until(page, lambda: loaded_images(page) >= 10)
    assert witness.requests_other_than("127.0.0.1", "data", "blob") == []


def test_without_the_token_nothing_is_shown(lab, browser):
    page = browser.new_page()
    address = lab.address("train.ipynb").split("?")[0]
    page.goto(address)
    assert "/login" in page.url
    assert page.request.get(address.replace("lab/tree", "api/contents")).status == 403
    page.close()
