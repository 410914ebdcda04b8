import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from lib.errors import StudyError
from lib.paper import build_paper, derive_bibliography_style, missing_tex
from lib.paths import ROOT

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "paper_oracle.json").read_text(encoding="utf-8"))
STYLE = ROOT / "report" / "iclrstyle.sty"
TOLERANCE_BP = 0.5
MODES = ["submission", "final"]

needs_tex = pytest.mark.skipif(bool(missing_tex()), reason=f"not installed: {', '.join(missing_tex())}")


def build(folder, source, name="paper"):
    (folder / f"{name}.tex").write_text(source, encoding="utf-8")
    build_paper(folder / f"{name}.tex", folder / f"{name}.pdf")
    return folder / f"{name}.pdf"


def document(body, preamble=r"\usepackage{iclrstyle,times}"):
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"


def program(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read_words(pdf):
    """Words of a PDF as (page, text, x_min, x_max, y_min, y_max), in bp from the top left corner.

    Versions of poppler may draw other boxes around the same type: heights and lower edges are scaled to those in which
    the first word, of the header, reaches from 28.61 to 37.52. A header out of place then shifts all other words.
    """
    pages = ElementTree.fromstring(program("pdftotext", "-bbox", pdf, "-")).iter("{http://www.w3.org/1999/xhtml}page")
    sides = ("xMin", "xMax", "yMin", "yMax")
    words = [(i, word.text, *(float(word.get(s)) for s in sides)) for i, page in enumerate(pages, 1) for word in page]
    *_, y_min, y_max = words[0]
    scale = (37.52 - 28.61) / (y_max - y_min)
    drop = (37.52 - y_max) / (37.52 - 28.61)  # of a box's height
    scaled = []
    for *word, y_min, y_max in words:
        height = scale * (y_max - y_min)
        lower_edge = y_max + drop * height
        scaled.append((*word, lower_edge - height, lower_edge))
    return scaled


def find(words, page, text):
    return next(word for word in words if word[:2] == (page, text))


def left(words, text):
    return find(words, 1, text)[2]


def bottom(words, text):
    return find(words, 1, text)[5]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def plain_text(pdf):
    return " ".join(program("pdftotext", pdf, "-").split())


def darkness(pdf, page):
    """Darkness (0 to 255) of the pixels of a page at 144 dpi, two pixels to the bp."""
    command = ["pdftoppm", "-r", "144", "-gray", "-f", str(page), "-l", str(page), pdf]
    image = subprocess.run(command, capture_output=True, check=True).stdout
    columns, rows = map(int, re.match(rb"P5\s(\d+)\s(\d+)\s255\s", image).groups())
    return 255 - np.frombuffer(image[-rows * columns :], np.uint8).reshape(rows, columns).astype(int)


@pytest.fixture(scope="module")
def oracle_pdfs(tmp_path_factory):
    source = (HERE / "oracle.tex").read_text(encoding="utf-8").replace("STYLENAME", "iclrstyle")
    source = source.replace("BSTNAME", "iclrstyle")
    sources = {"submission": source, "final": source.replace("%FINAL%", "")}
    return {mode: build(tmp_path_factory.mktemp(mode), text) for mode, text in sources.items()}


@pytest.fixture(params=MODES)
def oracle(request, oracle_pdfs):
    """Mode, PDF and words of the probe."""
    return request.param, oracle_pdfs[request.param], read_words(oracle_pdfs[request.param])


def deviation_bp(words, page, text, baseline=None, size=None, **sides):
    """Largest distance of the nearest such word from its expected place; the size counts as the height of its box."""
    # 0.216 of the size lies below the baseline in the boxes that poppler draws around Times
    candidates = []
    for x_min, x_max, y_min, y_max in (word[2:] for word in words if word[:2] == (page, text)):
        measured = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max}
        deviations = [abs(measured[side] - value) for side, value in sides.items() if value is not None]
        if baseline is not None:
            deviations.append(abs(y_max - 0.216 * (y_max - y_min) / 0.894 - baseline))
        if size is not None:
            deviations.append(abs((y_max - y_min) / 0.894 - size))
        candidates.append(max(deviations))
    return min(candidates, default=float("inf"))


