import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from lib import figures
from lib.studyfile import read_study_file

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("error")
CLASSES = ("cat", "dog", "frog")


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def segments(axis):
    """Ends ((x, y), (x, y)) of all lines drawn by hlines and vlines, an array each."""
    collections = [collection for collection in axis.collections if hasattr(collection, "get_segments")]
    return [segment for collection in collections for segment in collection.get_segments() if len(segment)]


def points(axis, marker):
    """Places (x, y) of all markers of one kind, (n, 2)."""
    return np.concatenate([line.get_xydata() for line in axis.lines if line.get_marker() == marker])


def assert_readable(figure):
    """No text is below 6.5 points or outside a page's width, and no legend lies on the data of any axes."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    drawn = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in drawn) >= 6.5
    assert figure.get_tightbbox(renderer).width <= figures.PAGE + 0.1
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    for legend in legends:
        for axis in figure.axes:
            assert not legend.get_window_extent(renderer).overlaps(axis.get_window_extent(renderer))


def test_every_arm_of_the_paper_has_its_own_look_in_any_company():
    arms = list(read_study_file("paper").arms)
    styles = figures.arm_styles(arms)
    for part in ("color", "marker", "linestyle"):
        assert len({style[part] for style in styles.values()}) == len(arms) == 10
    assert all(figures.arm_styles(["other", arm])[arm] == styles[arm] for arm in arms)
    assert figures.arm_colours(["resnet18", "se_resnet18"]) == {"resnet18": "#0072B2", "se_resnet18": "#D55E00"}


def test_other_arms_differ_from_the_named_ones_and_each_other():
    styles = figures.arm_styles([*figures.ARM_STYLES, "this run", "se_resnet18_r2"])
    assert len({style["color"] for style in styles.values()}) == len(styles)


def test_variants_have_the_colour_of_their_arm_and_a_line_of_their_own():
    names = ["se_resnet18", "se_resnet18__12_epochs", "resnet18__12_epochs", "se_resnet18__25_epochs"]
    styles = figures.arm_styles(names)
    assert [styles[name]["color"] == styles["se_resnet18"]["color"] for name in names] == [True, True, False, True]
    assert len({str(styles[name]["linestyle"]) for name in names if name.startswith("se_")}) == 3


def test_saving_twice_gives_equal_files(tmp_path):
    figure = figures.image_grid(np.zeros((3, 32, 32, 3), np.uint8), CLASSES)
    for name in ("first", "second"):
        figures.save_figure(figure, tmp_path, name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


def test_image_titles_of_two_lines_keep_clear_of_the_images():
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    figure = figures.image_grid(images, ["automobile\n10 → 90 %"] * 12)
    assert_readable(figure)
    assert figure.axes[11].images[0].get_array().max() == 11
    renderer = figure.canvas.get_renderer()
    above, below = (figure.axes[place] for place in (0, 10))
    assert not below.title.get_window_extent(renderer).overlaps(above.get_window_extent(renderer))


def test_gallery_names_the_mistake_of_the_worse_arm():
    table = {"index": [4, 2, 0], "label": [0, 1, 2], "right_arm": [0.9, 0.25, 0.6], "right_baseline": [0.1, 1, 0.5]}
    shown = pd.DataFrame({**table, "prediction_arm": [0, 2, 2], "prediction_baseline": [1, 1, 2]})
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    figure = figures.disagreement_gallery(images, shown, CLASSES, ("resnet18", "se_resnet18"))
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["cat\nas dog\n10 → 90 %", "dog\nas frog\n100 → 25 %", "frog\n\n50 → 60 %"]
    assert [axis.images[0].get_array().max() for axis in figure.axes[:3]] == [4, 2, 0]
    assert "resnet18 → se_resnet18" in figure.get_suptitle()
    assert_readable(figure)


def test_gallery_without_images_is_empty():
    columns = ["index", "label", "right_arm", "right_baseline", "prediction_arm", "prediction_baseline"]
    figure = figures.disagreement_gallery(
        np.zeros((5, 32, 32, 3), np.uint8), pd.DataFrame(columns=columns), CLASSES, ("a", "b")
    )
    assert not any(axis.images for axis in figure.axes)


def test_learning_curves_show_every_run_and_the_mean_of_each_arm():
    rows = [(arm, seed, epoch) for arm in ("resnet18", "se_resnet18") for seed in (0, 1) for epoch in (1, 2, 3)]
    metrics = pd.DataFrame(rows, columns=["arm", "seed", "epoch"]).assign(train_accuracy=0.5)
    metrics["train_loss"] = metrics["seed"] + metrics["epoch"]
    figure = figures.learning_curves(metrics)
    loss, accuracy = figure.axes
    first, second, mean = (line.get_ydata().tolist() for line in loss.lines[:3])
    assert (first, second, mean) == ([1, 2, 3], [2, 3, 4], [1.5, 2.5, 3.5])
    assert loss.lines[2].get_linewidth() > 2 * loss.lines[0].get_linewidth()
    assert len(loss.lines) == 6
    assert accuracy.lines[0].get_ydata()[0] == 50  # percent
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["resnet18 (2 runs)", "se_resnet18 (2 runs)"]


def test_learning_curves_of_many_arms_keep_their_legend_off_the_data():
    variants = [f"{arm}__{n}_epochs" for arm in ("resnet18", "se_resnet18") for n in (12, 25, 100)]
    rows = [(arm, 0, epoch, 1.0, 0.5) for arm in (*figures.ARM_STYLES, *variants) for epoch in (1, 2)]
    columns = ["arm", "seed", "epoch", "train_loss", "train_accuracy"]
    figure = figures.learning_curves(pd.DataFrame(rows, columns=columns))
    assert_readable(figure)
    assert figure.axes[0].get_window_extent().height > 1.5 * figure.dpi


def test_confusion_shows_errors_and_leaves_zeros_empty():
    matrix = np.array([[90.0, 10.0, 0.0], [0.0, 100.0, 0.0], [0.0, 3.0, 97.0]])
    figure = figures.confusion_matrices([("a", matrix, False), ("b − a", matrix - 50, True)], CLASSES)
    plain, difference = figure.axes
    assert texts(plain) == ["90.0", "10.0", "100.0", "3.0", "97.0"]
    assert len(texts(difference)) == 9 and {"+40.0", "−50.0"} <= set(texts(difference))
    assert plain.images[0].get_array().max() == 10  # the diagonal does not drown the errors
    low, high = difference.images[0].get_clim()
    assert low == -high


def test_small_differences_are_written_without_the_zero_before_the_point():
    difference = np.array([[0.34, -0.34], [0.04, -1.26]])
    (axis,) = figures.confusion_matrices([("b − a", difference, True)], CLASSES[:2]).axes
    assert texts(axis) == ["+.3", "−.3", "−1.3"]


def test_numbers_of_three_confusion_matrices_fit_their_cells_on_a_page():
    plain = np.full((10, 10), 0.4) + 95 * np.eye(10)
    panels = [("a", plain, False), ("b", plain, False), ("b − a", np.full((10, 10), -0.4), True)]
    figure = figures.confusion_matrices(panels, ["automobile"] * 10)
    assert_readable(figure)
    assert figure.get_figwidth() == figures.PAGE
    renderer = figure.canvas.get_renderer()
    for axis in figure.axes:
        cell = axis.get_window_extent(renderer).width / 10
        assert max(text.get_window_extent(renderer).width for text in axis.texts) <= cell


@pytest.fixture
def recalls():
    table = {"recall_arm": [91.0, 85.0, 99.0], "recall_baseline": [90.0, 86.0, 99.0]}
    bounds = {"difference_pp": [1.0, -1.0, 0.0], "low_pp": [0.5, -2.0, -1.0], "high_pp": [1.5, 0.0, 1.0]}
    return pd.DataFrame({**table, **bounds, "n_pairs": 7}, index=pd.Index(CLASSES, name="class"))


def test_recall_shows_both_arms_and_the_difference_of_each_class(recalls):
    figure = figures.recall_by_class(recalls)
    left, right = figure.axes
    assert points(left, "o")[:, 0].tolist() == [90, 86, 99]
    assert points(left, "s")[:, 0].tolist() == [91, 85, 99]
    assert points(right, "o").tolist() == [[1, 0], [-1, 1], [0, 2]]
    assert [segment[:, 0].tolist() for segment in segments(right)] == [[0.5, 1.5], [-2, 0], [-1, 1]]
    assert [label.get_text() for label in left.get_yticklabels()] == list(CLASSES)
    assert "7 seeds" in left.get_xlabel() and "95 %" in right.get_xlabel()
    assert_readable(figure)


def test_recall_of_one_pair_has_no_intervals(recalls):
    right = figures.recall_by_class(recalls.assign(low_pp=np.nan, high_pp=np.nan, n_pairs=1)).axes[1]
    right.figure.canvas.draw()
    assert not segments(right)
    assert len(points(right, "o")) == 3


def test_speeds_carry_their_ratio_and_the_middle_half_of_the_rounds():
    columns = {"images_per_second": [2000.0, 1000.0], "images_per_second_q1": [1900.0, 990.0]}
    columns |= {"images_per_second_q3": [2100.0, 1010.0], "times_everyday": [2.0, 1.0]}
    figure = figures.speed_bars(pd.DataFrame(columns, index=["ours", "everyday"]), "everyday")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [2000, 1000]
    assert texts(axis) == ["2.00×", "1.00×"]
    assert [segment[:, 0].tolist() for segment in segments(axis)] == [[1900, 2100], [990, 1010]]
    assert_readable(figure)
