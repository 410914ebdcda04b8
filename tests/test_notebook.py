"""Notebooks in processes of their own, and their pages: complete without a network, the same each time."""

from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import is_free, wait_until
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.files import ROOT, StudyError
from lib.launch import notebook
from lib.launch.notebook import WIDGET, NotebookProcess
from lib.launch.pages import notebook_to_html

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PYTHON = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
HOLD = """
import pathlib, time
from lib.files import lock
folder = pathlib.Path({!r})
with lock(folder, "the folder"):
    (folder / "taken").touch()
    time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """start(code, parameters): a process that executes a notebook with this cell after the one of its parameters."""

    def start(code, parameters=(), name="a"):
        defaults = "\n".join(f"{each} = None" for each in parameters)
        first = new_code_cell(defaults, metadata={"tags": ["parameters"]}, id="defaults")
        cells = [first, new_code_cell(code, id="code")]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON), tmp_path / f"{name}.ipynb")
        output, log = tmp_path / "out" / f"{name}.ipynb", tmp_path / f"{name}.log"
        return NotebookProcess(tmp_path / f"{name}.ipynb", output, log, dict(parameters))

    return start


@pytest.mark.slow
def test_parameters_keep_their_types_and_nothing_of_other_notebooks_leaks_in(start, tmp_path, monkeypatch):
    for name in ("MPLBACKEND", "PYTHONSTARTUP", "JUPYTER_PATH"):
        monkeypatch.setenv(name, "nonsense")
    monkeypatch.setattr(notebook.sys, "flags", SimpleNamespace(no_user_site=1))  # as run_all.sh starts it
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("print = None")
    parameters = {"study": "001", "arm": "2018", "seed": 7, "settings": {"epochs": 2}}
    code = "import os\nnames = 'PYTHONSTARTUP', 'MATPLOTLIBRC', 'PYTHONNOUSERSITE'\n"
    code += "print([study, arm, seed, settings], *map(os.environ.get, names))"
    process = start(code, parameters)
    process.wait()
    (printed,) = nbformat.read(process.output, as_version=4).cells[-1].outputs
    assert printed.text == "['001', '2018', 7, {'epochs': 2}] None /dev/null 1\n"


def test_a_kernel_may_take_ten_minutes_to_start_and_two_may_want_the_same_port(tmp_path, monkeypatch):
    asked = []

    def execute(template, output, parameters, *, start_timeout, **how):
        asked.append(start_timeout)
        if len(asked) < 3:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return new_notebook()

    monkeypatch.setattr("papermill.execute_notebook", execute)
    monkeypatch.setattr(notebook.os, "environ", dict(notebook.os.environ))  # which is changed
    notebook._execute("a.ipynb", str(tmp_path / "out.ipynb"), {})
    assert asked == [600] * 3 and (tmp_path / "out.ipynb").exists()


@pytest.mark.slow
def test_executing_again_gives_the_same_bytes_without_paths_of_this_machine(start):
    code = "import time\nfrom lib.files import ROOT\nfor i in range(9):\n    print(i, end='')\n    time.sleep(0.01)\n"
    code += f"print(ROOT / 'lib')\ndisplay({{'{WIDGET}': {{'model_id': str(time.time())}}}}, raw=True)"
    texts = []
    for process in [start(code, {"seed": 1}) for _ in range(2)]:
        process.wait()
        texts.append(process.output.read_text())
    assert texts[0] == texts[1] and str(ROOT) not in texts[0] and "012345678lib" in texts[0]


RAISED = {
    "raise ValueError('one\\ntwo: three')": "ValueError: one two: three",
    "print('error: only said')\nraise KeyError": "KeyError",
    "class DivergedError(Exception): pass\nraise DivergedError('the loss is nan')": "the loss is nan",
    "from lib.files import StudyError\nraise StudyError('this is wrong: do that')": "this is wrong: do that",
    "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)": notebook.KILLED,
}


@pytest.mark.slow
def test_what_ends_a_notebook_is_told_in_one_line_and_leaves_no_output(start, tmp_path):
    running = {code: start(code, name=str(number)) for number, code in enumerate(RAISED)}
    for code, process in running.items():
        with pytest.raises(StudyError) as caught:
            process.wait()
        assert str(caught.value) == f"{RAISED[code]} (log: {process.log})"
    with pytest.raises(StudyError, match="cannot write .*set STUDY_OUTPUTS"):
        NotebookProcess(tmp_path / "a.ipynb", tmp_path / "out.ipynb", process.log / "below" / "log", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("edited", ["a.ipynb", "", None])
def test_an_error_in_an_edited_notebook_says_that_it_was_edited(edited, monkeypatch):
    monkeypatch.setattr(notebook, "git", lambda *words: edited)
    hint = " (a.ipynb was edited: git diff a.ipynb shows how)" if edited else ""
    assert notebook._one_line(NameError("x"), "a.ipynb") == f"NameError: x{hint}"


@pytest.mark.slow
def test_a_killed_execution_is_told_and_leaves_no_kernel(start, tmp_path):
    process = start(HOLD.format(str(tmp_path / "held")))
    wait_until((tmp_path / "held" / "taken").exists)
    assert not is_free(tmp_path / "held")
    process.process.kill()
    with pytest.raises(StudyError, match="its process was killed, perhaps for want of memory"):
        process.wait()
    wait_until(lambda: is_free(tmp_path / "held"))


@pytest.fixture
def page(tmp_path):
    """A function that turns cells into the parsed HTML page."""

    def convert(*cells, **how):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "notebook.ipynb")
        notebook_to_html(tmp_path / "notebook.ipynb", tmp_path / "page.html", "Losses < 1 & more", **how)
        return BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")

    return convert


def test_a_page_loads_and_runs_nothing(page, tmp_path):
    figure = new_output("display_data", data={"image/png": PIXEL, "text/plain": "a figure"})
    figure.metadata["image/png"] = {"alt": 'a curve that "falls"'}
    soup = page(new_markdown_cell("# Heading\n\n## First & more"), new_code_cell("show()", outputs=[figure]))
    assert not soup.find_all(["script", "link", "iframe"])
    (image,) = soup.find_all("img")
    assert (image["src"], image["alt"]) == (f"data:image/png;base64,{PIXEL}", 'a curve that "falls"')
    styles = " ".join(style.text for style in soup.find_all("style"))
    assert "@import" not in styles and "url(http" not in styles
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert soup.title.text == "Losses < 1 & more" and str(tmp_path) not in str(soup)
    assert soup.find("nav").find("a")["href"] == f"#{soup.find('h2')['id']}"


def test_formulas_become_mathml_and_what_is_none_or_cannot_be_converted_stays_readable(page):
    text = "Let $x < 1$ and\n\n$$y = \\frac{1}{2}$$\n\n$$\\begin{aligned} a &= b \\\\ c &= d \\pm e \\end{aligned}$$"
    shown = new_output("display_data", data={"text/markdown": "$p < 0.05$"})
    soup = page(new_markdown_cell(text), new_code_cell("show()", outputs=[shown]))
    assert [formula["display"] for formula in soup.find_all("math")] == ["inline", "block", "block", "inline"]
    assert [part.text for part in soup.find("mfrac").find_all("mn")] == ["1", "2"]
    assert "±" in [operator.text for operator in soup.find_all("mo")]
    assert "$" not in soup.body.text and "\\" not in soup.body.text
    code, texts = 'price = "$$5 and $x$"', ("$HOME$", "pay $5", "echo $$ $x$ $$", "a_b_c", "\\nosuchcommand{x}")
    text = new_markdown_cell("`$HOME$`, pay \\$5:\n\n```\necho $$ $x$ $$\n```\n\n$a_b_c$ and $\\nosuchcommand{x}$")
    soup = page(text, new_code_cell(code, outputs=[new_output("stream", text="cost $1 or $2\n")]))
    assert not soup.find("math") and all(text in soup.body.text for text in (*texts, code, "cost $1 or $2"))


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", "{}", None])
def test_a_damaged_notebook_is_one_line_and_no_page(tmp_path, text):
    if text is not None:
        (tmp_path / "broken.ipynb").write_text(text)
    with pytest.raises(StudyError, match=r"broken\.ipynb is damaged \(.+\): delete it and run again") as caught:
        notebook_to_html(tmp_path / "broken.ipynb", tmp_path / "page.html", "A title")
    assert "\n" not in str(caught.value) and not (tmp_path / "page.html").exists()
