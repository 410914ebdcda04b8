"""The launcher of notebooks, and the notebooks themselves as files."""

import ast

import nbformat
import pytest
from nbclient import NotebookClient

from lib.errors import StudyError
from lib.notebooks import NotebookProcess, check_parameters
from lib.paths import NOTEBOOKS

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

    modules = "lib.analysis, lib.data, lib.figures, lib.html, lib.runs, lib.statistics, lib.study"
    script = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert "torch" not in "".join(cell.source for cell in code_cells(NOTEBOOKS / "analysis.ipynb"))


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
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    for name in ("train.ipynb", "analysis.ipynb"):
        notebook = read(NOTEBOOKS / name)
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
        if name == "train.ipynb":
            training = next(cell for cell in notebook.cells if "TrainingProgress" in cell.source)
    kinds = [kind for output in training.outputs for kind in output.get("data", {})]
    assert "image/png" in kinds
    printed = "".join(output.get("text", "") for output in training.outputs)
    assert "3/3" in printed and "epoch   1 of 3" not in printed
