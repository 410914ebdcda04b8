"""The pages of a study for readers without Jupyter: executed notebooks as HTML that needs no network and no scripts."""

import re
from html import escape
from os.path import relpath

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from lib.analyse.results import load_runs
from lib.files import REPORT, ROOT, StudyError, atomic_write, outputs_folder, read_json, shown, write_json
from lib.launch.notebook import run_process
from lib.runs import finished_runs
from lib.study import SEPARATOR

TEMPLATES = ROOT / "lib" / "templates"


def write_pages(study, name):
    """Write html/train-<arm>.html for each arm with a finished run, and analysis.html; returns the path of the last.

    name: what the notebooks' parameter `study` gets. Raises StudyError for a notebook that fails or is damaged.
    """
    folder = outputs_folder(study.name)
    page = folder / "html" / "analysis.html"
    links = [(path, path.stem) for path in (folder / "tables", REPORT / "paper.pdf", REPORT / "preregistration.md")]
    for arm, notebook in ensure_notebooks(study, name).items():
        training_page = page.with_name(f"train-{arm}.html")
        links.append((training_page, f"one run of {arm}"))
        notebook_to_html(notebook, training_page, f"{study.title}: one training of {arm}")
    notebook_to_html(folder / "notebooks" / "analysis.ipynb", page, f"{study.title}: analysis", True, links)
    return page


def ensure_notebooks(study, name):
    """{arm: path of an executed training notebook} for each arm with a finished run, of whatever variant.

    A notebook that is missing, or shows another run, is executed over the finished run, which repeats nothing. Until
    the primary comparison is complete, none shows a run of it: two of them would show a first difference.
    """
    notebooks, runs = {}, load_runs(study)
    withheld = set(runs.loc[runs["withheld"], "arm"])
    for config, folder, summary in finished_runs(study):
        arm = config.arm.split(SEPARATOR)[0]
        if config.validation_images or arm in notebooks or config.arm in withheld:
            continue
        executed, kept = folder / "notebook.ipynb", outputs_folder(study.name) / "notebooks" / f"train-{arm}.ipynb"
        shows = f"{config.arm} seed {config.seed}, finished {summary['finished_utc']}"
        earlier = (read_json(kept) or {"metadata": {}})["metadata"].get("shows")
        if not read_json(executed) and earlier != shows:
            run_process(study, name, config, {}).wait()
        if notebook := read_json(executed):
            notebook["metadata"]["shows"] = shows
            write_json(kept, notebook)
        notebooks[arm] = kept
    return notebooks


def notebook_to_html(notebook_path, html_path, title, fold_code=False, links=()):
    """Write an executed notebook as one page: formulas as MathML, contents after the summary or else after the title.

    fold_code: code shows only on a click; links: (path, text) to name after the contents. StudyError if it is damaged.
    """
    exporter = HTMLExporter(template_name="offline", extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("markdown2html", MarkdownWithMath(_MathRenderer(escape=False)).render)
    try:
        page, _ = exporter.from_file(str(notebook_path), {"metadata": {"name": title}, "fold_code": fold_code})
    except Exception as error:  # noqa: BLE001 system, JSON, key and schema errors all mean the same here
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"{shown(notebook_path)} is damaged ({reason}): delete it and run again") from None
    targets = {f"#{anchor}": text for anchor, text in re.findall(r'<h2 id="([^"]+)"[^>]*>(.*?)<a class="anchor', page)}
    targets |= {relpath(path, html_path.parent): text for path, text in links}
    items = "".join(f'<li><a href="{target}">{text}</a></li>' for target, text in targets.items())
    at = page.find("<h2 ", page.find("<h2 ") + 1) if "#Summary" in [*targets][:1] else page.find("</h1>") + 5
    atomic_write(html_path, f"{page[:at]}<nav><ul>{items}</ul></nav>\n{page[at:]}".encode())


class _MathRenderer(IPythonRenderer):
    def inline_math(self, body):
        return _mathml(body, "inline")

    def block_math(self, body):
        return _mathml(body, "block")


def _mathml(tex, display):
    """MathML of a formula, or its TeX source as code where latex2mathml cannot convert all of it."""
    try:
        mathml = convert(tex.replace("{aligned}", "{split}"), display=display)  # the name that it knows
    except Exception:  # noqa: BLE001 its errors share no class
        mathml = "\\"
    if "\\" in mathml:  # it lets unknown commands through as they are
        return f"<code>{escape(tex.strip(), quote=False)}</code>"
    return re.sub("<mi>(&#x000B1;|&#x0007E;)</mi>", r"<mo>\1</mo>", mathml)  # it takes \pm and \sim for variables
