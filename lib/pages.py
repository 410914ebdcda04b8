"""The pages of a study for readers without Jupyter: an index, the analysis, trainings, the preregistration."""

import base64
import os
import re
from pathlib import Path

import nbformat

from lib.analysis import conclusion
from lib.data import DESCRIPTIONS
from lib.deviations import PREREGISTRATION
from lib.html import notebook_to_html, write_page
from lib.paths import REPORT, ROOT
from lib.report import REPORTED
from lib.runs import read_json

PAPER = REPORT / "paper.pdf"
FIGURE = Path("figures") / "accuracy_by_seed.png"


def write_pages(study, folder, trainings):
    """Write html/ of a study: analysis.html, train-<arm>.html, preregistration.html and index.html, which links them.

    folder: outputs/<study>/ with analysis.ipynb and results.json; trainings: {arm: executed training notebook}.
    Returns the path of the index.
    """
    pages = {"analysis": (folder / "analysis.ipynb", f"{study.title}: analysis")}
    for arm, notebook in trainings.items():
        pages[f"train-{arm}"] = (notebook, f"{study.title}: one training of {arm}")
    html = folder / "html"
    for page, (notebook, title) in pages.items():
        notebook_to_html(notebook, html / f"{page}.html", title)
    text = (ROOT / PREREGISTRATION).read_text(encoding="utf-8")
    write_page(_one_cell(_without_local_links(text)), html / "preregistration.html", "Preregistration")
    index = _index(study, folder, trainings)
    write_page(index, html / "index.html", study.title)
    return html / "index.html"


def _index(study, folder, trainings):
    results = read_json(folder / "results.json")
    lines = [f"# {study.title}", f"**{conclusion(results['primary'])}**", DESCRIPTIONS[results["data_source"]] + "."]
    figure = folder / FIGURE
    if figure.exists():
        lines.append(f"![Test accuracy of both arms by seed, and the paired differences](attachment:{figure.name})")
    lines.append(_links(study, folder, trainings))
    cell = _one_cell("\n\n".join(lines))
    if figure.exists():
        picture = base64.b64encode(figure.read_bytes()).decode()
        cell.cells[0].attachments = {figure.name: {"image/png": picture}}
    return cell


def _links(study, folder, trainings):
    rows = [("the analysis, figures and code", "analysis.html")]
    rows += [(f"one training of {arm}", f"train-{arm}.html") for arm in trainings]
    rows.append(("the preregistration of the full-scale study", "preregistration.html"))
    outside = [
        *([("the paper", PAPER)] if study.name in REPORTED else []),
        ("every number, for programs", folder / "results.json"),
        ("tables", folder / "tables"),
    ]
    rows += [(what, os.path.relpath(path, folder / "html")) for what, path in outside if path.exists()]
    return "\n".join(f"- [{what}]({link})" for what, link in rows)


def _one_cell(text):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="text")])  # no random id: equal pages


def _without_local_links(text):
    """The text with links into the checkout as plain words, since the page is read elsewhere too."""
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", text)
