import dataclasses
import re

import nbformat
import pytest

from lib.pages import write_pages
from lib.runs import write_json
from lib.study import Study

STUDY = Study("mine", "Two arms", "se_resnet18", "resnet18", ())
PRIMARY = {
    "arm": "se_resnet18",
    "baseline": "resnet18",
    "n_pairs": 1,
    "difference_pp": 1.0,
    "seed_interval_pp": None,
}


@pytest.fixture
def folder(tmp_path):
    """A study folder whose analysis and training have been executed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A notebook")])
    for name in ("analysis", "training"):
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    write_json(tmp_path / "results.json", {"data_source": "cifar10-jpeg", "primary": PRIMARY})
    return tmp_path


def links(page):
    return re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8"))


def test_the_index_states_the_answer_and_links_pages_that_exist(folder):
    (folder / "figures").mkdir()
    (folder / "figures" / "accuracy_by_seed.png").write_bytes(b"a picture")
    index = write_pages(STUDY, folder, {"se_resnet18": folder / "training.ipynb"})
    page = index.read_text(encoding="utf-8")
    assert "+1.00 percentage points over 1 paired seed" in page and "JPEG copy" in page
    assert "data:image/png;base64,YSBwaWN0dXJl" in page  # the figure is inside
    local = [link for link in links(index) if "://" not in link]
    assert {"analysis.html", "train-se_resnet18.html", "preregistration.html", "../results.json"} <= set(local)
    for link in local:
        assert (index.parent / link).exists(), link


def test_without_a_figure_the_index_has_none(folder):
    assert "<img" not in write_pages(STUDY, folder, {}).read_text(encoding="utf-8")


def test_the_preregistration_has_its_tables_and_no_links_into_the_checkout(folder):
    write_pages(STUDY, folder, {})
    page = folder / "html" / "preregistration.html"
    assert "<table>" in page.read_text(encoding="utf-8") and "Smallest effect of interest" in page.read_text()
    assert not [link for link in links(page) if "://" not in link]


def test_equal_results_give_equal_pages(folder):
    pages = [write_pages(STUDY, folder, {}).parent / f"{name}.html" for name in ("index", "preregistration")]
    before = [page.read_bytes() for page in pages]
    write_pages(STUDY, folder, {})
    assert [page.read_bytes() for page in pages] == before


@pytest.mark.parametrize(("name", "linked"), [("laptop", True), ("mine", False)])
def test_the_paper_is_linked_only_by_a_study_that_it_can_be_about(folder, name, linked):
    index = write_pages(dataclasses.replace(STUDY, name=name), folder, {})
    assert any(link.endswith("paper.pdf") for link in links(index)) == linked
