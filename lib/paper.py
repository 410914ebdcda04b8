"""The paper as a PDF: its bibliography style derived from TeX Live's own, and its build by latexmk, checked."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lib.errors import StudyError
from lib.paths import ROOT, shown

PAGE_LIMIT = 4
OVERFULL_LIMIT_PT = 2
PROGRAMS = ("pdflatex", "bibtex", "latexmk", "kpsewhich", "pdfinfo")
INSTALL = (
    "on Debian or Ubuntu install texlive-latex-base texlive-latex-recommended texlive-fonts-recommended "
    "latexmk poppler-utils, elsewhere TeX Live and poppler"
)
BIBLIOGRAPHY_STYLE = "iclrstyle.bst"
# What the references of ICLR 2019 have otherwise than plainnat.bst: (function, its text, our text).
BIBLIOGRAPHY_CHANGES = (
    ("format.editors", '", editors"', '" (eds.)"'),
    ("format.editors", '", editor"', '" (ed.)"'),
    ("format.pages", '"pages"', '"pp. "'),
    ("format.pages", '"page"', '"pp. "'),
    ("format.lab.names", '" and "', '" \\& "'),
)
# No dates, no trailer identifier, and no names of included files: what would make equal input give unequal PDFs.
REPRODUCIBLE = r"\pdfinfoomitdate=1 \pdftrailerid{}\pdfsuppressptexinfo=-1 "
LATEXMK = ("latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error")
LATEXMK += ("-latexoption=-no-shell-escape", "-usepretex", f"-pretex={REPRODUCIBLE}")


def missing_tex():
    """Names of the programs the paper needs that are not installed, a list that is empty where all are."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def derive_bibliography_style(folder):
    """Writes iclrstyle.bst, TeX Live's plainnat.bst with the texts of ICLR 2019, into the folder; returns its path.

    The original stands under the LaTeX Project Public License, which asks that a changed copy has another name.
    Raises StudyError where plainnat.bst is not installed or has not the texts to be changed.
    """
    source = subprocess.run(["kpsewhich", "plainnat.bst"], capture_output=True, text=True).stdout.strip()
    if not source:
        raise StudyError(f"plainnat.bst, the bibliography style of natbib, is not installed: {INSTALL}.")
    functions = re.split(r"^(?=FUNCTION )", Path(source).read_text(encoding="latin-1"), flags=re.MULTILINE)
    for name, old, new in BIBLIOGRAPHY_CHANGES:
        places = [i for i, text in enumerate(functions) if text.startswith(f"FUNCTION {{{name}}}")]
        if len(places) != 1 or functions[places[0]].count(old) != 1:
            raise StudyError(f"{source} is not the plainnat.bst we know: {old} is not once in {name}. Update natbib.")
        functions[places[0]] = functions[places[0]].replace(old, new)
    note = "% A changed copy of plainnat.bst, derived when the paper is built.\n"
    style = Path(folder) / BIBLIOGRAPHY_STYLE
    style.write_text(note + "".join(functions), encoding="latin-1")
    return style


def build_paper(tex_path, output_pdf):
    """Builds the LaTeX file into output_pdf, which is only replaced by a paper without faults; returns its page count.

    Equal input gives an equal PDF. Files that LaTeX reads are looked up in the folder of tex_path, then in report/.
    Raises StudyError with one line for missing programs, an error of LaTeX or BibTeX, undefined references or
    citations, a box more than 2 pt too large, and more than 4 pages.
    """
    tex_path, output_pdf = Path(tex_path).resolve(), Path(output_pdf).resolve()
    if missing := missing_tex():
        raise StudyError(f"The paper cannot be built without {', '.join(missing)}: {INSTALL}.")
    if not tex_path.is_file():
        raise StudyError(f"There is no {shown(tex_path)} to build.")
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / f"{tex_path.stem}.pdf"
        derive_bibliography_style(folder)
        latexmk = run_latexmk(tex_path, folder)
        log = read_log(pdf.with_suffix(".log"))
        if latexmk.returncode:
            fault = first_error(log, read_log(pdf.with_suffix(".blg")), latexmk.stdout)
            raise StudyError(f"{shown(tex_path)} cannot be built: {fault}")
        page_count = count_pages(pdf)
        if fault := layout_fault(log, page_count):
            raise StudyError(f"{shown(tex_path)}: {fault}")
        output_pdf.parent.mkdir(parents=True, exist_ok=True)
        partial = output_pdf.with_name(f"{output_pdf.name}.partial")
        shutil.copyfile(pdf, partial)
        partial.replace(output_pdf)
    return page_count


def run_latexmk(tex_path, folder):
    """Runs latexmk on the file in its own folder, with all that it writes in the other; the finished process."""
    environment = os.environ | {
        "TEXINPUTS": f".:{ROOT / 'report'}:",
        "BSTINPUTS": f".:{folder}:",
        "SOURCE_DATE_EPOCH": "0",  # seconds; with the next one \today does not depend on the day either
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "10000",  # characters: a message of the log stays on one line
    }
    return subprocess.run(
        [*LATEXMK, f"-outdir={folder}", tex_path.name],
        cwd=tex_path.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def count_pages(pdf):
    """Number of pages of a PDF file."""
    information = subprocess.run(["pdfinfo", pdf], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"^Pages:\s+(\d+)$", information, re.MULTILINE)[1])


def read_log(path):
    """Text of a log of TeX, in whatever encoding; empty where the program did not get as far."""
    return path.read_text(errors="replace") if path.exists() else ""


def first_error(log, bibtex_log, output):
    """First error, in one line, of the logs of LaTeX and BibTeX and of what latexmk printed."""
    if error := re.search(r"^(?:! |(?P<file>\S[^:\n]*):\d+: )(?P<message>.+)$", log, re.MULTILINE):
        message, name = error["message"], Path(error["file"] or "").name
        advice = f" If it is a part of TeX Live: {INSTALL}." if "not found" in message else ""
        place = re.search(r"^l\.(\d+) *(.*)$", log[error.end() :], re.MULTILINE)
        where = f"{name} line {place[1]}".strip() + f" ({place[2].strip()}): " if place else ""
        return where + message + advice
    if error := re.search(r"^(.+)\n?---line (\d+) of file (.+)$", bibtex_log, re.MULTILINE):
        return f"{Path(error[3]).name} line {error[2]}: {error[1]}"
    if missing := re.search(r"don't find the following files:\n *(.+)$", output, re.MULTILINE):
        return f"{missing[1]} is not there."
    return output.strip().rpartition("\n")[2] or "latexmk failed without a word."


def layout_fault(log, page_count):
    """What is wrong with a paper that LaTeX could set, in one line from its last log; None if nothing is."""
    undefined = re.findall(r"Warning: (?:Reference|Citation) [`']([^']+)'.* undefined", log)
    if undefined:
        return f"references or citations without a label or an entry: {', '.join(dict.fromkeys(undefined))}."
    boxes = re.findall(r"^Overfull (\\[hv]box \(([\d.]+)pt too (?:wide|high)\).*)$", log, re.MULTILINE)
    box, excess_pt = max(boxes, key=lambda found: float(found[1]), default=("", "0"))
    if float(excess_pt) > OVERFULL_LIMIT_PT:
        return f"a box runs over by more than {OVERFULL_LIMIT_PT} pt, shorten or reword it: {box}."
    if page_count > PAGE_LIMIT:
        return f"{page_count} pages, and {PAGE_LIMIT} are allowed."
    return None
