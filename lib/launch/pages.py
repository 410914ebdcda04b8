"""The pages of a study for readers without Jupyter: each an executed notebook as HTML that needs no network."""

import re
from html import escape

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from lib.files import ROOT, StudyError, atomic_write, outputs_folder, shown
from lib.launch.notebook import run_process
from lib.runs import finished_runs
from lib.study import SEPARATOR

def notebook_to_html(notebook_path, html_path, title, fold_code=False):
    """Write an executed notebook as one page without scripts: formulas as MathML, a table of contents.

    fold_code: whether code shows only on a click. Raises StudyError for a notebook that cannot be read and for a page
    that cannot be written.
    """
    resources = {"metadata": {"name": title}, "fold_code": fold_code}
    try:
        page, _ = _exporter().from_file(str(notebook_path), resources)
    except Exception as error:  # noqa: BLE001 system, JSON, key and schema errors all mean the same here
        raise StudyError(f"{shown(notebook_path)} is damaged ({_one_line(error)}): delete it and run again") from None
    sections = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', page)
    links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in sections)
    page = page.replace("<h2 ", f"<nav><ul>{links}</ul></nav>\n<h2 ", 1)
    atomic_write(html_path, lambda file: file.write(page.encode()))


def _exporter():
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class MathRenderer(IPythonRenderer):
        def inline_math(self, body):
            return _mathml(body, "inline")

        def block_math(self, body):
            return _mathml(body, "block")

    exporter = HTMLExporter(template_name="offline", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", MarkdownWithMath(MathRenderer(escape=False)).render)
    return exporter


def _mathml(tex, display):
    """MathML of a formula, or its TeX source as code where latex2mathml cannot convert all of it."""
    from latex2mathml.converter import convert

    try:
        mathml = convert(tex.replace("{aligned}", "{split}"), display=display)  # the name that it knows
    except Exception:  # noqa: BLE001 its errors share no class
        mathml = "\\"
    if "\\" in mathml:  # it lets unknown commands through as they are
        return f"<code>{escape(tex.strip(), quote=False)}</code>"
    return re.sub("<mi>(&#x000B1;|&#x0007E;)</mi>", r"<mo>\1</mo>", mathml)  # it takes \pm and \sim for variables