def check_deviations(off, what, mode):
    """Nothing is off by more than the tolerance; with STUDY_EVIDENCE set, all deviations (bp) go into a table there."""
    if folder := os.environ.get("STUDY_EVIDENCE"):
        path = Path(folder) / "style" / f"{mode}-{what}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{item},{value:.4f}" for item, value in sorted(off.items(), key=lambda pair: -pair[1])]
        path.write_text("\n".join(["item,deviation_bp", *rows]) + "\n", encoding="utf-8")
    assert not {item: value for item, value in off.items() if not value <= TOLERANCE_BP}


def rows_of(table, part):
    return [dict(zip(table["columns"], row, strict=True)) for row in table[part]]


@needs_tex
def test_every_word_of_the_probe_stands_where_the_official_style_puts_it(oracle):
    mode, _, words = oracle
    rows = rows_of(ORACLE["words"], mode)
    off = {}
    for row in rows:
        first = next((word for word in words if word[0] == row["page"] and word[1].startswith(row["word"])), None)
        expected = [row["x_min"], row["y_min"], row["y_max"]]
        measured = [first[2], first[4], first[5]] if first else [float("inf")] * 3
        off[row["word"]] = max(abs(a - b) for a, b in zip(expected, measured, strict=True))
    check_deviations(off, "words", mode)


@needs_tex
def test_every_word_of_the_probe_has_its_size_and_face(oracle):
    # A box is 0.894 of the size high in roman, 0.899 in bold, 0.862 in italic: 0.03 bp tells the three apart.
    mode, _, words = oracle
    for row in rows_of(ORACLE["words"], mode):
        *_, y_min, y_max = next(w for w in words if w[0] == row["page"] and w[1].startswith(row["word"]))
        assert y_max - y_min == pytest.approx(row["y_max"] - row["y_min"], abs=0.03), row


@needs_tex
def test_headers_numbers_labels_and_right_edges_of_the_probe(oracle):
    mode, _, words = oracle
    off = {f"{row['page']} {row['word']}": deviation_bp(words, row.pop("page"), row.pop("word"), **row)
           for row in rows_of(ORACLE["fixed"], mode)}  # fmt: skip
    check_deviations(off, "fixed-items", mode)


@needs_tex
def test_the_ten_type_sizes_and_their_leading(oracle):
    mode, _, words = oracle
    off = {row["word"]: deviation_bp(words, row.pop("page"), row.pop("word"), **row)
           for row in rows_of(ORACLE["sizes"], "rows")}  # fmt: skip
    assert len(off) == 20
    check_deviations(off, "sizes", mode)


@needs_tex
def test_rules_of_header_and_footnotes(oracle):
    mode, pdf, _ = oracle
    for page in (1, 2, 3):
        dark = darkness(pdf, page)
        assert dark.shape == (2 * 792, 2 * 612)
        columns = np.flatnonzero(dark[78] > 128)
        assert (columns[0], columns[-1], len(columns)) == (216, 1007, 792)
    note_rule = {"submission": 1416, "final": 1397}[mode]
    columns = np.flatnonzero(darkness(pdf, 1)[note_rule - 1 : note_rule + 2].max(axis=0) > 128)
    assert columns[0] == pytest.approx(216, abs=1)
    assert columns[-1] + 1 == pytest.approx(2 * 251.5, abs=1)
    assert len(columns) == columns[-1] - columns[0] + 1


@needs_tex
def test_citations_and_references_read_as_in_iclr(oracle):
    text = plain_text(oracle[1])
    assert "mkcitet Quill & Reed (2001); mkcitep (Quill & Reed, 2001); mkciteplain Stone (1999)" in text
    assert "mkcitemany (Quill & Reed, 2001; Vale et al., 2010)" in text
    assert "mkciteyears (Quill & Reed, 2001; 2005); mkcitenote (see Vale et al., 2010, p. 2)." in text
    assert "In Dan Tile and Eve Umber (eds.), The mkbooktitle Volume, pp. 151. Press House, 1999." in text
    assert "Finn Vale, Gus Wood, and Hal Yarn. Long Book." in text


@needs_tex
def test_submission_names_nobody_and_final_names_everybody(oracle):
    mode, pdf, _ = oracle
    text = plain_text(pdf)
    names = ["mkautha", "mkaffila", "mkauthb", "mkauthc", "mkthanks"]
    assert [name in text for name in names] == [mode == "final"] * len(names)
    assert ("Anonymous authors" in text) == (mode == "submission")


@needs_tex
def test_fonts_are_embedded_times(oracle):
    fonts = [line.split() for line in program("pdffonts", oracle[1]).splitlines()[2:]]
    assert {font[-5] for font in fonts} == {"yes"}
    assert {"NimbusRomNo9L-Regu", "NimbusRomNo9L-Medi", "NimbusRomNo9L-ReguItal"} <= {f[0].split("+")[1] for f in fonts}


