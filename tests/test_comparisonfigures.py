import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from test_figures import assert_readable, house_style, points, segments, texts  # noqa: F401 the fixture is used by name

from lib import comparisonfigures as figures
from lib.statistics import SMALLEST_EFFECT_PP, paired_comparison

pytestmark = pytest.mark.filterwarnings("error")


def pairs_of(baseline, arm):
    seeds = pd.Index(range(3, 3 + len(arm)), name="seed")
    return pd.DataFrame({"resnet18": baseline, "se_resnet18": arm}, index=seeds)


def intervals(axis):
    """The thick lines of draw_differences as (low, high), without those from zero to a seed."""
    collections = [collection for collection in axis.collections if hasattr(collection, "get_segments")]
    thick = [collection for collection in collections if collection.get_linewidth()[0] > 1]
    return [tuple(segment[:, 0]) for collection in thick for segment in collection.get_segments() if len(segment)]


def bands(axis):
    return [patch.get_extents().transformed(axis.transData.inverted()) for patch in axis.patches]


def test_each_seed_is_joined_between_the_arms_and_its_difference_drawn():
    pairs = pairs_of([0.9, 0.8], [0.91, 0.79])
    left, right = figures.paired_accuracy(pairs, paired_comparison(pairs["se_resnet18"], pairs["resnet18"])).axes
    assert [line.get_ydata().tolist() for line in left.lines[:2]] == [[90, 91], [80, 79]]
    up, down = (line.get_color() for line in left.lines[:2])
    assert (up, down) == ("#D55E00", "#0072B2")  # of the better arm
    assert texts(left) == ["85.00", "85.00"]
    assert points(right, "s") == pytest.approx(np.array([[1, 0], [-1, 1]]))
    assert "n = 2 pairs" in right.get_title("left")


@pytest.mark.parametrize("known", range(8))
def test_only_known_intervals_are_drawn_each_in_its_named_row(known):
    pairs = pairs_of([0.9, 0.9, 0.9], [0.91, 0.92, 0.93])
    primary, names = {"difference_pp": 2.0}, []
    for place, (key, name) in enumerate(figures.INTERVALS.items()):
        primary[key] = [1.0 - place, 3.0 + place] if known & 1 << place else None
        names += [name] if primary[key] else []
    figure = figures.paired_accuracy(pairs, primary)
    right = figure.axes[1]
    assert intervals(right) == [tuple(primary[key]) for key in figures.INTERVALS if primary[key]]
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == ["seed 3", "seed 4", "seed 5", *(names or ["mean"])]
    diamonds = points(right, "D")
    assert (diamonds[:, 0] == 2).all() and diamonds[:, 1].tolist() == right.get_yticks()[3:].tolist()
    assert ("95 % intervals" in right.get_xlabel()) == bool(names)
    assert_readable(figure)


def test_one_pair_is_drawn_without_an_interval():
    pairs = pairs_of([0.9], [0.91])
    figure = figures.paired_accuracy(pairs, paired_comparison([0.91], [0.9]))
    assert not intervals(figure.axes[1])
    assert "n = 1 pair" in figure.axes[1].get_title("left")
    assert_readable(figure)


def test_names_of_twenty_seeds_and_three_intervals_do_not_overlap():
    noise = np.random.default_rng(0).normal(0.95, 0.0015, (2, 20))
    pairs = pairs_of(*noise)
    primary = {"difference_pp": 0.1, **{key: [-0.1, 0.3] for key in figures.INTERVALS}}
    figure = figures.paired_accuracy(pairs, primary)
    assert_readable(figure)
    boxes = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert len(boxes) == 7
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


@pytest.fixture
def comparisons():
    names = ["wide_resnet18 − resnet18", "se_resnet18 − wide_resnet18", "se_resnet18__other_winner − resnet18"]
    bounds = {"difference_pp": [0.1, -0.2, 0.3], "low_pp": [0.0, -0.5, np.nan], "high_pp": [0.2, 0.1, np.nan]}
    return pd.DataFrame({"comparison": names, "n_pairs": [10, 9, 1], **bounds})


