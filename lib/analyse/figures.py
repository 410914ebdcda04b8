"""House style of the figures, and what more than one notebook draws; takes tables or arrays, returns a Figure."""

import io
import itertools
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import seaborn as sns
from IPython.display import Image

from lib.files import atomic_write
from lib.study import SEPARATOR

COLUMN, PAGE = 3.4, 5.5  # inches: a narrow figure, and the width of the paper's text
LABEL, TICK, CELL = 8, 7, 6  # points
SCREEN = 150  # pixels for an inch of print, so that a page-wide figure fills most of a notebook

# What the arms of the studies in lib/studies are called, and their colour, marker and line in every figure. The colours
# are Okabe and Ito's, which colour-blind readers can tell apart; markers and lines tell arms apart in grey.
ARMS = {
    "resnet18": ("ResNet-18", "#0072B2", "o", "-"),
    "se_resnet18": ("SE-ResNet-18", "#D55E00", "s", "--"),
    "free_se_resnet18": ("SE-ResNet-18, gates without decay", "#882255", "p", (0, (4, 1))),
    "free_static_gate_resnet18": ("static gate without decay", "#117733", "d", (0, (2, 2))),
    "se_skip_resnet18": ("skip SE", "#CC79A7", "^", "-."),
    "static_gate_resnet18": ("static gate", "#009E73", "D", ":"),
    "half_scale_resnet18": ("half scale", "#56B4E9", "v", (0, (3, 1, 1, 1, 1, 1))),
    "half_scale_skip_resnet18": ("half scale on skip path", "#E69F00", "<", (0, (8, 2))),
    "wide_resnet18": ("wide", "#000000", "P", (0, (1, 3))),
}
OTHER_STYLES = (("#332288", "p", ":"), ("#999933", "h", "--"), ("#AA4499", "X", "-."), ("#7F7F7F", "*", "-"))
VARIANTS = {"quarter_width": "¼ width", "half_width": "½ width", "plain_rate": "equal rates", "se_rate": "rate of SE"}
VARIANTS |= {"free_gates": "gates without decay", "se_rate_static": "rate of SE, more seeds"}


def use_style():
    """House style for all figures, whatever the user's matplotlibrc says: readable at the size of print."""
    mpl.rcdefaults()
    sizes = {"font.size": LABEL, "axes.labelsize": LABEL, "axes.titlesize": LABEL, "legend.fontsize": TICK}
    sizes |= {"xtick.labelsize": TICK, "ytick.labelsize": TICK, "lines.linewidth": 1.2, "lines.markersize": 4}
    look = {"legend.frameon": False, "axes.titlelocation": "left", "axes.titlepad": 3, "axes.linewidth": 0.8}
    files = {"figure.dpi": SCREEN, "savefig.dpi": 1.5 * SCREEN, "pdf.fonttype": 42}
    # the font that comes with matplotlib, so that figures do not depend on the machine's
    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans", rc=sizes | look | files)


def arm_name(label):
    """What readers call an arm or a variant of it: "SE-ResNet-18, ¼ width" for se_resnet18__quarter_width."""
    arm, _, variant = label.partition(SEPARATOR)
    name = ARMS[arm][0] if arm in ARMS else arm.replace("_", " ")
    parts = re.split(r"_(?=\d+_|plain_rate|se_rate|free_gates)", variant) if variant else []
    return ", ".join([name, *(VARIANTS.get(part, part.replace("_", " ")) for part in parts)])


def comparison_name(arm, baseline):
    """What readers call a difference, with a variant of both named once: "SE-ResNet-18 − static gate, ¼ width"."""
    name, _, variant = arm.partition(SEPARATOR)
    return f"{arm_name(name if variant == baseline.partition(SEPARATOR)[2] else arm)} − {arm_name(baseline)}"


def arm_styles(arms):
    """Colour, marker and linestyle of each arm as keywords of Axes.plot, {arm: {…}}.

    Named arms look the same in every figure. Others, and second variants of an arm, take what is left, in order.
    """
    others, styles, free = itertools.cycle(OTHER_STYLES), {}, dict(ARMS)
    for label in arms:
        _, *look = free.pop(label.partition(SEPARATOR)[0], None) or ("", *next(others))
        styles[label] = dict(zip(("color", "marker", "linestyle"), look, strict=True))
    return styles


def save_figure(figure, folder, name, alt):
    """Write `name`.pdf and `name`.png at the size of print, and return the PNG as `picture` does.

    Equal results give equal files. Raises StudyError where the folder cannot be written.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # settled: with images in it, the layout would move a little at every drawing
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    image = picture(figure, alt)
    for kind, content in (("pdf", buffer.getvalue()), ("png", image.data)):
        atomic_write(folder / f"{name}.{kind}", content)
    return image


def picture(figure, alt):
    """The figure, which is closed, as a small PNG of 256 colours. alt: text for readers who cannot see it."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    PIL.Image.open(drawn).convert("RGB").quantize(256, PIL.Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
    return Image(small.getvalue(), width=round(SCREEN * figure.get_figwidth()), metadata={"alt": alt})


