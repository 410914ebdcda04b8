"""The HTML page of a notebook: complete without a network, formulas included, and honest about what it cannot show."""

import pytest
from bs4 import BeautifulSoup
from nbformat import write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.errors import StudyError
from lib.html import notebook_to_html

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WIDGET = "application/vnd.jupyter.widget-view+json"


def shown_data(**data):
    return new_output("display_data", data={name.replace("_", "/", 1): value for name, value in data.items()})


@pytest.fixture
def page(tmp_path):
    """A function that turns cells into the parsed HTML page."""

    def convert(*cells, title="A title", **metadata):
        write(new_notebook(cells=list(cells), metadata=metadata), tmp_path / "notebook.ipynb")
        notebook_to_html(tmp_path / "notebook.ipynb", tmp_path / "page.html", title)
        return BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")

    return convert


def test_nothing_is_loaded_or_run(page):
    widget = new_output("display_data", data={WIDGET: {"model_id": "m"}, "text/plain": "HBox(children=())"})
    script = shown_data(application_javascript="alert(1)", text_plain="Javascript object")
    state = {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": {}}}
    figure = shown_data(image_png=PIXEL, text_plain="a figure")
    soup = page(new_code_cell("show()", outputs=[widget, script, figure]), widgets=state)
    assert not soup.find_all(["script", "link", "iframe"])
    assert "HBox" not in soup.text and "Javascript object" not in soup.text
    assert [image["src"] for image in soup.find_all("img")] == [f"data:image/png;base64,{PIXEL}"]
    styles = " ".join(style.text for style in soup.find_all("style"))
    assert "@import" not in styles and "url(http" not in styles
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_formulas_become_mathml(page):
    soup = page(new_markdown_cell("Let $x < 1$ and\n\n$$y = \\frac{1}{2}$$\n\n\\begin{align}a &= b\\end{align}"))
    assert [formula["display"] for formula in soup.find_all("math")] == ["inline", "block", "block"]
    assert [part.text for part in soup.find("mfrac").find_all("mn")] == ["1", "2"]
    assert "$" not in soup.body.text and "\\" not in soup.body.text


def test_formulas_in_outputs_become_mathml(page):
    outputs = [shown_data(text_latex="$$E = mc^2$$"), shown_data(text_markdown="**so** $p < 0.05$")]
    assert len(page(new_code_cell("show()", outputs=outputs)).find_all("math")) == 2


def test_aligned_and_plus_minus_are_typeset(page):
    soup = page(new_markdown_cell("$$\\begin{aligned} a &= b \\\\ c &= d \\pm e \\end{aligned}$$"))
    assert len(soup.find("math").find_all("mtr")) == 2
    assert "±" in [operator.text for operator in soup.find_all("mo")]


def test_dollars_in_code_stay(page):
    code = 'price = "$$5 and $x$"'
    soup = page(
        new_markdown_cell("Type `$HOME$`, pay \\$5:\n\n```\necho $$ $x$ $$\n```"),
        new_code_cell(code, outputs=[new_output("stream", text="cost $1 or $2\n")]),
    )
    assert not soup.find("math")
    for text in ("$HOME$", "pay $5", "echo $$ $x$ $$", code, "cost $1 or $2"):
        assert text in soup.body.text


@pytest.mark.parametrize("tex", ["a_b_c", "\\nosuchcommand{x}", "\\frac{1", "\\left(x < 1", "\\text{<b>}"])
@pytest.mark.parametrize("mark", ["$", "$$"])
def test_formula_that_cannot_be_converted_stays_readable(page, tex, mark):
    soup = page(new_markdown_cell(f"before {mark}{tex}{mark} after"))
    assert not soup.find("math")
    assert soup.find("code").text == tex
    assert "before" in soup.body.text and "after" in soup.body.text


def test_title_and_language(page):
    soup = page(new_markdown_cell("# Heading"), title="Losses < 1 & more")
    assert soup.title.text == "Losses < 1 & more"
    assert soup.html["lang"] == "en"
    assert soup.h1.text.startswith("Heading")


def test_no_machine_path_and_nothing_half_written(page, tmp_path):
    soup = page(new_markdown_cell("text"), new_code_cell("1 + 1"))
    assert str(tmp_path) not in str(soup)
    assert {path.name for path in tmp_path.iterdir()} == {"notebook.ipynb", "page.html"}


NO_CELLS = '{"nbformat": 4, "nbformat_minor": 4, "metadata": {}}'
NO_OUTPUTS = '{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{"cell_type": "code", "source": ""}]}'


@pytest.mark.fault("an executed notebook that is damaged", "one line names it")
@pytest.mark.parametrize("text", ["", "not JSON", '{"cells": [', "[]", "{}", NO_CELLS, NO_OUTPUTS, None])
def test_damaged_notebook_is_one_clear_line(tmp_path, text):
    if text is not None:
        (tmp_path / "broken.ipynb").write_text(text)
    with pytest.raises(
        StudyError, match=r"broken\.ipynb cannot be read as a notebook \(.+\): execute it again"
    ) as caught:
        notebook_to_html(tmp_path / "broken.ipynb", tmp_path / "page.html", "A title")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()
