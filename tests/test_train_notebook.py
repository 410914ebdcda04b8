"""train.ipynb, executed as by hand on a tiny study."""

import re

import nbformat
import pytest
from conftest import STUDY, write_study
from made_runs import make_run
from nbclient import NotebookClient
from test_run import execute

from lib.data import load_dataset
from lib.files import NOTEBOOKS, read_json, run_folder
from lib.study import load_study

INTERRUPT = """
from lib.train.trainer import Trainer
original, Trainer.train_epoch = Trainer.train_epoch, lambda self: interrupt() if self.epoch else original(self)
def interrupt(): Trainer.train_epoch = original; raise KeyboardInterrupt
"""


def read_notebook(**parameters):
    """The notebook with these parameters."""
    notebook = nbformat.read(NOTEBOOKS / "train.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    return notebook


def execute_by_hand(notebook):
    """Execute it in a kernel; returns the printed text and the number of pictures."""
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs), sum("image/png" in o.get("data", ()) for o in outputs)


@pytest.mark.slow
def test_a_training_that_is_interrupted_and_goes_on_equals_execute(tmp_path, monkeypatch):
    study = str(write_study(tmp_path))
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    monkeypatch.setenv("MPLBACKEND", "agg")  # which draws nothing in a notebook by itself
    notebook = read_notebook(study=study, settings={"epochs": 2})
    place = next(index for index, cell in enumerate(notebook.cells) if "with run.training(" in cell.source)
    interrupted = nbformat.v4.new_code_cell(INTERRUPT + notebook.cells[place].source)
    interrupted.metadata["tags"] = ["raises-exception"]
    notebook.cells.insert(place, interrupted)
    text, pictures = execute_by_hand(notebook)
    assert pictures == 6  # crops, the live curve twice, curves, confusions, mistakes
    (error,) = [output for output in interrupted.outputs if output.output_type == "error"]
    assert len(error.traceback) == 1 and error.traceback[0].startswith("Interrupted: run this again")
    assert re.search(r"2/2 epochs, \d\d:\d\d so far", text) and "epoch   1 of 2" not in text
    config = load_study(study).run("se_resnet18", 0, {"epochs": 2})
    summary = read_json(run_folder("tiny", "se_resnet18__trial_epochs_2", 0) / "summary.json")
    expected = execute(config, load_dataset("digits"), run_folder("tiny", "elsewhere", 0))
    assert summary["logits_sha256"] == expected["logits_sha256"]


@pytest.mark.slow
def test_a_finished_run_is_shown_without_its_images(tmp_path):
    study = str(write_study(tmp_path, STUDY.replace("digits", "cifar10")))
    folder = run_folder("tiny", "se_resnet18", 0)
    make_run(folder, load_study(study).run("se_resnet18", 0))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    text, pictures = execute_by_hand(read_notebook(study=study))
    assert "is complete" in text and "The images are not here" in text and pictures == 2  # curves, confusions
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
