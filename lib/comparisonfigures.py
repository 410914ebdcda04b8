"""Figures of how two arms differ: over seeds and images, settings, training lengths, amounts of data and subsets."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import NullFormatter, NullLocator

from lib.figures import (
    BAND_NOTE,
    PAGE,
    TEXT,
    arm_colours,
    arm_styles,
    count_text,
    draw_differences,
    mark_zero,
    name_rows,
)

INTERVALS = {  # of the primary comparison, and what they hold for
    "seed_interval_pp": "new seeds",
    "image_interval_pp": "new images",
    "crossed_interval_pp": "new seeds\nand images",
}
NO_SETTINGS = {"tuned", "cell", "seed", "val_accuracy", "val_loss"}  # the other columns of tuning scores
SETTING_STYLES = (("0.15", "o", "-"), ("#0072B2", "s", "--"), ("#D55E00", "^", "-."), ("#009E73", "D", ":"))


def paired_accuracy(pairs, primary):
    """Is the arm better? Left: test accuracy of each seed in both arms; right: the differences with their intervals.

    pairs: fractions, index seed, columns baseline and arm; primary: difference_pp and, where they are known, the 95 %
    intervals [low, high] seed_interval_pp, image_interval_pp and crossed_interval_pp.
    """
    height = np.clip(0.105 * len(pairs) + 1.6, 2.3, 4.5)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE, height), width_ratios=[1, 1.5], layout="constrained", gridspec_kw={"wspace": 0.06}
    )
    _draw_slopes(left, 100 * pairs)
    _draw_seed_differences(right, pairs, primary)
    sns.despine(figure)
    return figure


def _draw_slopes(axis, percent):
    """Each seed as a line from baseline to arm in the colour of the better one; means at the sides."""
    baseline, arm = percent.columns
    colours = arm_colours(percent.columns)
    for _, pair in percent.iterrows():
        better = arm if pair[arm] > pair[baseline] else baseline
        axis.plot([0, 1], pair, color=colours[better], linewidth=0.7, alpha=0.45, zorder=1)
    for place, (name, style) in enumerate(arm_styles(percent.columns).items()):
        values, side = percent[name], 2 * place - 1
        axis.plot([place] * len(values), values, **style | {"linestyle": "none"}, markersize=4, alpha=0.9)
        axis.plot([place + 0.1 * side, place + 0.26 * side], [values.mean()] * 2, color=style["color"], linewidth=2.2)
        where = {"ha": "left" if side > 0 else "right", "va": "center", "color": style["color"]}
        axis.text(place + 0.32 * side, values.mean(), f"{values.mean():.2f}", fontsize=TEXT["label"], **where)
    axis.set_xticks([0, 1], percent.columns, fontsize=TEXT["label"])
    axis.set(xlim=(-0.85, 1.85), ylabel="test accuracy (%)", title="Accuracy of each seed, and means")


def _draw_seed_differences(axis, pairs, primary):
    """Differences from the first seed downwards, and below them the mean with each interval that there is."""
    baseline, arm = pairs.columns
    differences, style = 100 * (pairs[arm] - pairs[baseline]), arm_styles([arm])[arm]
    rows = np.arange(len(differences))
    mark_zero(axis, band=True)
    axis.hlines(rows, 0, differences, color=style["color"], linewidth=0.8, alpha=0.5)
    axis.plot(differences, rows, **style | {"linestyle": "none"}, markersize=4)
    known = {label: primary.get(name) for name, label in INTERVALS.items() if primary.get(name)}
    low_high = np.array(list(known.values()) or [[np.nan, np.nan]])
    step = max(1.6, len(rows) / 9)  # rows are lower the more seeds there are, the names of the intervals are not
    places = len(rows) - 1 + step * (1 + np.arange(len(low_high))) + 0.3 * step
    means = pd.DataFrame(
        {"difference_pp": primary["difference_pp"], "low_pp": low_high[:, 0], "high_pp": low_high[:, 1]}
    )
    draw_differences(axis, means, places, marker="D", markersize=5)
    axis.axhline(len(rows) - 1 + 0.65 * step, color="0.8", linewidth=0.8)
    every = 1 if len(rows) <= 10 else 5
    seeds = [f"seed {seed}" for seed in differences.index[::every]]
    axis.set_yticks([*rows[::every], *places], [*seeds, *(list(known) or ["mean"])])
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(places[-1] + 0.7 * step, -0.8)
    lines = "black: mean and 95 % intervals\n" if known else ""
    axis.set(title=f"Difference of each seed, n = {count_text(len(rows), 'pair')}")
    axis.set_xlabel(f"{arm} − {baseline} (percentage points)\n{lines}{BAND_NOTE}")


def forest(comparisons):
    """Which comparisons show a difference? One row each: mean difference with its interval over seeds, n and p.

    comparisons: comparison (a name), n_pairs, difference_pp, low_pp, high_pp (NaN for none), optional
    p_adjusted (None or NaN for none).
    """
    figure, axis = _forest_axes(len(comparisons))
    _draw_forest(axis, comparisons, comparisons["comparison"], band=True)
    texts = {"pairs": comparisons["n_pairs"].map("{:d}".format)}
    if "p_adjusted" in comparisons:
        texts["adjusted p"] = comparisons["p_adjusted"].map(_p_text)
    _write_columns(axis, texts)
    axis.set_xlabel(f"difference in test accuracy (percentage points), 95 % interval over seeds\n{BAND_NOTE}")
    return figure


def subset_forest(subsets):
    """On which images is there a difference? One row for each subset of the test images, with its number of images.

    subsets: index subset (a name), columns n_images, difference_pp, low_pp, high_pp (NaN for none).
    """
    figure, axis = _forest_axes(len(subsets))
    _draw_forest(axis, subsets, subsets.index, band=False)
    _write_columns(axis, {"images": subsets["n_images"].map("{:,d}".format)})
    axis.set_xlabel("difference in accuracy on these images (percentage points), 95 % interval over seeds")
    return figure


def _forest_axes(rows):
    return plt.subplots(figsize=(PAGE, 0.21 * rows + 0.8), layout="constrained")


def _draw_forest(axis, table, names, band):
    mark_zero(axis, band=band)
    draw_differences(axis, table, np.arange(len(table)))
    name_rows(axis, names)
    sns.despine(axis.figure, left=True)


def _write_columns(axis, columns):
    """Columns of text to the right of the rows, {heading: one text a row}."""
    for place, (heading, texts) in enumerate(columns.items()):
        for row, text in enumerate([heading, *texts], start=-1):
            where = {"xy": (1, row), "xycoords": axis.get_yaxis_transform(), "annotation_clip": False}
            offset = {"xytext": (42 * (place + 1), 0), "textcoords": "offset points"}
            axis.annotate(text, **where, **offset, ha="right", va="center_baseline", fontsize=TEXT["tick"])


def _p_text(p):
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def tuning_grid(scores, winners):
    """Which settings suit each tuned arm? A panel an arm: validation accuracy of each run, means joined by lines.

    scores: rows tuned, the settings of the grid, seed, val_accuracy (fraction). x is the first setting, with a line for
    each value of the others. winners: {arm: {setting: value}}, ringed; None while the tuning is incomplete.
    """
    first, *others = [name for name in scores.columns if name not in NO_SETTINGS]
    arms = scores["tuned"].unique()
    size, shared = (PAGE, 2.7), {"sharex": True, "sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(arms), figsize=size, **shared, layout="constrained")
    handles = {}
    for axis, arm in zip(axes.flat, arms, strict=True):
        part = scores[scores["tuned"] == arm].assign(percent=100 * scores["val_accuracy"])
        winner = (winners or {}).get(arm)
        lines = list(part.groupby(others)) if others else [((), part)]
        for place, (values, line) in enumerate(lines):
            x = line[first] * 1.03 ** (place - (len(lines) - 1) / 2)  # so that lines do not hide each other
            label = ", ".join(f"{name} {value:g}" for name, value in zip(others, values, strict=True)) or "mean"
            handles[label.replace("_", " ")] = _draw_setting(axis, x, line["percent"], place)
            won = [(line[name] == value) for name, value in (winner or {}).items()]
            if winner and (chosen := np.all(won, axis=0)).any():
                _ring(axis, x[chosen].iloc[0], line["percent"][chosen].mean())
        axis.set(title=arm, xlabel=first.replace("_", " "))
        _value_ticks(axis, scores[first].unique())
    axes[0, 0].set_ylabel("validation accuracy (%)")
    if winners:
        handles["winner"] = _ring(axes[0, 0], np.nan, np.nan)
    n = scores.groupby("tuned")["seed"].nunique().max()
    style = {"title": f"large: means, small: each of {count_text(n, 'seed')}", "title_fontsize": TEXT["tick"]}
    place = {"loc": "outside lower center", "ncols": len(handles), "handlelength": 3}
    figure.legend(handles.values(), handles.keys(), **style, **place)
    sns.despine(figure)
    return figure


def _draw_setting(axis, x, percent, place):
    """Points of all runs along x, and their means joined by a line, which is returned."""
    color, marker, dashes = SETTING_STYLES[place % len(SETTING_STYLES)]
    look = {"color": color, "marker": marker}
    axis.plot(x, percent, **look, linestyle="none", markersize=2.8, alpha=0.6)
    return axis.plot(percent.groupby(x).mean(), **look, linestyle=dashes, linewidth=1.2, markersize=5.5)[0]


def _ring(axis, x, y):
    face = {"markerfacecolor": "none", "markeredgecolor": "black"}
    return axis.plot(x, y, marker="o", markersize=13, **face, linestyle="none")[0]


def _value_ticks(axis, values):
    """A logarithmic x axis whose ticks are the values that were tried."""
    values = sorted(values)
    axis.set_xscale("log")
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(values[0] / 1.25, values[-1] * 1.25)


def effect_curves(curves, arm="se_resnet18", baseline="resnet18"):
    """Where does an effect live? Above: accuracies of both arms along a setting; below: differences with intervals.

    curves: {title: rows x, n_pairs, difference_pp, low_pp, high_pp (NaN for none), accuracy_arm, accuracy_baseline in
    percent}; the title names x.
    """
    figure, axes = plt.subplots(
        2, len(curves), figsize=(PAGE, 3.6), sharex="col", sharey="row", squeeze=False, layout="constrained"
    )
    for (upper, lower), (title, curve) in zip(axes.T, curves.items(), strict=True):
        for name, column in ((baseline, "accuracy_baseline"), (arm, "accuracy_arm")):
            upper.plot(curve["x"], curve[column], **arm_styles([name])[name], linewidth=1.2, markersize=4.5, label=name)
        mark_zero(lower, along="y", band=True)
        lower.vlines(curve["x"], curve["low_pp"], curve["high_pp"], color="black", linewidth=1.3)
        lower.plot(curve["x"], curve["difference_pp"], color="black", marker="o", linestyle="none", markersize=4.5)
        counts = curve["n_pairs"].unique()
        pairs = f"{', '.join(map(str, curve['n_pairs']))} pairs"
        pairs = pairs if len(counts) > 1 else f"{count_text(counts[0], 'pair')} each"
        lower.set_xlabel(f"{title} (n = {pairs})")
        _value_ticks(lower, curve["x"])
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("difference (points)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, handlelength=3)
    figure.supxlabel(f"lines: 95 % interval over seeds; {BAND_NOTE}", fontsize=TEXT["tick"])
    sns.despine(figure)
    return figure
