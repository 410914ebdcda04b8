"""Figures of what networks do beyond their accuracy: churn, calibration, corrupted images and gates."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib.figures import COLUMN, PAGE, TEXT, arm_styles, count_text, draw_differences, mark_zero, name_rows

CHURN = {  # kinds of pairs of runs, in words
    "between_arms": "SE and baseline, same seed",
    "between_arms_other_seed": "SE and baseline, other seed",
    "between_arm_runs": "SE, two seeds",
    "between_baselines": "baseline, two seeds",
}
INTERVENTIONS = {"mean": ("black", "o", "fixed to their mean"), "shuffled": ("0.55", "D", "of another image")}
SPREADS = {"sd_channels": {"linewidth": 5, "alpha": 0.3}, "sd_images": {"linewidth": 1.3}}
NULL = {"color": "0.4", "linewidth": 1, "linestyle": ":"}  # where chance alone would be
ALL_BLOCKS = 9.5  # place of all blocks at once, beyond the eighth


def churn_dots(churn):
    """Do the arms disagree more than two runs of one arm? Share of the test images that two runs classify differently.

    churn: percent between_arms, between_arms_other_seed, between_arm_runs, between_baselines, and with the suffix _sd
    the standard deviation over pairs of runs; None where there are too few runs.
    """
    known = [name for name in CHURN if churn[name] is not None]
    rows, values = np.arange(len(known)), np.array([churn[name] for name in known], float)
    spread = np.array([churn[f"{name}_sd"] for name in known], float)  # None becomes NaN
    figure, axis = plt.subplots(figsize=(COLUMN, 0.24 * len(known) + 0.75), layout="constrained")
    axis.hlines(rows, values - spread, values + spread, color="black", linewidth=1.3)
    for row, name in enumerate(known):
        axis.plot(values[row], row, color="black", marker="s" if "between_arms" in name else "o", markersize=5)
    name_rows(axis, [CHURN[name] for name in known])
    axis.set_xlabel("images classified differently (%)\nlines: ± SD over pairs of runs")
    sns.despine(figure, left=True)
    return figure


def reliability_diagram(tables):
    """Is confidence to be trusted? Accuracy − confidence by confidence, above the share of images in each bin.

    tables: {arm: rows confidence, accuracy, share}, fractions, a row for each bin; NaN for an empty one.
    """
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(COLUMN, 3.2), sharex=True, height_ratios=[2.2, 1], layout="constrained"
    )
    mark_zero(upper, along="y")
    for arm, style in arm_styles(tables).items():
        bins = 100 * tables[arm].dropna()
        upper.plot(bins["confidence"], bins["accuracy"] - bins["confidence"], **style, linewidth=1.2, markersize=4)
        lower.plot(bins["confidence"], bins["share"], **style, linewidth=1.2, markersize=4, label=arm)
    upper.set(ylabel="accuracy − confidence\n(points)")
    lower.set(xlabel="confidence (%), runs pooled", ylabel="images (%)", yscale="log")
    shares = np.concatenate([table["share"] for table in tables.values()]) * 100
    ticks = [tick for tick in (0.001, 0.01, 0.1, 1, 10, 100) if tick >= shares[shares > 0].min() / 3]
    lower.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    lower.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    sns.despine(figure)
    return figure


def corruption_effects(table, arm="se_resnet18", baseline="resnet18"):
    """Does the arm withstand corrupted images better? Left: accuracy by severity; right: difference, mean severity.

    table: corruption (`mean` for the mean over all), severity (1 to 5, 0 for the mean over severities), n_pairs,
    accuracy_arm, accuracy_baseline (percent), difference_pp, low_pp, high_pp (points, NaN for none).
    """
    figure = plt.figure(figsize=(PAGE, 3.1), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.7, 1])
    _draw_severities(left, table[(table["severity"] > 0) & (table["corruption"] != "mean")], arm, baseline)
    means = table[table["severity"] == 0]
    axis = right.subplots()
    mark_zero(axis)
    over_all = (means["corruption"] == "mean").to_numpy()
    rows = np.arange(len(means))
    draw_differences(axis, means[~over_all], rows[~over_all])
    draw_differences(axis, means[over_all], rows[over_all], marker="D")
    name_rows(axis, means["corruption"].map(_in_words))
    seeds = count_text(means["n_pairs"].min(), "seed")
    axis.set_xlabel(f"difference (points)\nmean of severities, lines:\n95 % interval over {seeds}")
    sns.despine(right, left=True)
    return figure


def _draw_severities(figure, table, arm, baseline, columns=4):
    """A small panel for each corruption: accuracy of both arms by severity."""
    corruptions = table["corruption"].unique()
    axes = figure.subplots(-(-len(corruptions) // columns), columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(corruptions) :]:
        axis.axis("off")
    for axis, corruption in zip(axes.flat, corruptions, strict=False):
        part = table[table["corruption"] == corruption]
        for name, column in ((baseline, "accuracy_baseline"), (arm, "accuracy_arm")):
            axis.plot(part["severity"], part[column], **arm_styles([name])[name], linewidth=1, markersize=3, label=name)
        axis.set_title(_in_words(corruption), fontsize=TEXT["tick"], loc="center")
        axis.set_xticks(range(1, 6))
    figure.supxlabel("severity", fontsize=TEXT["label"])
    figure.supylabel("accuracy (%)", fontsize=TEXT["label"])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=3)
    sns.despine(figure)


def _in_words(corruption):
    return corruption.replace("_", " ").replace("gaussian", "Gaussian").replace("jpeg", "JPEG")


def gate_profile(gates, interventions):
    """What do the gates do, by depth? Their mean and spread; how much follows the class; what accuracy owes them.

    gates: arm, block (block1, …), n_runs, mean, sd_channels, sd_images, eta_squared, eta_squared_null_95, means over
    seeds, and eta_squared_sd over seeds (NaN for one run or where there is none). interventions: intervention (mean or
    shuffled), block (block1, … or all), n_runs, drop_pp, low_pp, high_pp (points, NaN for none).
    """
    figure, axes = plt.subplots(1, 3, figsize=(PAGE, 3), layout="constrained")
    spread, classes, lost = axes
    arms = arm_styles(gates["arm"].unique())
    for place, (arm, style) in enumerate(arms.items()):
        part = gates[gates["arm"] == arm]
        blocks = _depth(part["block"]) + _dodge(place, len(arms))
        _draw_spread(spread, blocks, part, style)
        _draw_class_share(classes, blocks, part, style)
    for place, name in enumerate(INTERVENTIONS):
        part = interventions[interventions["intervention"] == name]
        _draw_lost(lost, _depth(part["block"]) + _dodge(place, len(INTERVENTIONS)), part, *INTERVENTIONS[name])
    runs = count_text(gates["n_runs"].max(), "run")
    spread.set(title="Gates, and how they vary", ylabel=f"gate, mean over {runs}", ylim=(0, 1))
    classes.set(title="Variance between classes", ylabel="share η² of the gates' variance", ylim=(-0.02, None))
    lost.set(title="Accuracy lost with gates", ylabel="points, logarithmic beyond 1")
    _log_points(lost, interventions)
    _gate_legends(axes, arms)
    runs = count_text(interventions["n_runs"].max(), "run")
    lost.get_legend().set_title(f"lines: 95 % interval over {runs}", prop={"size": TEXT["tick"]})
    numbers = np.unique(_depth(gates["block"])).astype(int)
    for axis in axes:
        axis.set_xlabel("block")
        axis.set_xticks(numbers)
    lost.set_xticks([*numbers, ALL_BLOCKS], [*numbers, "all"])
    sns.despine(figure)
    return figure


def _depth(blocks):
    """Places along x: the number of a block, and one beyond the last for all blocks at once."""
    return np.array([ALL_BLOCKS if block == "all" else int(block.removeprefix("block")) for block in blocks], float)


def _dodge(place, count):
    """Shift of the place-th of `count` series, so that their lines do not hide each other."""
    return 0.24 * (place - (count - 1) / 2)


def _draw_spread(axis, blocks, part, style):
    for name, look in SPREADS.items():
        axis.vlines(blocks, part["mean"] - part[name], part["mean"] + part[name], color=style["color"], **look)
    axis.plot(blocks, part["mean"], **style | {"linestyle": "none"}, markersize=4)


def _draw_class_share(axis, blocks, part, style):
    spread, share = part["eta_squared_sd"], part["eta_squared"]
    axis.vlines(blocks, share - spread, share + spread, color=style["color"], linewidth=1.3)
    axis.plot(blocks, share, **style, linewidth=1, markersize=4)
    axis.plot(blocks, part["eta_squared_null_95"], **NULL)


def _draw_lost(axis, places, part, color, marker, label):
    axis.vlines(places, part["low_pp"], part["high_pp"], color=color, linewidth=1.3)
    axis.plot(places, part["drop_pp"], color=color, marker=marker, linestyle="none", markersize=4, label=label)


def _gate_legends(axes, arms):
    """Below each panel, what its lines are."""
    names = {"sd_channels": "± SD over channels", "sd_images": "± SD over images"}
    spreads = [Line2D([], [], color="0.3", **SPREADS[name], label=label) for name, label in names.items()]
    shares = [Line2D([], [], **style, markersize=4, label=f"{arm}, ± SD over runs") for arm, style in arms.items()]
    null = Line2D([], [], **NULL, label="95th percentile, shuffled labels")
    for axis, handles in zip(axes, (spreads, [*shares, null], axes[2].get_legend_handles_labels()[0]), strict=True):
        axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=2.4)


def _log_points(axis, interventions):
    """Points linear within ±1 and logarithmic beyond: one block costs little, all together much."""
    mark_zero(axis, along="y")
    axis.set_yscale("symlog", linthresh=1)
    ends = interventions[["drop_pp", "low_pp", "high_pp"]].to_numpy(float)
    low, high = min(np.nanmin(ends), 0), max(np.nanmax(ends), 1)
    ticks = [tick for tick in (-30, -10, -3, -1, 0, 0.5, 1, 3, 10, 30, 100) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylim(1.3 * low - 0.15, 1.3 * high)
