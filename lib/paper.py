"""The paper: its numbers from results.json, the claims that guard its sentences, and its PDF. `python -m lib.paper`"""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.files import REPORT, ROOT, StudyError, atomic_write, read_json, shown

PAGE_LIMIT, OVERFULL_LIMIT_PT = 4, 2
INSTALL = "install TeX Live, on Debian or Ubuntu texlive-latex-recommended texlive-fonts-recommended latexmk"
LATEXMK = ("latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error")
# no dates, no trailer identifier, and no names of included files: what would make equal input give unequal PDFs
LATEXMK += ("-usepretex", r"-pretex=\pdfinfoomitdate=1 \pdftrailerid{}\pdfsuppressptexinfo=-1 ")
LATEXMK += ("-latexoption=-no-shell-escape", "paper.tex")
# a \today that does not depend on the day, and one line (in characters) for each message of the log
ENVIRONMENT = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "max_print_line": "10000"}


class MissingTeXError(StudyError):
    """TeX is not installed: everything but the PDF is there without it."""


def build(results_path=None, report_folder=REPORT):
    """Write numbers.tex, check every claim, and put paper.pdf in place; returns the PDF's number of pages.

    results_path: by default that of `paper` in outputs/, whatever STUDY_OUTPUTS says; those of replication and gates
    lie beside it. report_folder has paper.tex, claims.py, references.bib and the style. Equal input, equal PDF. Raises
    MissingTeXError, or StudyError for a claim that no longer holds or another fault; an older PDF then stays as it is.
    """
    results_path = Path(results_path or ROOT / "outputs" / "paper" / "results.json")
    if (results := read_json(results_path)) is None:
        raise StudyError(f"there is no {shown(results_path)} for the paper: ./run_all.sh --study paper writes it")
    results |= {name: read_json(results_path.parents[1] / name / "results.json") for name in ("replication", "gates")}
    guard = runpy.run_path(str(report_folder / "claims.py"))
    text = re.sub(r"(?<!\\)%.*", "", (report_folder / "paper.tex").read_text(encoding="utf-8"))
    write_numbers(report_folder / "numbers.tex", guard["NUMBERS"], results, text)
    check_claims(guard["CLAIMS"], results, text)
    return typeset(report_folder)


def evaluate(function, results):
    """What the function finds in the results; None where they have no such number yet."""
    try:
        return function(results)
    except (KeyError, IndexError, TypeError, ValueError, OSError):  # or no such table
        return None


def write_numbers(path, numbers, results, text):
    """Write one LaTeX macro for each number that there is; StudyError where the text uses one that there is not.

    numbers: {macro: (format, function of the results)}; a function gives None for a number that does not exist yet.
    """
    values = {name: evaluate(function, results) for name, (_, function) in numbers.items()}
    used = set(re.findall(r"\\([A-Za-z]+)", text))
    if absent := [name for name, value in values.items() if value is None and name in used]:
        raise StudyError(f"paper.tex uses \\{absent[0]}, a number that outputs/ does not have yet: take it out")
    macros = "% written by lib/paper.py from what report/claims.py says\n"
    for name, value in values.items():
        if value is not None:
            number = numbers[name][0].format(value).replace("%", r"\,\%").replace("-", "$-$")
            macros += f"\\newcommand{{\\{name}}}{{{number}}}\n"
    atomic_write(path, macros.encode())


def check_claims(claims, results, text):
    """Raise StudyError unless every sentence stands in the text and its assertion holds of the results.

    claims: [(sentence as in paper.tex, function of the results)]; line breaks and spaces do not matter.
    """
    words = " ".join(text.split())
    for sentence, holds in claims:
        sentence = " ".join(sentence.split())
        if sentence not in words:
            raise StudyError(f'claims.py guards a sentence that paper.tex does not have: "{sentence}"')
        if not evaluate(holds, results):
            raise StudyError(f'claim no longer holds: "{sentence}"')


def typeset(report_folder):
    """Build paper.pdf from paper.tex and replace it if the new one has no fault; returns its number of pages."""
    if not all(shutil.which(program) for program in ("latexmk", "pdflatex", "bibtex")):
        raise MissingTeXError(f"the paper's PDF needs latexmk, pdflatex and bibtex: {INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        output = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        environment, command = os.environ | ENVIRONMENT, [*LATEXMK, f"-outdir={folder}"]
        latexmk = subprocess.run(command, cwd=report_folder, env=environment, errors="replace", **output)
        log = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("paper.[bl]?g")))
        if latexmk.returncode:
            raise StudyError(f"paper.tex cannot be built: {first_error(log, latexmk.stdout)}")
        pages = int(re.search(r"^Output written on .*\((\d+) page", log, re.MULTILINE)[1])
        if fault := layout_fault(log, pages):
            raise StudyError(f"paper.tex: {fault}")
        atomic_write(report_folder / "paper.pdf", (folder / "paper.pdf").read_bytes())
    return pages


def first_error(log, output):
    """The first error, in one line, of the logs of LaTeX and BibTeX, or of what latexmk printed."""
    if error := re.search(r"^(?:! |(?P<file>\S[^:\n]*):\d+: )(?P<message>.+)$", log, re.MULTILINE):
        advice = f" If it belongs to TeX Live: {INSTALL}" if "not found" in error["message"] else ""
        place = re.search(r"^l\.(\d+) *(.*)$", log[error.end() :], re.MULTILINE)
        where = f"{Path(error['file'] or 'paper.tex').name} line {place[1]} ({place[2].strip()}): " if place else ""
        return where + error["message"] + advice
    if error := re.search(r"^(.+)\n?---line (\d+) of file (.+)$", log, re.MULTILINE):
        return f"{Path(error[3]).name} line {error[2]}: {error[1]}"
    if missing := re.search(r"don't find the following files:\s+(.+)$", output, re.MULTILINE):
        return f"{missing[1]} is not there"
    return output.strip().rpartition("\n")[2]


def layout_fault(log, pages):
    """What is wrong, in one line, with a paper that LaTeX could set; None if nothing is."""
    if undefined := re.findall(r"Warning: (?:Reference|Citation) [`']([^']+)'.* undefined", log):
        return f"references or citations without a label or an entry: {', '.join(dict.fromkeys(undefined))}"
    for box, excess_pt in re.findall(r"^Overfull (\\[hv]box \(([\d.]+)pt too (?:wide|high)\).*)$", log, re.MULTILINE):
        if float(excess_pt) > OVERFULL_LIMIT_PT:
            return f"a box runs over by more than {OVERFULL_LIMIT_PT} pt, shorten or reword it: {box}"
    return f"{pages} pages, and {PAGE_LIMIT} are allowed" if pages > PAGE_LIMIT else None


if __name__ == "__main__":
    try:
        print(f"{shown(REPORT / 'paper.pdf')}: {build()} pages")
    except StudyError as error:
        sys.exit(f"error: {error}")
