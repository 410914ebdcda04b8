import numpy as np
import pandas as pd
import pytest
from test_figures import assert_readable, house_style, points, segments  # noqa: F401 the fixture is used by name

from lib import behaviourfigures as figures

pytestmark = pytest.mark.filterwarnings("error")
CHURN = {"between_arms": 5.0, "between_arms_other_seed": 5.2, "between_arm_runs": 4.9, "between_baselines": 5.1}


def names_of_rows(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_churn_shows_each_kind_of_pair_with_its_spread():
    spread = {f"{name}_sd": 0.1 * (place + 1) for place, name in enumerate(CHURN)}
    figure = figures.churn_dots(CHURN | spread)
    (axis,) = figure.axes
    assert np.sort(np.concatenate([points(axis, "s"), points(axis, "o")])[:, 0]) == pytest.approx([4.9, 5.0, 5.1, 5.2])
    assert np.array([segment[:, 0] for segment in segments(axis)]) == pytest.approx(
        np.array([[4.9, 5.1], [5.0, 5.4], [4.6, 5.2], [4.7, 5.5]])
    )
    assert names_of_rows(axis) == [
        "SE and baseline, same seed",
        "SE and baseline, other seed",
        "SE, two seeds",
        "baseline, two seeds",
    ]
    assert_readable(figure)


def test_churn_of_one_pair_of_runs_has_one_row_without_a_line():
    figure = figures.churn_dots(dict.fromkeys(CHURN) | {f"{name}_sd": None for name in CHURN} | {"between_arms": 5.0})
    (axis,) = figure.axes
    assert names_of_rows(axis) == ["SE and baseline, same seed"]
    assert not segments(axis)
    assert_readable(figure)


def test_reliability_shows_the_gap_and_the_shares_of_filled_bins():
    table = {"confidence": [np.nan, 0.5, 0.95], "accuracy": [np.nan, 0.4, 0.96], "share": [0.0, 0.1, 0.9]}
    one = pd.DataFrame({"confidence": [np.nan] * 2 + [1.0], "accuracy": [np.nan] * 2 + [1.0], "share": [0, 0, 1.0]})
    figure = figures.reliability_diagram({"resnet18": pd.DataFrame(table), "se_resnet18": one})
    upper, lower = figure.axes
    assert points(upper, "o") == pytest.approx(np.array([[50, -10], [95, 1]]))
    assert points(lower, "o") == pytest.approx(np.array([[50, 10], [95, 90]]))
    assert points(upper, "s") == pytest.approx(np.array([[100, 0]]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["resnet18", "se_resnet18"]
    assert_readable(figure)


def corruptions(names, **changes):
    """Baseline 90 − 10 × severity percent, the arm `place of the corruption` points better."""
    rows = [
        {
            "corruption": name,
            "severity": severity,
            "accuracy_baseline": 90.0 - 10 * (severity or 3),
            "difference_pp": place,
        }
        for place, name in enumerate(names)
        for severity in range(6)
    ]
    table = pd.DataFrame(rows).assign(n_pairs=20)
    table["accuracy_arm"] = table["accuracy_baseline"] + table["difference_pp"]
    return table.assign(low_pp=table["difference_pp"] - 0.5, high_pp=table["difference_pp"] + 0.25, **changes)


def test_corruptions_show_accuracy_by_severity_and_the_difference_of_means():
    names = ["gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "contrast", "brightness", "jpeg"]
    figure = figures.corruption_effects(corruptions([*names, "mean"]))
    *panels, forest = figure.axes
    shown = [axis.get_title() for axis in panels if axis.lines]
    words = ["Gaussian noise", "shot noise", "impulse noise", "Gaussian blur", "contrast", "brightness", "JPEG"]
    assert shown == words  # without a panel of means
    assert points(panels[1], "o").tolist() == [[1, 80], [2, 70], [3, 60], [4, 50], [5, 40]]
    assert points(panels[1], "s").tolist() == [[1, 81], [2, 71], [3, 61], [4, 51], [5, 41]]
    assert names_of_rows(forest) == [*words, "mean"]
    assert points(forest, "o").tolist() == [[place, place] for place in range(7)]
    assert points(forest, "D").tolist() == [[7, 7]]
    ends = sorted(segment[:, 0].tolist() for segment in segments(forest))
    assert ends == [[place - 0.5, place + 0.25] for place in range(8)]
    assert "20 seeds" in forest.get_xlabel()
    assert_readable(figure)


def test_corruptions_of_one_pair_have_no_intervals():
    table = corruptions(["jpeg", "mean"]).assign(n_pairs=1, low_pp=np.nan, high_pp=np.nan)
    figure = figures.corruption_effects(table)
    assert not segments(figure.axes[-1])
    assert "1 seed" in figure.axes[-1].get_xlabel()
    assert_readable(figure)


def gates(arm, n_runs=20, **changes):
    blocks = np.arange(1, 9)
    table = {"arm": arm, "block": [f"block{block}" for block in blocks], "n_runs": n_runs, "mean": 0.1 * blocks}
    table |= {"sd_channels": 0.1, "sd_images": 0.05, "eta_squared": 0.05 * blocks, "eta_squared_sd": 0.02}
    return pd.DataFrame(table | {"eta_squared_null_95": 0.001} | changes)


def interventions(**changes):
    blocks = [*(f"block{block}" for block in range(1, 9)), "all"]
    drops = {"mean": [*np.arange(8) / 10, 20.0], "shuffled": [*np.arange(8) / 5, 40.0]}
    table = pd.concat(
        pd.DataFrame({"intervention": name, "block": blocks, "n_runs": 20, "drop_pp": drop})
        for name, drop in drops.items()
    )
    return table.assign(low_pp=table["drop_pp"] - 0.1, high_pp=table["drop_pp"] + 0.1).assign(**changes)


def test_gate_profile_shows_spread_class_share_and_lost_accuracy_by_block():
    figure = figures.gate_profile(gates("se_resnet18"), interventions())
    spread, classes, lost = figure.axes
    blocks = np.arange(1, 9)
    assert points(spread, "s") == pytest.approx(np.transpose([blocks, 0.1 * blocks]))
    ends = np.array([segment[:, 1] for segment in segments(spread)])
    assert ends[:8] == pytest.approx(np.transpose([0.1 * blocks - 0.1, 0.1 * blocks + 0.1]))  # channels
    assert ends[8:] == pytest.approx(np.transpose([0.1 * blocks - 0.05, 0.1 * blocks + 0.05]))  # images
    assert points(classes, "s") == pytest.approx(np.transpose([blocks, 0.05 * blocks]))
    (null,) = [line for line in classes.lines if line.get_linestyle() == ":"]
    assert null.get_ydata().tolist() == [0.001] * 8
    assert points(lost, "o")[:, 1].tolist() == [*np.arange(8) / 10, 20]
    assert points(lost, "D")[:, 1].tolist() == [*np.arange(8) / 5, 40]
    assert [label.get_text() for label in lost.get_xticklabels()] == [*map(str, blocks), "all"]
    low, high = lost.get_ylim()
    assert low < -0.1 and high > 40.1
    assert "20 runs" in spread.get_ylabel() and "20 runs" in lost.get_legend().get_title().get_text()
    assert_readable(figure)


def test_gate_profile_of_one_run_and_of_gates_that_do_not_see_the_image():
    none = {name: np.nan for name in ("eta_squared", "eta_squared_sd", "eta_squared_null_95")}
    static = gates("static_gate_resnet18", n_runs=1, **none).assign(sd_images=0.0)
    both = pd.concat([gates("se_resnet18", n_runs=1, eta_squared_sd=np.nan), static])
    figure = figures.gate_profile(both, interventions(n_runs=1, low_pp=np.nan, high_pp=np.nan))
    spread, classes, lost = figure.axes
    assert len(points(spread, "s")) == len(points(spread, "D")) == 8
    assert abs(points(spread, "s") - points(spread, "D"))[:, 0].min() > 0.1  # beside each other
    assert np.isnan(points(classes, "D")[:, 1]).all()
    labels = [text.get_text() for text in classes.get_legend().get_texts()]
    assert [label.split(",")[0] for label in labels] == ["se_resnet18", "static_gate_resnet18", "95th percentile"]
    assert "1 run" in lost.get_legend().get_title().get_text()
    assert_readable(figure)
