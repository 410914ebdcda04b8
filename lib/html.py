"""An executed notebook as one HTML page that is read without a network: formulas as MathML, no scripts."""

import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from lib.errors import StudyError
from lib.paths import shown
from lib.runs import atomic_write

TEMPLATES = Path(__file__).resolve().parent / "templates"
NEEDS_SCRIPTS = {"application/vnd.jupyter.widget-view+json", "application/javascript"}


def notebook_to_html(notebook_path, html_path, title):
    """Write an executed notebook as one self-contained HTML page.

    `html_path` is a Path, replaced whole or not at all; `title` is the title of the page. Outputs that need scripts
    are left out, and what a cell links from elsewhere, such as a remote image, is not shown.
    Raises StudyError for a notebook that cannot be read and for a page that cannot be written.
    """
    write_page(_read_notebook(notebook_path), html_path, title)


def write_page(notebook, html_path, title):
    """The same from a notebook in memory."""
    notebook.metadata["title"] = title
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not NEEDS_SCRIPTS & set(output.get("data", ()))]
    exporter = _OfflineExporter(
        template_name="offline",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    page, _ = exporter.from_notebook_node(notebook)
    atomic_write(html_path, lambda file: file.write(page.encode()))


def _read_notebook(path):
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # noqa: BLE001 system, JSON, key and schema errors all mean the same here
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"{shown(path)} cannot be read as a notebook ({reason}): execute it again") from None
    return notebook


class _OfflineExporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source):
        attachments = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(_MathRenderer(escape=False, attachments=attachments)).render(source)


class _MathRenderer(IPythonRenderer):
    def inline_math(self, body):
        return _mathml(body, "inline")

    def block_math(self, body):
        return _mathml(body, "block")

    def latex_environment(self, name, body):
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


def _mathml(tex, display):
    """MathML of a formula, or its TeX source as code where latex2mathml cannot convert all of it."""
    try:
        mathml = convert(tex.replace("{aligned}", "{split}"), display=display)  # the name that it knows
        tree = ElementTree.fromstring(mathml)
    except Exception:  # noqa: BLE001 its errors share no class
        return _source(tex)
    # It lets unknown commands through as they are, and makes fractions of one part.
    if "\\" in mathml or any(part.tag.endswith("mfrac") and len(part) < 2 for part in tree.iter()):
        return _source(tex)
    return re.sub("<mi>(&#x000B1;|&#x0007E;)</mi>", r"<mo>\1</mo>", mathml)  # it takes \pm and \sim for variables


def _source(tex):
    return f"<code>{escape(tex.strip(), quote=False)}</code>"