def one_line_title(folder, authors):
    body = r"\maketitle\begin{abstract}One line abstract.\end{abstract}Plain paragraph."
    author = r"\author{" + r" \And ".join(authors) + "}"
    preamble = r"\usepackage{iclrstyle,times}\iclrfinalcopy\title{One line}" + author
    return read_words(build(folder, document(body, preamble)))


@needs_tex
def test_title_block_of_a_one_line_title_with_two_authors(tmp_path):
    words = one_line_title(tmp_path, [r"Aone \\ x", r"Atwo \\ y"])
    below_baseline = 0.216  # of the size, roman; 0.209 bold
    assert bottom(words, "O") - below_baseline * 17.22 == pytest.approx(93.55, abs=TOLERANCE_BP)
    assert bottom(words, "Aone") - 0.209 * 9.96 == pytest.approx(124.65, abs=TOLERANCE_BP)
    assert bottom(words, "A") - below_baseline * 11.96 == pytest.approx(176.86, abs=TOLERANCE_BP)
    assert bottom(words, "One") - below_baseline * 9.96 == pytest.approx(201.02, abs=TOLERANCE_BP)
    assert bottom(words, "Plain") - bottom(words, "One") == pytest.approx(26.40, abs=TOLERANCE_BP)
    assert [left(words, name) for name in ("Aone", "Atwo")] == pytest.approx([113.98, 311.75], abs=TOLERANCE_BP)
    assert "Page size:       612 x 792 pts (letter)" in program("pdfinfo", tmp_path / "paper.pdf")


@needs_tex
def test_three_authors_share_the_free_space_in_thirds_and_marks_of_notes_take_none(tmp_path):
    words = one_line_title(tmp_path, [r"Aone\thanks{Note.} \\ x", r"Atwo \\ y", r"Athree \\ z"])
    starts = [left(words, name) for name in ("Aone", "Atwo", "Athree")]
    assert starts == pytest.approx([113.98, 243.49, 373.46], abs=TOLERANCE_BP)
    assert len({bottom(words, name) for name in ("Aone", "Atwo", "Athree")}) == 1


@needs_tex
def test_author_that_does_not_fit_goes_to_the_next_row(tmp_path):
    words = one_line_title(tmp_path, [r"Aone \\ x\hspace{370pt}x", r"Atwo \\ y"])
    assert bottom(words, "Atwo") - bottom(words, "Aone") == pytest.approx(39.15, abs=TOLERANCE_BP)
    assert left(words, "Atwo") == pytest.approx(113.98, abs=TOLERANCE_BP)


LIST_SPACES = [  # levels 1 to 5: topsep, partopsep, itemsep, parsep, left margin, label width
    "4.0pt plus 1.0pt minus 2.0pt / 1.0pt plus 0.5pt minus 0.5pt / 2.0pt plus 1.0pt minus 0.5pt / "
    "2.0pt plus 1.0pt minus 0.5pt / 36.0pt / 20.0pt",
    "2.0pt plus 1.0pt minus 0.5pt / 1.0pt plus 0.5pt minus 0.5pt / 1.0pt plus 0.5pt minus 0.5pt / "
    "1.0pt plus 0.5pt minus 0.5pt / 20.0pt / 15.0pt",
    *(
        f"1.0pt plus 0.5pt minus 0.5pt / 0.5pt minus 0.5pt / 1.0pt plus 0.5pt minus 0.5pt / 0.0pt / {margin} / {width}"
        for margin, width in (("15.0pt", "10.0pt"), ("10.0pt", "5.0pt"), ("5.0pt", "0.0pt"))
    ),
]


@needs_tex
def test_spaces_that_show_on_full_pages_and_in_deep_lists_only(tmp_path):
    parts = ("topsep", "partopsep", "itemsep", "parsep", "leftmargin", "labelwidth")
    item = r"\begin{list}{}{}\item \small " + " / ".join(rf"\the\{part}{{}}" for part in parts) + ". "
    lists = item * 5 + r"\end{list}" * 5
    text = plain_text(
        build(tmp_path, document(rf"Notes \the\skip\footins. Floats \topfraction, \textfraction. {lists}"))
    )
    assert "Notes 9.0pt plus 4.0pt minus 2.0pt. Floats 0.95, 0.05." in text
    assert " ".join(f"{spaces}." for spaces in LIST_SPACES) in text


