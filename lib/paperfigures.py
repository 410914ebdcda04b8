"""The two figures of the paper, at the size at which they are printed."""

import io

import numpy as np
import pandas as pd
from matplotlib import font_manager, get_data_path
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm

from lib.behaviour import seed_interval
from lib.behavioursentences import gate_rows
from lib.comparisons import paired_values
from lib.comparisonsentences import smallest_adjusted_p
from lib.data import CLASSES
from lib.figures import TEXT, arm_colours, draw_differences, mark_zero, use_style
from lib.runs import atomic_write, load_logit_stack, load_runs
from lib.statistics import ALPHA, confusion_percent
from lib.studyfacts import table_rows
from lib.wording import comparison_name

TEXT_FONT = f"{get_data_path()}/fonts/ttf/STIXGeneral.ttf"  # comes with matplotlib; like the text around the figures
PRINT_WIDTH = 5.5  # inches, of the text


def write_figures(study, results, folder):
    """Write effects.pdf and behaviour.pdf, at the size of print, into `folder`; raises StudyError as load_runs does."""
    pairs = paired_values(load_runs(study), study.arm, study.baseline)
    differences = 100 * (pairs[study.arm] - pairs[study.baseline]).to_numpy()
    with plt.rc_context():
        use_style()
        font_manager.fontManager.addfont(TEXT_FONT)
        plt.rcParams["font.family"] = font_manager.FontProperties(fname=TEXT_FONT).get_name()
        for name, figure in (
            ("effects", effects_figure(differences, study, results)),
            ("behaviour", behaviour_figure(study, results, confusion_shifts(study, list(pairs.index)))),
        ):
            _write_pdf(figure, folder / f"{name}.pdf")
            plt.close(figure)


