"""The figures that more than one notebook draws, and how they are saved."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.analyse import figures

matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("error")
figures.use_style()


def test_the_users_own_settings_change_nothing():
    plt.rcParams.update({"text.usetex": True, "lines.linewidth": 9, "axes.grid": True})
    figures.use_style()
    assert not plt.rcParams["text.usetex"] and not plt.rcParams["axes.grid"] and plt.rcParams["lines.linewidth"] < 2


def test_a_forest_shows_means_intervals_and_headings_on_one_scale():
    ours = {"comparison": ["equal rates", "SE-ResNet-18, ¼ width", "wide"], "difference_pp": [np.nan, 0.1, -0.2]}
    ours |= {"high_pp": [np.nan, 0.3, None], "crossed_high": [np.nan, 0.4, np.nan], "color": ["black", "red", "blue"]}
    theirs = {"comparison": ["ResNet-110"], "difference_pp": [1.2]}
    figure = figures.forest({"published": pd.DataFrame(theirs), "ours": pd.DataFrame(ours)}, reference=0.39)
    figure.draw_without_rendering()
    left, right = figure.axes
    crossed, seeds, means = right.collections
    assert means.get_offsets().tolist()[1:] == [[0.1, 1], [-0.2, 2]]
    ends = [line[:, 0] for lines in (crossed, seeds) for line in lines.get_segments() if len(line)]
    np.testing.assert_allclose(ends, [[-0.2, 0.4], [-0.1, 0.3]])
    assert [name.get_fontweight() for name in right.get_yticklabels()] == ["bold", "normal", "normal"]
    assert [line.get_xdata()[0] for line in left.lines[:2]] == [0, 0.39]
    one, other = (axis.get_position().width / np.ptp(axis.get_xlim()) for axis in (left, right))
    assert one == pytest.approx(other)


def test_variants_have_names_in_plain_words():
    names = {"se_resnet18__plain_rate": "SE-ResNet-18, equal rates", "se_skip_resnet18": "skip SE"}
    names["resnet18__quarter_width_se_rate"] = "ResNet-18, ¼ width, rate of SE"
    names["half_scale_skip_resnet18__half_width"] = "half scale on skip path, ½ width"
    long = "se_resnet18__quarter_width_16_epochs_free_gates"
    names[long] = "SE-ResNet-18, ¼ width, 16 epochs, gates without decay"
    assert {label: figures.arm_name(label) for label in names} == names


def test_variants_of_one_arm_look_different_from_each_other_and_the_arm_as_always():
    styles = figures.arm_styles(["resnet18", "se_resnet18", "se_resnet18__plain_rate"])
    assert styles["se_resnet18"] == figures.arm_styles(["se_resnet18"])["se_resnet18"]
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 3


def test_better_answers_are_orange_and_worse_ones_purple():
    change = np.array([[10.0, -10.0], [10.0, -10.0]])  # the first class: more right answers and fewer mistakes
    panel = "change", change, True
    (axis,) = figures.confusion_matrices([panel], ["cat", "dog"]).axes
    (red, _, blue, _), worse = axis.images[0].to_rgba(axis.images[0].get_array())[:, 0]
    assert red > blue and worse[0] < worse[2]
    assert [text.get_text() for text in axis.texts] == ["+10", "−10", "+10", "−10"]


def test_a_single_epoch_is_a_point():
    metrics = pd.DataFrame({"epoch": [1], "train_loss": [1.5], "train_accuracy": [0.5]})
    loss, accuracy = figures.learning_curves(metrics, "resnet18").axes
    assert [axis.lines[0].get_xydata().tolist() for axis in (loss, accuracy)] == [[[1, 1.5]], [[1, 50]]]  # percent
    assert loss.lines[0].get_marker() == "o"