def mark_zero(axis, along="x", reference=None):
    """A dashed line at no difference along x or y, and a dotted one at a reference that is given."""
    line = axis.axvline if along == "x" else axis.axhline
    line(0, color="0.5", linewidth=0.8, linestyle=(0, (5, 2)), zorder=0)
    if reference is not None:
        line(reference, color="0.2", linewidth=1.1, linestyle=(0, (1, 2)), zorder=0)


def forest(panels, reference=None):
    """Which comparisons show a difference? One row each: the mean difference with its 95 % intervals.

    panels: {title: table}, on one scale. A table has comparison (a name), difference_pp (NaN: a heading), and, where
    known, high_pp, crossed_high (upper ends; the second is thin) and color. reference: where to draw a dotted line.
    """
    size = {"figsize": (PAGE, 0.1 * max(map(len, panels.values())) + 0.45), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(panels), **size, squeeze=False)
    for axis, (title, table) in zip(axes.flat, panels.items(), strict=True):
        mark_zero(axis, reference=reference)
        rows, means, colors = range(len(table)), table["difference_pp"], table.get("color", ["black"] * len(table))
        thin, thick = {"ecolor": "0.2", "elinewidth": 0.7, "capsize": 2}, {"ecolor": list(colors), "elinewidth": 2}
        for end, look in (("crossed_high", thin), ("high_pp", thick)):  # both intervals have the mean in their middle
            axis.errorbar(means, rows, xerr=table.get(end, np.nan * means).astype(float) - means, fmt="none", **look)
        axis.scatter(means, rows, c=colors, s=8, zorder=3)
        axis.set(yticks=rows, yticklabels=table["comparison"], ylim=(len(table) - 0.4, -0.6), title=title)
        for heading in np.flatnonzero(means.isna()):
            axis.get_yticklabels()[heading].set_fontweight("bold")
        axis.tick_params(axis="y", length=0)
        axis.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    axes[0, 0].get_gridspec().set_width_ratios([np.ptp(axis.get_xlim()) for axis in axes.flat])
    sns.despine(figure, left=True)
    return figure


def learning_curves(metrics, arm):
    """Loss and training accuracy of one run over its epochs.

    metrics: rows with epoch, train_loss (nats) and train_accuracy (fraction), such as metrics.csv.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 1.8), layout="constrained")
    shown = ("train_loss", 1, "training loss (nats)"), ("train_accuracy", 100, "training accuracy (%)")
    for axis, (column, scale, quantity) in zip(axes, shown, strict=True):
        axis.plot(metrics["epoch"], scale * metrics[column], "o-", color=arm_styles([arm])[arm]["color"])
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.xaxis.get_major_locator().set_params(integer=True)
    sns.despine(figure)
    return figure


def confusion_matrices(panels, classes):
    """Matrices side by side. panels: (title, images of 1,000 (classes, classes), diverging) each; rows are classes.

    Columns have the order of the rows. The colours of a plain matrix leave out its diagonal, so that errors show. In
    diverging ones, on one scale, orange is better and purple worse. Blank: 0, and changes below 3 images.
    """
    size = {"figsize": (PAGE, 1.45) if len(panels) > 1 else (COLUMN, 2.4), "layout": "constrained"}
    size["width_ratios"] = [1 if diverging else 1.1 for *_, diverging in panels]
    figure, axes = plt.subplots(1, len(panels), squeeze=False, **size)
    shades = [matrix * np.where(np.eye(len(classes)), sign, 1 - 2 * sign) for _, matrix, sign in panels]
    for axis, shade, (title, matrix, diverging) in zip(axes.flat, shades, panels, strict=True):
        alike = [np.abs(each).max() for each, panel in zip(shades, panels, strict=True) if panel[2] == diverging]
        limit, colors = max(1.3 * max(alike), 1e-9), "PuOr_r" if diverging else "Blues"  # not too dark
        image = axis.imshow(shade, colors, vmin=-limit * diverging, vmax=limit, aspect="auto")
        for row, column in np.argwhere(np.abs(matrix).round() >= (3 if diverging else 1)):
            value, dark = matrix[row, column], image.to_rgba(shade)[row, column, :3].mean() < 0.5
            text = f"{value:{'+' * diverging}.0f}".replace("-", "−")
            axis.text(column, row, text, color="white" if dark else "black", fontsize=CELL, ha="center", va="center")
        axis.set_xticks(range(len(classes)), [name[:3] for name in classes], rotation=90)
        axis.set_yticks(range(len(classes)), classes if axis is axes[0, 0] else [])
        axis.set_title(title)
        axis.tick_params(length=0)
    axes[0, 0].set_ylabel("true class")
    return figure