@needs_tex
def test_hyperref_and_the_packages_of_a_paper_load_after_the_style(tmp_path):
    packages = r"\usepackage{iclrstyle,times,amsmath,booktabs,graphicx,microtype,hyperref}\iclrfinalcopy"
    preamble = packages + r"\title{One line}\author{Aone\thanks{Note.} \\ x}"
    words = read_words(build(tmp_path, document(r"\maketitle\section{One}\label{s}Section \ref{s}.", preamble)))
    assert left(words, "Published") == pytest.approx(108.00, abs=TOLERANCE_BP)
    assert left(words, "Aone") == pytest.approx(113.98, abs=TOLERANCE_BP)
    assert left(words, "Note.") == pytest.approx(124.14, abs=TOLERANCE_BP)


CHOICE = [line[4:] for line in STYLE.read_text(encoding="utf-8").splitlines() if line.startswith(r"%   \IfFileExists")]
BOOK = (
    "@incollection{eds, author={Carla Stone}, title={A}, booktitle={B}, editor={Dan Tile and Eve Umber}, year={1999}}"
)


def paper_with_either_style(folder):
    (folder / "refs.bib").write_text(BOOK, encoding="utf-8")
    load_style, load_bibliography_style = CHOICE
    return plain_text(
        build(folder, document(rf"\citet{{eds}} {load_bibliography_style}\bibliography{{refs}}", load_style))
    )


@needs_tex
def test_our_style_is_found_from_any_folder_where_there_is_no_official_one(tmp_path):
    text = paper_with_either_style(tmp_path)
    assert text.startswith("Under review as a conference paper at ICLR 2019")
    assert "Dan Tile and Eve Umber (eds.)" in text


@needs_tex
def test_official_files_beside_the_paper_are_taken_instead(tmp_path):
    stand_in = r"\ProvidesPackage{iclr2019_conference}\RequirePackage{natbib}\AtBeginDocument{The stand-in. }"
    (tmp_path / "iclr2019_conference.sty").write_text(stand_in, encoding="utf-8")
    shutil.copyfile(program("kpsewhich", "plainnat.bst").strip(), tmp_path / "iclr2019_conference.bst")
    text = paper_with_either_style(tmp_path)
    assert text.startswith("The stand-in.")
    assert "Under review" not in text
    assert "Dan Tile and Eve Umber, editors" in text


