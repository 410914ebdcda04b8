"""The figures that more than one notebook draws, and how they are saved."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.analyse import figures
from lib.study import load_study

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def house_style():
    figures.use_style()
    yield
    plt.close("all")


@pytest.fixture
def differences():
    table = {"comparison": ["SE-ResNet-18, ¼ width, 16 epochs", "wide"], "difference_pp": [0.1, -0.2]}
    return pd.DataFrame(table | {"low_pp": [-0.1, np.nan], "high_pp": [0.3, np.nan], "pairs": ["10", "1"]})


def make_metrics(arms, epochs):
    rows = [(arm, seed, epoch) for arm in arms for seed in (0, 1) for epoch in range(1, epochs + 1)]
    metrics = pd.DataFrame(rows, columns=["arm", "seed", "epoch"])
    return metrics.assign(train_loss=metrics["seed"] + metrics["epoch"], train_accuracy=0.5)


def test_the_users_own_settings_change_nothing():
    plt.rcParams.update({"text.usetex": True, "lines.linewidth": 9, "axes.grid": True})
    figures.use_style()
    assert not plt.rcParams["text.usetex"] and not plt.rcParams["axes.grid"] and plt.rcParams["lines.linewidth"] < 2


def test_every_arm_of_the_paper_has_a_name_and_a_look_of_its_own_in_any_company():
    arms = list(dict.fromkeys(arm for stage in load_study("paper").stages for arm in stage.arms))
    styles = figures.arm_styles(arms)
    for part in ("color", "marker", "linestyle"):
        assert len({style[part] for style in styles.values()}) == len(arms)
    assert all(figures.arm_styles(["other", arm])[arm] == styles[arm] for arm in arms)
    assert len({figures.arm_name(arm) for arm in arms}) == len(arms)
    colors = {style["color"] for style in figures.arm_styles([*arms, "new_net", "newer_net"]).values()}
    assert len(colors) == len(arms) + 2


def test_variants_are_named_in_words_and_once_in_a_difference():
    assert figures.arm_name("se_resnet18__quarter_width_16_epochs") == "SE-ResNet-18, ¼ width, 16 epochs"
    assert figures.arm_name("new_net__half_width") == "new net, ½ width"
    name = figures.comparison_name("se_resnet18__quarter_width", "resnet18__quarter_width")
    assert name == "SE-ResNet-18 − ResNet-18, ¼ width"
    assert figures.comparison_name("wide_resnet18__half_width", "resnet18") == "wide, ½ width − ResNet-18"


def test_a_figure_is_saved_at_the_size_of_print_with_the_same_bytes_each_time(tmp_path, differences):
    for name in ("first", "second"):
        image = figures.save_figure(figures.forest(differences, ["pairs"]), tmp_path, name, "two differences")
    for kind in ("pdf", "png"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()
    assert b"/MediaBox [ 0 0 %d " % (72 * figures.PAGE) in (tmp_path / "first.pdf").read_bytes()
    assert image.data == (tmp_path / "second.png").read_bytes() and image.alt == "two differences"
    assert not plt.get_fignums()


def test_a_forest_shows_means_intervals_and_texts(differences):
    figure = figures.forest(differences, ["pairs"], reference=0.39)
    (axis,) = figure.axes
    lines, means = axis.collections
    assert means.get_offsets().tolist() == [[0.1, 0], [-0.2, 1]]
    assert [line[:, 0].tolist() for line in lines.get_segments() if len(line)] == [[-0.1, 0.3]]
    assert [text.get_text() for text in axis.texts] == ["pairs", "10", "1"]
    assert [line.get_xdata()[0] for line in axis.lines] == [0, 0.39]


def test_learning_curves_show_every_run_and_the_mean_of_each_arm():
    loss, accuracy = figures.learning_curves(make_metrics(("resnet18", "se_resnet18"), 3)).axes
    assert [line.get_ydata().tolist() for line in loss.lines[:3]] == [[1, 2, 3], [2, 3, 4], [1.5, 2.5, 3.5]]
    assert len(loss.lines) == 6 and loss.lines[2].get_linewidth() > 2 * loss.lines[0].get_linewidth()
    assert accuracy.lines[0].get_ydata()[0] == 50  # percent


def test_a_single_epoch_is_a_point():
    loss = figures.learning_curves(make_metrics(["resnet18"], 1)).axes[0]
    points = [line.get_xydata().tolist() for line in loss.lines if line.get_marker() == "o"]
    assert points == [[[1, 1]], [[1, 2]], [[1, 1.5]]]


def test_confusions_show_errors_and_leave_zeros_empty():
    matrix = np.array([[90.0, 10.0, 0.0], [0.0, 100.0, 0.0], [0.0, 0.34, 99.66]])
    panels = [("a", matrix, False), ("change", matrix - 91.2, True)]
    plain, change = figures.confusion_matrices(panels, ("automobile", "cat", "dog")).axes
    assert [text.get_text() for text in plain.texts] == ["90", "10", "100", ".3", "100"]
    assert [text.get_text() for text in change.texts][:2] == ["−1.2", "−81"]
    assert plain.images[0].get_array().max() == 10  # the diagonal does not drown the errors
    low, high = change.images[0].get_clim()
    assert low == -high