def _write_pdf(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    atomic_write(path, lambda file: file.write(buffer.getvalue()))


def effects_figure(differences, study, results):
    """Differences (pp) in one column: each seed, the intervals of their mean, the controls; beside it the curves."""
    titles = {"curve_length": "epochs", "curve_data": "share of images"}
    curves = {title: pd.DataFrame(results[key]) for key, title in titles.items() if results.get(key)}
    figure = plt.figure(figsize=(PRINT_WIDTH, 2.0), layout="constrained")
    grid = figure.add_gridspec(max(1, len(curves)), 1 + bool(curves), width_ratios=[2.2, 1][: 1 + bool(curves)])
    figure.get_layout_engine().set(wspace=0.08)
    _draw_comparisons(figure.add_subplot(grid[:, 0]), differences, study, results)
    for place, (title, curve) in enumerate(curves.items()):
        _draw_curve(figure.add_subplot(grid[place, 1]), title, curve)
    return figure


def _draw_comparisons(axis, differences, study, results):
    primary, controls = results["primary"], table_rows(results, "controls")
    mark_zero(axis, band=True)
    heights = np.linspace(-0.35, 0.35, len(differences)) if len(differences) > 1 else [0]
    axis.plot(differences, heights, "o", color=arm_colours([study.arm])[study.arm], markersize=2.8, alpha=0.8)
    intervals = {
        "over seeds": "seed_interval_pp",
        "over images": "image_interval_pp",
        "over both": "crossed_interval_pp",
    }
    known = {label: primary[name] for label, name in intervals.items() if primary[name]}
    means = pd.DataFrame(known.values(), columns=["low_pp", "high_pp"]).assign(difference_pp=primary["difference_pp"])
    rows = 1.2 + np.arange(len(known))
    draw_differences(axis, means, rows, marker="D", markersize=3.5)
    places, names = [0, *rows], ["SE − baseline, each pair", *(f"mean, 95 % interval {label}" for label in known)]
    if controls:
        table, first = pd.DataFrame(controls), rows[-1] + 1.4 if len(rows) else 1.4
        gap = 0.4 * (table["reference"] != study.baseline)
        rows = first + np.arange(len(table)) + gap
        draw_differences(axis, table, rows, markersize=3.2)
        places, names = [*places, *rows], [*names, *map(comparison_name, controls)]
        if smallest_adjusted_p(study, controls) < ALPHA:  # else all of them are large by design
            _write_p_values(axis, rows, table["p_adjusted"])
        axis.axhline(first - 0.7, color="0.8", linewidth=0.6)
    axis.set_yticks(places, names, fontsize=TEXT["cell"])
    axis.set_ylim(places[-1] + 0.6, -0.8)
    axis.set_xlabel("difference in test accuracy (percentage points)")
    _bare(axis, "left")


def _write_p_values(axis, rows, p_values):
    """Holm's p to the right of each row, under a heading."""
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": TEXT["cell"]}
    axis.text(1.02, rows[0] - 0.95, "Holm's p", **beside)
    for row, p in zip(rows, p_values, strict=True):
        axis.text(1.02, row, f"{p:.3f}", **beside)


def _draw_curve(axis, title, curve):
    mark_zero(axis, along="y", band=True)
    axis.vlines(curve["x"], curve["low_pp"].astype(float), curve["high_pp"].astype(float), color="black", linewidth=1.1)
    axis.plot(curve["x"], curve["difference_pp"], "o", color="black", markersize=3.2)
    axis.set_xscale("log")
    axis.set_xticks(curve["x"], [f"{x:g}" for x in curve["x"]])
    axis.set_xticks([], minor=True)
    axis.set_xlim(curve["x"].min() / 1.4, curve["x"].max() * 1.4)
    axis.set(xlabel=title, ylabel="SE − base (pp)")
    _bare(axis)


def confusion_shifts(study, seeds):
    """Confusion of SE − baseline in percentage points of the true class, (pairs, classes, classes), from stored logits.

    None without seeds.
    """
    if not seeds:
        return None
    tables = []
    for arm in (study.arm, study.baseline):
        logits, labels = load_logit_stack(study, arm, seeds)
        tables.append([confusion_percent(run, labels, logits.shape[-1]) for run in logits.argmax(-1)])
    return np.subtract(*map(np.array, tables))


def behaviour_figure(study, results, shifts):
    """By depth the share of gate variance between classes and the accuracy lost with gates; shifts of confusions."""
    figure, (share_axis, lost_axis, class_axis) = plt.subplots(
        1, 3, figsize=(PRINT_WIDTH, 1.55), width_ratios=[1, 1.2, 1.3], layout="constrained"
    )
    _draw_class_share(share_axis, gate_rows(study, results))
    _draw_lost(lost_axis, table_rows(results, "interventions"))
    _draw_confusions(class_axis, shifts, CLASSES[study.run(study.baseline, 0).dataset])
    return figure


def _draw_class_share(axis, rows):
    rows = [row for row in rows if row["eta_squared"] is not None]
    table = pd.DataFrame(rows, columns=["eta_squared", "eta_squared_sd", "eta_squared_null_95"]).astype(float)
    blocks = np.arange(1, len(table) + 1)
    axis.errorbar(
        blocks, table["eta_squared"], table["eta_squared_sd"], fmt="o-", color="black", markersize=3, linewidth=1
    )
    axis.plot(blocks, table["eta_squared_null_95"], ":", color="0.4", linewidth=1)
    axis.set(xlabel="block", ylabel="η², classes in gates", ylim=(-0.02, None), xticks=blocks)
    _bare(axis)


def _draw_lost(axis, rows):
    mark_zero(axis, along="y")
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    looks = {"mean": ("fixed at the mean", "o", "black", -0.14), "shuffled": ("of another image", "s", "#D55E00", 0.14)}
    for name, (label, marker, color, shift) in looks.items():
        table = pd.DataFrame(
            [row for row in rows if row["intervention"] == name], columns=["drop_pp", "low_pp", "high_pp"]
        )
        places = np.arange(1, len(table) + 1) + shift
        axis.vlines(places, table["low_pp"].astype(float), table["high_pp"].astype(float), color=color, linewidth=1)
        axis.plot(places, table["drop_pp"], marker, color=color, markersize=3, label=label)
    axis.set_xticks(range(1, len(blocks) + 1), [block.removeprefix("block") for block in blocks])
    axis.set(xlabel="block", ylabel="accuracy lost (points)")
    axis.legend(loc="upper left", handletextpad=0.2, borderaxespad=0)
    _bare(axis)


def _draw_confusions(axis, shifts, classes):
    """Mean shift of each cell; its sign is printed where the interval over pairs, not adjusted, excludes zero."""
    if shifts is None:
        axis.set_axis_off()
        return
    mean = shifts.mean(0)
    largest = max(abs(mean).max(), 1e-9)
    picture = axis.imshow(mean, cmap="PuOr_r", norm=TwoSlopeNorm(0, -largest, largest))
    low, high = np.apply_along_axis(seed_interval, 0, shifts)
    for row, column in np.argwhere((low > 0) | (high < 0)):
        sign = "+" if mean[row, column] > 0 else "−"
        ink = "white" if abs(mean[row, column]) > largest / 2 else "black"
        axis.text(column, row, sign, ha="center", va="center", fontsize=7, color=ink)
    axis.set_xticks(range(len(classes)), [name[:4] for name in classes], rotation=90)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="given", ylabel="true")
    _bare(axis)
    bar = axis.figure.colorbar(picture, ax=axis, fraction=0.05, pad=0.03)
    bar.ax.tick_params(labelsize=6)


def _bare(axis, *sides):
    axis.spines[["top", "right", *sides]].set_visible(False)
    axis.tick_params(labelsize=6.5, **({"left": False} if sides else {}))
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_size(7)