@needs_tex
def test_bibliography_style_differs_from_plainnat_in_its_texts_alone(tmp_path):
    before = Path(program("kpsewhich", "plainnat.bst").strip()).read_text(encoding="latin-1").splitlines()
    after = derive_bibliography_style(tmp_path).read_text(encoding="latin-1").splitlines()[1:]
    changed = [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [
        ('{ ", editors" * }', '{ " (eds.)" * }'),
        ('{ ", editor" * }', '{ " (ed.)" * }'),
        ('{ "pages" pages n.dashify tie.or.space.connect }', '{ "pp. " pages n.dashify tie.or.space.connect }'),
        ('{ "page" pages tie.or.space.connect }', '{ "pp. " pages tie.or.space.connect }'),
        ('{ " and " * s #2 "{vv~}{ll}" format.name$ * }', '{ " \\& " * s #2 "{vv~}{ll}" format.name$ * }'),
    ]


def fake_programs(folder, monkeypatch, names, output=""):
    """Makes these the only programs there are; each prints the output."""
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho '{output}'\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_another_plainnat_is_refused(tmp_path, monkeypatch):
    (tmp_path / "plainnat.bst").write_text('FUNCTION {format.editors}\n{ ", edited" * }\n', encoding="utf-8")
    fake_programs(tmp_path, monkeypatch, ["kpsewhich"], output=tmp_path / "plainnat.bst")
    with pytest.raises(StudyError, match=r"plainnat.bst is not the plainnat.bst we know: \", editors\" is not once"):
        derive_bibliography_style(tmp_path)


def test_plainnat_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    fake_programs(tmp_path, monkeypatch, ["kpsewhich"])
    with pytest.raises(StudyError, match="plainnat.bst.* is not installed: .*texlive-latex-base"):
        derive_bibliography_style(tmp_path)


def test_missing_programs_are_named_with_what_to_install(tmp_path, monkeypatch):
    fake_programs(tmp_path, monkeypatch, ["pdflatex", "kpsewhich", "pdfinfo"])
    assert missing_tex() == ["bibtex", "latexmk"]
    with pytest.raises(StudyError) as caught:
        build_paper(tmp_path / "paper.tex", tmp_path / "paper.pdf")
    packages = "texlive-latex-base texlive-latex-recommended texlive-fonts-recommended latexmk poppler-utils"
    assert "without bibtex, latexmk: " in str(caught.value)
    assert packages in str(caught.value)


@needs_tex
def test_equal_input_gives_an_equal_pdf_without_paths_or_dates(tmp_path):
    # uncompressed, so that a path or a date could be read
    packages = r"\usepackage{iclrstyle,times,graphicx,hyperref}\pdfcompresslevel=0 \pdfobjcompresslevel=0 "
    pdfs = []
    for name in ("first", "second place"):
        folder = tmp_path / name
        folder.mkdir()
        figure = build(folder, document("A figure."), name="figure")
        assert figure.exists()
        pdfs.append(build(folder, document(r"\today\includegraphics[width=5cm]{figure.pdf}", packages)).read_bytes())
    assert pdfs[0] == pdfs[1]
    for trace in (str(tmp_path), str(ROOT), "/tmp", "figure.pdf", "/CreationDate", "/ModDate", "/ID"):
        assert trace.encode() not in pdfs[0], trace


@needs_tex
def test_builds_leave_nothing_but_the_pdf_and_return_the_number_of_pages(tmp_path):
    (tmp_path / "paper.tex").write_text(document(r"One\newpage Two\newpage Three\newpage Four"), encoding="utf-8")
    assert build_paper(tmp_path / "paper.tex", tmp_path / "report" / "paper.pdf") == 4
    assert names_in(tmp_path) == ["paper.tex", "report"]
    assert names_in(tmp_path / "report") == ["paper.pdf"]


@needs_tex
@pytest.mark.parametrize(
    "body, line",
    [
        ("Fine.\nSome \\nonsense here.", "paper.tex line 5 (Some \\nonsense): Undefined control sequence."),
        (r"$x", r"paper.tex line 5 (\end{document}): Missing $ inserted"),
        (r"\end{itemize}", r"paper.tex line 4 (\end{itemize}): LaTeX Error: \begin{document} ended by \end{itemize}"),
        (r"\input{nowhere}", r"line 4 (\input{nowhere}): LaTeX Error: File `nowhere.tex' not found."),
        (r"\bibliographystyle{iclrstyle}\bibliography{nowhere}\cite{a}", "cannot be built: nowhere.bib is not there."),
        (r"See \ref{nowhere} and \citep{nobody}.", "without a label or an entry: nowhere, nobody"),
        (r"\noindent\rule{400pt}{1pt}", r"more than 2 pt, shorten or reword it: \hbox (2.51"),
        (r"\noindent\rule{399pt}{1pt}\par\noindent\rule{410pt}{1pt}", r"reword it: \hbox (12.51"),
        (r"a\newpage b\newpage c\newpage d\newpage e", "5 pages, and 4 are allowed."),
        (r"\immediate\write18{echo a > escaped.tex}\input{escaped}", "File `escaped.tex' not found."),
    ],
)
def test_faults_of_the_paper_are_told_in_one_line(tmp_path, body, line):
    (tmp_path / "paper.pdf").write_text("the last good one", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        build(tmp_path, document(body))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "paper.pdf").read_text(encoding="utf-8") == "the last good one"
    assert names_in(tmp_path) == ["paper.pdf", "paper.tex"]


@needs_tex
def test_small_excess_of_a_box_is_allowed(tmp_path):
    assert build(tmp_path, document(r"\noindent\rule{399pt}{1pt}")).exists()  # the text is 397.485 pt wide


@needs_tex
def test_fault_of_the_references_is_told_with_its_line(tmp_path):
    (tmp_path / "refs.bib").write_text("@book{one,\n title = {A\n}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"cannot be built: refs.bib line 3: Illegal end of database file$"):
        build(tmp_path, document(r"\cite{one}\bibliographystyle{iclrstyle}\bibliography{refs}"))


@needs_tex
def test_missing_package_says_what_to_install(tmp_path):
    with pytest.raises(StudyError, match=r"`nopackage.sty' not found.*texlive-latex-recommended"):
        build(tmp_path, document("Text.", r"\usepackage{nopackage}"))


@needs_tex
def test_paper_that_is_not_there(tmp_path):
    with pytest.raises(StudyError, match="There is no .*paper.tex to build"):
        build_paper(tmp_path / "paper.tex", tmp_path / "paper.pdf")
