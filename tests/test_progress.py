import re

import nbformat
import pytest
from nbclient import NotebookClient

from lib.errors import StudyError
from lib.progress import Interrupted, TrainingProgress

ROWS = [
    {"epoch": n, "train_loss": 1.5, "train_accuracy": 0.625, "train_seconds": 60.0, "images_per_second": 1234.5}
    for n in (1, 2)
]


def test_headless_prints_one_line_an_epoch_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("STUDY_HEADLESS", "1")
    progress = TrainingProgress(epochs=5)
    for count in range(3):
        progress(ROWS[:count])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1] == "epoch   2 of 5   loss 1.500   training accuracy 62.5%   1,234 images/s   3.0 min left"


@pytest.mark.parametrize("done", [0, 2])
def test_by_hand_a_bar_starts_where_the_run_does(done, monkeypatch, capsys):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    TrainingProgress(epochs=5)(ROWS[:done])
    assert f"{done}/5" in capsys.readouterr().out


def test_by_hand_the_bar_says_how_long_is_left_and_what_comes_next(monkeypatch, capsys):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    progress = TrainingProgress(epochs=2)
    progress([])
    progress(ROWS[:1])
    assert re.search(r"1/2 epochs, \d\d:\d\d so far, \d\d:\d\d left", capsys.readouterr().out)
    progress(ROWS)
    assert capsys.readouterr().out.endswith("trained, now evaluated …\n")


def test_a_person_who_interrupts_is_told_what_to_do(monkeypatch, capsys):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    with pytest.raises(Interrupted, match="Run this cell again") as caught, TrainingProgress(epochs=5) as progress:
        progress(ROWS[:1])
        raise KeyboardInterrupt
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.__suppress_context__
    assert progress.bar.disable  # closed


@pytest.mark.parametrize("error", [RuntimeError("broken"), StudyError("wrong")])
def test_other_errors_pass_unchanged(error):
    with pytest.raises(type(error)) as caught, TrainingProgress(epochs=5):
        raise error
    assert caught.value is error


def test_an_interruption_is_one_line_in_a_notebook():
    cell = "from lib.progress import TrainingProgress\nwith TrainingProgress(5): raise KeyboardInterrupt"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    (output,) = notebook.cells[0].outputs
    assert output["output_type"] == "error" and len(output["traceback"]) == 1
    assert output["traceback"][0].startswith("Stopped. Run this cell again")
