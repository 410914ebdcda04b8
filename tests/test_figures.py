import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib import figures
from lib.statistics import paired_comparison

matplotlib.use("Agg")
CLASSES = ("cat", "dog", "frog")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_primary_arms_keep_their_colours_and_others_differ():
    colours = figures.arm_colours(["wide_resnet18", "resnet18", "se_resnet18", "other"])
    assert colours["resnet18"] == "#0072B2" and colours["se_resnet18"] == "#D55E00"
    assert len(set(colours.values())) == 4


def test_saving_twice_gives_equal_files(tmp_path):
    figure = figures.image_grid(np.zeros((3, 32, 32, 3), np.uint8), CLASSES)
    for name in ("first", "second"):
        figures.save_figure(figure, tmp_path, name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"first.{kind}").read_bytes() == (tmp_path / f"second.{kind}").read_bytes()


def test_confusion_shows_errors_and_leaves_zeros_empty():
    matrix = np.array([[90.0, 10.0, 0.0], [0.0, 100.0, 0.0], [0.0, 3.0, 97.0]])
    figure = figures.confusion_matrices([("a", matrix, False), ("b − a", matrix - 50, True)], CLASSES)
    plain, difference = figure.axes
    assert texts(plain) == ["90.0", "10.0", "100.0", "3.0", "97.0"]
    assert len(texts(difference)) == 9 and "+40.0" in texts(difference)
    assert plain.images[0].get_array().max() == 10  # the diagonal does not drown the errors
    low, high = difference.images[0].get_clim()
    assert low == -high


def test_paired_accuracy_draws_each_seed_and_the_interval():
    pairs = pd.DataFrame({"resnet18": [0.9, 0.8], "se_resnet18": [0.91, 0.83]}, index=pd.Index([0, 4], name="seed"))
    comparison = paired_comparison(pairs["se_resnet18"], pairs["resnet18"])
    left, right = figures.paired_accuracy(pairs, comparison).axes
    assert "2 paired seeds" in left.get_title()
    assert [label.get_text() for label in right.get_yticklabels()] == ["seed 0", "seed 4", "mean"]
    drawn = [
        segment for lines in right.collections if hasattr(lines, "get_segments") for segment in lines.get_segments()
    ]
    assert drawn[0][:, 0] == pytest.approx(comparison["seed_interval_pp"])


def test_one_pair_is_drawn_without_an_interval():
    pairs = pd.DataFrame({"resnet18": [0.9], "se_resnet18": [0.91]}, index=pd.Index([0], name="seed"))
    right = figures.paired_accuracy(pairs, paired_comparison([0.91], [0.9])).axes[1]
    assert not [lines for lines in right.collections if hasattr(lines, "get_segments")]


def test_learning_curves_show_every_run_and_the_mean_of_each_arm():
    rows = [(arm, seed, epoch) for arm in ("resnet18", "se_resnet18") for seed in (0, 1) for epoch in (1, 2, 3)]
    metrics = pd.DataFrame(rows, columns=["arm", "seed", "epoch"]).assign(train_loss=1.0, train_accuracy=0.5)
    loss, accuracy = figures.learning_curves(metrics).axes
    assert len([line for line in loss.lines if len(line.get_xdata()) == 3]) == 6
    assert accuracy.lines[0].get_ydata()[0] == 50  # percent
