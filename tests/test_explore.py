"""The interactive comparison of two arms: what it shows, without a browser."""

import sys

import ipywidgets
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from matplotlib.figure import Figure

from lib import explore as module
from lib.data import CLASSES, load_dataset
from lib.errors import StudyError
from lib.explore import View, class_gates, disagreement_sides, explore, gates_by_class, studies_with_runs
from lib.html import notebook_to_html
from lib.madeup import make_up_run
from lib.notebooks import NotebookProcess
from lib.paths import run_folder
from lib.runs import read_json, save_arrays, save_logits, write_json, write_table
from lib.study import load_study

DIGITS = CLASSES["digits"]


@pytest.fixture
def study(tmp_path):
    """A finished study on digits of three arms, two seeds each; the gates of the first are all 0.5."""
    content = {
        "title": "Made up",
        "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
        "recipe": {"dataset": "digits", "epochs": 3, "warmup_epochs": 1},
        "arms": {"resnet18": {}, "se_resnet18": {}, "wide_resnet18": {}},
        "stages": [{"name": "primary", "arms": ["resnet18", "se_resnet18", "wide_resnet18"], "seeds": 2}],
    }
    path = tmp_path / "made_up.yaml"
    path.write_text(yaml.safe_dump(content))
    digits, study = load_dataset("digits"), load_study(str(path))
    for config in study.runs:
        folder = run_folder(study.name, config.arm, config.seed)
        make_up_run(folder, config, images=len(digits.test_labels))
        write_json(
            folder / "summary.json", read_json(folder / "summary.json") | {"data_fingerprint": digits.fingerprint}
        )
    return study


@pytest.fixture
def shown(monkeypatch):
    """What has been displayed, in order."""
    parts = []
    monkeypatch.setattr(module, "display", parts.append)
    return parts


def figures(parts):
    return [part for part in parts if isinstance(part, Figure)]


def text(parts):
    return "\n".join(part.data for part in parts if not isinstance(part, Figure))


def write_logits(study, arm, predictions, labels):
    """Runs of an arm that answer predictions (runs, N)."""
    for seed, answers in enumerate(predictions):
        path = run_folder(study.name, arm, seed) / "test_logits.npz"
        save_logits(path, np.eye(10)[answers], np.array(labels))


def test_images_go_to_the_side_that_is_right_more_often_largest_difference_first(study):
    write_logits(study, "se_resnet18", [[0, 1, 2, 3, 4], [0, 1, 2, 9, 9]], [0, 1, 2, 3, 4])
    write_logits(study, "resnet18", [[9, 9, 2, 3, 4], [0, 9, 2, 3, 4]], [0, 1, 2, 3, 4])
    gained, lost = disagreement_sides(study, "se_resnet18", "resnet18", [0, 1])
    assert gained["index"].tolist() == [1, 0]
    assert lost["index"].tolist() == [3, 4]
    assert lost["right_arm"].tolist() == [0.5, 0.5]


def test_either_side_is_at_most_a_row(study):
    write_logits(study, "se_resnet18", [[1] * 30] * 2, [1] * 15 + [2] * 15)
    write_logits(study, "resnet18", [[2] * 30] * 2, [1] * 15 + [2] * 15)
    sides = disagreement_sides(study, "se_resnet18", "resnet18", [0, 1])
    assert [side["index"].tolist() for side in sides] == [list(range(10)), list(range(15, 25))]


def write_gates(study, seed, **blocks):
    folder = run_folder(study.name, "se_resnet18", seed)
    save_arrays(folder / "gates.npz", **{name: np.array(gates, np.float16) for name, gates in blocks.items()})
    write_table(folder / "gates.csv", pd.DataFrame({"block": list(blocks)}))


def test_gates_by_class_are_means_over_channels_and_runs(study):
    write_gates(study, 0, block1=[[0.25, 0.75], [0.75, 0.25]], block2=[[0.5], [1.0]])
    write_gates(study, 1, block1=[[0.5, 0.5], [0.5, 0.5]], block2=[[0.25], [0.25]])
    table = gates_by_class(study, "se_resnet18", [0, 1], ("cat", "dog"))
    assert table["block"].tolist() == ["block1", "block1", "block2", "block2"]
    assert table["class"].tolist() == ["cat", "dog", "cat", "dog"]
    assert table["mean"].tolist() == [0.5, 0.5, 0.375, 0.625]
    assert table["distance"].tolist() == [0.125, 0.125, 0.125, 0.125]


def test_an_arm_without_gates_has_an_empty_table(study):
    assert gates_by_class(study, "resnet18", [0, 1], DIGITS).empty


def test_damaged_gates_are_an_error_in_one_line(study):
    (run_folder(study.name, "se_resnet18", 1) / "gates.npz").write_bytes(b"not an archive")
    with pytest.raises(StudyError, match=r"gates\.npz is missing or damaged.*delete the folder and run again"):
        gates_by_class(study, "se_resnet18", [0, 1], DIGITS)


def test_the_figure_of_gates_has_classes_and_blocks_in_order_and_all_numbers():
    classes, blocks = ("cat", "dog", "ant"), [f"block{number}" for number in range(1, 12)]
    rows = [(block, name, 0.5, 0.001 * place) for place, block in enumerate(blocks) for name in classes]
    figure = class_gates(pd.DataFrame(rows, columns=["block", "class", "mean", "distance"]))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == list(classes)
    assert [label.get_text() for label in right.get_xticklabels()] == [str(number) for number in range(1, 12)]
    assert [text.get_text() for text in left.texts] == [".500"] * 33
    assert [text.get_text() for text in right.texts[:11]] == [f".{place:03d}" for place in range(11)]


