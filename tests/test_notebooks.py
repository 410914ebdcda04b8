"""The launcher of notebooks, and the notebooks themselves as files."""

import ast
import time

import nbformat
import pytest
from nbclient import NotebookClient

from lib.errors import StudyError
from lib.notebooks import NotebookProcess, check_parameters
from lib.paths import NOTEBOOKS
from lib.runs import lock

TEMPLATES = sorted(NOTEBOOKS.glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert {"train.ipynb", "analysis.ipynb", "benchmark.ipynb"} == {path.name for path in TEMPLATES}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_one_parameters_cell_with_literal_defaults(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_committed_without_outputs(path):
    for cell in code_cells(path):
        assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_cells_are_short_and_prose_leads(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and "**Question.**" in cells[0].source
    for cell in code_cells(path):
        assert len(cell.source.splitlines()) <= 16
    prose = sum(cell.cell_type == "markdown" for cell in cells)
    assert prose >= len(cells) / 2


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_star_imports_and_no_path_edits(path):
    for cell in code_cells(path):
        assert "import *" not in cell.source and "sys.path" not in cell.source


def test_analysis_does_not_import_torch():
    import subprocess
    import sys

    modules = "lib.analysis, lib.data, lib.explore, lib.figures, lib.html, lib.runs, lib.statistics, lib.study"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert "import torch" not in "".join(cell.source for cell in code_cells(NOTEBOOKS / "analysis.ipynb"))


def test_misspelt_parameter_is_refused_before_launch(tmp_path):
    with pytest.raises(StudyError, match="no parameter 'achr'.*take one of arm, seed, study|did you mean 'arm'"):
        NotebookProcess(NOTEBOOKS / "train.ipynb", tmp_path / "out.ipynb", tmp_path / "log", {"achr": "resnet18"})
    assert not list(tmp_path.iterdir())


def test_known_parameters_pass():
    check_parameters(NOTEBOOKS / "train.ipynb", {"study": "smoke", "arm": "resnet18", "seed": 1})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"arm": "se_resnet81"}, "study 'smoke' has no arm 'se_resnet81': did you mean 'se_resnet18'?"),
        ({"seed": 99}, "study 'smoke' has no seed 99 for se_resnet18: take one of [0, 1]"),
    ],
)
def test_a_failing_notebook_says_why_and_leaves_no_output(parameters, expected, tmp_path):
    process = NotebookProcess(NOTEBOOKS / "train.ipynb", tmp_path / "out.ipynb", tmp_path / "log", parameters)
    with pytest.raises(StudyError) as caught:
        process.wait()
    assert expected in str(caught.value)
    assert not (tmp_path / "out.ipynb").exists()


def test_by_hand_from_the_notebooks_folder_a_bar_and_a_curve_are_shown(monkeypatch):
    # the analysis by hand has menus, for which test_jupyterlab.py has a browser: nbclient has hung on them
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    notebook = read(NOTEBOOKS / "train.ipynb")
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    training = next(cell for cell in notebook.cells if "TrainingProgress" in cell.source)
    kinds = [kind for output in training.outputs for kind in output.get("data", {})]
    assert "image/png" in kinds
    printed = "".join(output.get("text", "") for output in training.outputs)
    assert "3/3" in printed and "epoch   1 of 3" not in printed


def notebook_of(path, code):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    return path


RAISED = {
    "assert False": "AssertionError",
    "raise ValueError('one\\ntwo: three')": "ValueError: one two: three",
    "print('OSError: only said')\nraise KeyError": "KeyError",
    "raise SystemExit(3)": "SystemExit: 3",
    "from lib.errors import StudyError\nraise StudyError('this is wrong: do that')": "this is wrong: do that",
}


@pytest.mark.fault("a notebook that raises", "its own error is told in one line, and no executed notebook is left")
def test_what_a_notebook_raises_is_told_in_one_line(tmp_path):
    running = {}
    for number, code in enumerate(RAISED):
        template = notebook_of(tmp_path / f"{number}.ipynb", code)
        output = tmp_path / "out" / template.name
        running[code] = NotebookProcess(template, output, tmp_path / f"{number}.log", {})
    for code, process in running.items():
        with pytest.raises(StudyError) as caught:
            process.wait()
        assert str(caught.value) == f"{process.output.name} failed: {RAISED[code]} (log: {process.log})"
        assert not process.output.exists()


@pytest.mark.fault(
    "kill -9 of the kernel of a notebook", "one line says that it was killed; no executed notebook is left"
)
def test_a_kernel_that_dies_is_told_in_one_line(tmp_path):
    template = notebook_of(tmp_path / "a.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    process = NotebookProcess(template, tmp_path / "out" / "a.ipynb", tmp_path / "log", {})
    with pytest.raises(StudyError, match="its process was killed, perhaps for want of memory") as caught:
        process.wait()
    assert "\n" not in str(caught.value) and not process.output.exists()


@pytest.mark.fault(
    "kill -9 of the process that executes a notebook",
    "one line says that it was killed, no executed notebook is left, and its kernel ends too",
)
def test_a_killed_execution_is_told_in_one_line_and_leaves_no_kernel(tmp_path):
    held = tmp_path / "held"
    template = notebook_of(tmp_path / "a.ipynb", HOLD.format(str(held)))
    process = NotebookProcess(template, tmp_path / "out.ipynb", held / "log", {})
    wait_until((held / "taken").exists)
    with pytest.raises(StudyError, match="already being worked on"), lock(held, "the folder"):
        pass
    process.process.kill()
    with pytest.raises(StudyError, match="its process was killed, perhaps for want of memory") as caught:
        process.wait()
    assert "\n" not in str(caught.value) and not process.output.exists()
    wait_until(lambda: is_free(held))


HOLD = """
import pathlib, time
from lib.runs import lock
folder = pathlib.Path({!r})
with lock(folder, "the folder"):
    (folder / "taken").touch()
    time.sleep(600)
"""


def wait_until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(folder):
    """Whether the process that held the lock of this folder has ended."""
    try:
        with lock(folder, "the folder"):
            return True
    except StudyError:
        return False


def test_an_error_of_an_earlier_execution_is_not_taken_for_this_one(tmp_path):
    template, output = notebook_of(tmp_path / "a.ipynb", "raise KeyError('earlier')"), tmp_path / "out.ipynb"
    with pytest.raises(StudyError, match="KeyError: 'earlier'"):
        NotebookProcess(template, output, tmp_path / "log", {}).wait()
    process = NotebookProcess(template, output, tmp_path / "log", {})
    process.process.kill()
    with pytest.raises(StudyError, match="was killed"):
        process.wait()
