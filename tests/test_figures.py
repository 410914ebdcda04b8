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


def test_a_forest_shows_means_intervals_and_texts():
    table = {"comparison": ["SE-ResNet-18, ¼ width, 16 epochs", "wide"], "difference_pp": [0.1, -0.2]}
    table |= {"low_pp": [-0.1, np.nan], "high_pp": [0.3, np.nan], "pairs": ["10", "1"]}
    (axis,) = figures.forest(pd.DataFrame(table), ["pairs"], reference=0.39).axes
    lines, means = axis.collections
    assert means.get_offsets().tolist() == [[0.1, 0], [-0.2, 1]]
    assert [line[:, 0].tolist() for line in lines.get_segments() if len(line)] == [[-0.1, 0.3]]
    assert [text.get_text() for text in axis.texts] == ["pairs", "10", "1"]
    assert [line.get_xdata()[0] for line in axis.lines] == [0, 0.39]


def test_a_single_epoch_is_a_point():
    metrics = pd.DataFrame({"epoch": [1], "train_loss": [1.5], "train_accuracy": [0.5]})
    loss, accuracy = figures.learning_curves(metrics, "resnet18").axes
    assert [axis.lines[0].get_xydata().tolist() for axis in (loss, accuracy)] == [[[1, 1.5]], [[1, 50]]]  # percent
    assert loss.lines[0].get_marker() == "o"