def test_forest_shows_each_comparison_with_its_interval_and_number_of_pairs(comparisons):
    figure = figures.forest(comparisons)
    (axis,) = figure.axes
    assert points(axis, "o").tolist() == [[0.1, 0], [-0.2, 1], [0.3, 2]]
    assert intervals(axis) == [(0.0, 0.2), (-0.5, 0.1)]
    assert [label.get_text() for label in axis.get_yticklabels()] == comparisons["comparison"].tolist()
    assert texts(axis) == ["pairs", "10", "9", "1"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first on top
    (band,) = bands(axis)
    assert (band.x0, band.x1) == pytest.approx((-SMALLEST_EFFECT_PP, SMALLEST_EFFECT_PP))
    assert "95 % interval over seeds" in axis.get_xlabel()
    assert_readable(figure)


def test_forest_writes_adjusted_p_values_where_there_are_some(comparisons):
    figure = figures.forest(comparisons.assign(p_adjusted=[0.0004, 0.25, None]))
    assert texts(figure.axes[0])[4:] == ["adjusted p", "< 0.001", "0.250", ""]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert_readable(figure)


def test_subsets_carry_their_number_of_images_and_no_band():
    bounds = {"difference_pp": [0.1, 2.0], "low_pp": [0.0, -3.0], "high_pp": [0.2, 7.0]}
    subsets = pd.DataFrame({"n_images": [10_000, 54], **bounds}, index=pd.Index(["all", "label errors"], name="subset"))
    figure = figures.subset_forest(subsets)
    (axis,) = figure.axes
    assert texts(axis) == ["images", "10,000", "54"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["all", "label errors"]
    assert intervals(axis) == [(0.0, 0.2), (-3.0, 7.0)]
    assert not [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert_readable(figure)


def scores_of(grid):
    """Accuracy 0.9 + seed / 1000 + learning rate / 100, and 0.01 more with the higher weight decay; two arms."""
    rows = [
        {"tuned": arm, "cell": cell, **settings, "seed": seed, "val_accuracy": 0.9 + seed / 1000, "val_loss": 1.0}
        for arm in ("resnet18", "se_resnet18")
        for cell, settings in enumerate(grid)
        for seed in (0, 1)
    ]
    scores = pd.DataFrame(rows)
    scores["val_accuracy"] += scores["learning_rate"] / 100 + 0.01 * (scores.get("weight_decay", 0) == 0.001)
    return scores


def test_tuning_grid_has_a_line_for_each_second_setting_and_rings_the_winner():
    grid = [{"learning_rate": rate, "weight_decay": decay} for rate in (0.05, 0.1, 0.2) for decay in (0.0005, 0.001)]
    winners = {
        "resnet18": {"learning_rate": 0.1, "weight_decay": 0.0005},
        "se_resnet18": {"learning_rate": 0.2, "weight_decay": 0.001},
    }
    figure = figures.tuning_grid(scores_of(grid), winners)
    for axis, arm in zip(figure.axes, winners, strict=True):
        means = [line for line in axis.lines if len(line.get_xdata()) == 3]
        expected = [90.05 + np.array([0.05, 0.1, 0.2]) + extra for extra in (0, 1)]
        assert np.array([line.get_ydata() for line in means]) == pytest.approx(np.array(expected))
        assert all(line.get_xdata() == pytest.approx([0.05, 0.1, 0.2], rel=0.02) for line in means)
        assert sum(len(line.get_xdata()) for line in axis.lines if line.get_markersize() < 3) == 12  # every run
        (ring,) = [line for line in axis.lines if line.get_markersize() > 10 and np.isfinite(line.get_ydata()).all()]
        won = means[winners[arm]["weight_decay"] == 0.001].get_xydata()
        assert ring.get_xydata()[0] == pytest.approx(won[[0.05, 0.1, 0.2].index(winners[arm]["learning_rate"])])
        assert axis.get_title("left") == arm
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.05", "0.1", "0.2"]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["weight decay 0.0005", "weight decay 0.001", "winner"]
    assert "2 seeds" in legend.get_title().get_text()
    assert_readable(figure)


def test_tuning_of_one_setting_without_winners_yet():
    figure = figures.tuning_grid(scores_of([{"learning_rate": rate} for rate in (0.05, 0.1)]), None)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean"]
    assert not [line for line in figure.axes[0].lines if line.get_markersize() > 10]
    assert_readable(figure)


def curve(x, n_pairs, **changes):
    difference = np.linspace(-0.2, 0.4, len(x))
    table = {"x": x, "n_pairs": n_pairs, "difference_pp": difference, "low_pp": difference - 0.1}
    table |= {"high_pp": difference + 0.1, "accuracy_arm": 90 + difference, "accuracy_baseline": 90.0}
    return pd.DataFrame(table | changes)


def test_effect_curves_show_accuracies_above_and_differences_below():
    curves = {"epochs": curve([12.0, 25.0, 50.0], 5), "share of the training images": curve([0.1, 1.0], [4, 5])}
    figure = figures.effect_curves(curves)
    axes = np.array(figure.axes).reshape(2, 2)
    for (upper, lower), (title, table) in zip(axes.T, curves.items(), strict=True):
        assert points(upper, "o")[:, 1].tolist() == table["accuracy_baseline"].tolist()
        assert points(upper, "s")[:, 1].tolist() == table["accuracy_arm"].tolist()
        assert points(lower, "o").tolist() == table[["x", "difference_pp"]].to_numpy().tolist()
        ends = np.array([segment[:, 1] for segment in segments(lower)])
        assert ends == pytest.approx(table[["low_pp", "high_pp"]].to_numpy())
        assert title in lower.get_xlabel()
        assert lower.get_xscale() == "log"
    assert "n = 5 pairs each" in axes[1, 0].get_xlabel()
    assert "n = 4, 5 pairs" in axes[1, 1].get_xlabel()
    assert [label.get_text() for label in axes[1, 0].get_xticklabels()] == ["12", "25", "50"]
    assert [label.get_text() for label in axes[1, 1].get_xticklabels()] == ["0.1", "1"]
    assert_readable(figure)


def test_effect_curves_of_single_pairs_and_points_have_no_intervals():
    figure = figures.effect_curves({"epochs": curve([50.0], 1, low_pp=np.nan, high_pp=np.nan)})
    assert not segments(figure.axes[1])
    assert "n = 1 pair each" in figure.axes[1].get_xlabel()
    assert_readable(figure)