def test_a_class_without_images_leaves_the_others_in_the_figure():
    rows = [("block1", "cat", 0.5, 0.25), ("block1", "dog", np.nan, np.nan)]
    figure = class_gates(pd.DataFrame(rows, columns=["block", "class", "mean", "distance"]))
    assert figure.axes[1].texts[0].get_text() == ".250"


def test_headless_shows_the_primary_comparison_as_figures_and_no_widget(study, shown, monkeypatch):
    monkeypatch.setenv("STUDY_HEADLESS", "1")
    explore(study)
    assert len(figures(shown)) == 3
    assert "right in `se_resnet18`" in text(shown) and "Gates of `se_resnet18`" in text(shown)


def test_without_ipywidgets_it_is_the_same(study, shown, monkeypatch):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    explore(study)
    assert len(figures(shown)) == 3


def test_the_page_of_a_headless_notebook_has_the_figures_and_no_empty_widget(study, tmp_path):
    cells = [
        "study = 'smoke'",
        "from lib.explore import explore\nfrom lib.study import load_study\nexplore(load_study(study))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "template.ipynb")
    parameters = {"study": str(tmp_path / "made_up.yaml")}
    NotebookProcess(tmp_path / "template.ipynb", tmp_path / "out.ipynb", tmp_path / "log", parameters).wait()
    notebook_to_html(tmp_path / "out.ipynb", tmp_path / "page.html", "Explored")
    page = BeautifulSoup((tmp_path / "page.html").read_text(encoding="utf-8"), "html.parser")
    assert len(page.find_all("img")) == 3
    assert "More often right in se_resnet18" in page.text and "Dropdown" not in page.text
    assert "widget" not in (tmp_path / "out.ipynb").read_text().replace('widgets": {}', "")


@pytest.fixture
def by_hand(study, shown, monkeypatch):
    """The widgets of the study: box, and what is displayed in it."""
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    explore(study)
    (box,) = [part for part in shown if isinstance(part, ipywidgets.Widget)]
    shown.remove(box)
    return box, shown


def test_by_hand_one_chooses_among_all_arms_and_sees_what_was_chosen(by_hand):
    box, parts = by_hand
    _, arm, baseline, _ = box.children
    assert (arm.value, baseline.value) == ("se_resnet18", "resnet18")
    assert arm.options == baseline.options == ("resnet18", "se_resnet18", "wide_resnet18")
    assert len(figures(parts)) == 3
    parts.clear()
    arm.value = "wide_resnet18"
    assert len(figures(parts)) == 2
    assert "right in `wide_resnet18`" in text(parts) and "`wide_resnet18` has no gates" in text(parts)


def test_an_arm_against_itself_is_a_sentence(by_hand):
    box, parts = by_hand
    parts.clear()
    box.children[2].value = "se_resnet18"
    assert "Choose two arms" in text(parts) and len(figures(parts)) == 1


def test_another_study_with_runs_can_be_chosen(study, shown, monkeypatch):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    smoke = load_study("smoke")
    make_up_run(run_folder("smoke", "se_resnet18", 0), smoke.run("se_resnet18", 0), images=20)
    explore(study)
    box = shown[-1]
    assert studies_with_runs() == ["smoke"] and box.children[0].options == ("made_up", "smoke")
    box.children[0].value = "smoke"
    assert box.children[1].options == ("se_resnet18",) and box.children[2].value is None
    assert "finished the same seeds" in text(part for part in shown if part is not box)


def test_a_study_that_cannot_be_read_says_why_in_its_place(study, shown, monkeypatch):
    monkeypatch.delenv("STUDY_HEADLESS", raising=False)
    smoke = load_study("smoke")
    for seed, precision in ((0, "fp32"), (1, "bf16")):
        folder = run_folder("smoke", "se_resnet18", seed)
        make_up_run(folder, smoke.run("se_resnet18", seed), images=20)
        write_json(folder / "summary.json", read_json(folder / "summary.json") | {"precision": precision})
    explore(study)
    box = shown[-1]
    box.children[0].value = "smoke"
    assert "mixes runs that cannot be compared" in box.children[1].value
    box.children[0].value = "made_up"
    assert box.children[1].value == "se_resnet18"


def test_test_images_that_are_not_here_are_named_and_gates_shown_all_the_same(study, monkeypatch):
    monkeypatch.setattr(module, "local_test_images", lambda source, fingerprint: None)
    parts = View(study).parts("se_resnet18", "resnet18")
    assert "not on this machine" in text(parts) and len(figures(parts)) == 1


def test_arms_that_agree_on_every_image_say_so(study):
    for arm in ("se_resnet18", "resnet18"):
        write_logits(study, arm, [[1, 2]] * 2, [1, 3])
    parts = View(study).parts("se_resnet18", "resnet18")
    assert text(parts).count("no image") == 2 and len(figures(parts)) == 1


def test_a_study_without_runs_is_a_sentence(study):
    assert "No run of `smoke`" in text(View(load_study("smoke")).parts(None, None))
