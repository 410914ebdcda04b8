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
    "se_skip_resnet18": ("SE on skip", "#CC79A7", "^", "-."),
    "static_gate_resnet18": ("static gate", "#009E73", "D", ":"),
    "half_scale_resnet18": ("half scale", "#56B4E9", "v", (0, (3, 1, 1, 1, 1, 1))),
    "half_scale_skip_resnet18": ("half scale on skip", "#E69F00", "<", (0, (8, 2))),
    "wide_resnet18": ("wide", "#000000", "P", (0, (1, 3))),
}
OTHER_STYLES = (("#332288", "p", "-"), ("#999933", "h", "--"), ("#AA4499", "X", "-."), ("#7F7F7F", "*", ":"))
VARIANT_LINES = (":", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (8, 2, 1, 2)), (0, (4, 4)))


def use_style():
    """House style for all figures, whatever the user's matplotlibrc says: readable at the size of print."""
    mpl.rcdefaults()
    sizes = {"font.size": LABEL, "axes.labelsize": LABEL, "axes.titlesize": LABEL, "legend.fontsize": TICK}
    sizes |= {"xtick.labelsize": TICK, "ytick.labelsize": TICK, "lines.linewidth": 1.2, "lines.markersize": 4}
    look = {"legend.frameon": False, "axes.titlelocation": "left", "axes.linewidth": 0.8}
    files = {"figure.dpi": SCREEN, "savefig.dpi": 1.5 * SCREEN, "pdf.fonttype": 42}
    # the font that comes with matplotlib, so that figures do not depend on the machine's
    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans", rc=sizes | look | files)


def arm_name(label):
    """What readers call an arm or a variant of it: "SE-ResNet-18, ¼ width" for se_resnet18__quarter_width."""
    arm, _, variant = label.partition(SEPARATOR)
    name = ARMS[arm][0] if arm in ARMS else arm.replace("_", " ")
    variant = variant.replace("quarter_width", "¼ width").replace("half_width", "½ width")
    parts = [name, *re.split(r"_(?=\d+_|plain_rate|se_rate|free_gates)", variant)] if variant else [name]
    return ", ".join(part.replace("_", " ") for part in parts)


def comparison_name(arm, baseline):
    """What readers call a difference, with a variant of both named once: "SE-ResNet-18 − static gate, ¼ width"."""
    name, _, variant = arm.partition(SEPARATOR)
    return f"{arm_name(name if variant == baseline.partition(SEPARATOR)[2] else arm)} − {arm_name(baseline)}"


def arm_styles(arms):
    """Colour, marker and linestyle of each arm as keywords of Axes.plot, {arm: {…}}.

    Named arms look the same in every figure, others take what is left, in order; a variant `arm__variant` has its arm's
    colour and marker, and a line of its own where figures show several.
    """
    others, lines, styles = itertools.cycle(OTHER_STYLES), {}, {}
    for label in arms:
        arm = label.partition(SEPARATOR)[0]
        if arm not in lines:
            color, marker, line = ARMS[arm][1:] if arm in ARMS else next(others)
            lines[arm] = color, marker, itertools.chain([line], itertools.cycle(VARIANT_LINES))
        color, marker, rest = lines[arm]
        styles[label] = {"color": color, "marker": marker, "linestyle": next(rest)}
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
    """The figure, which is closed, as a small PNG of 128 colours. alt: text for readers who cannot see it."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    PIL.Image.open(drawn).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    return Image(small.getvalue(), width=round(SCREEN * figure.get_figwidth()), metadata={"alt": alt})


def mark_zero(axis, along="x", reference=None):
    """A dashed line at no difference along x or y, and a dotted one at a reference that is given."""
    line = axis.axvline if along == "x" else axis.axhline
    line(0, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
    if reference is not None:
        line(reference, color="0.4", linewidth=0.8, linestyle=":", zorder=0)


def forest(table, columns=(), reference=None, width=PAGE):
    """Which comparisons show a difference? One row each: the mean difference with its 95 % interval.

    table: comparison (a name), difference_pp, low_pp, high_pp (None or NaN for no interval), optional color, and the
    `columns` of text to write beside the rows. reference: a difference to mark by a dotted line; width: in inches.
    """
    figure, axis = plt.subplots(figsize=(width, 0.1 * len(table) + 0.6), layout="constrained")
    mark_zero(axis, reference=reference)
    rows = np.arange(len(table))
    colors = table["color"] if "color" in table else ["black"] * len(table)
    axis.hlines(rows, table["low_pp"].astype(float), table["high_pp"].astype(float), color=colors, linewidth=1.4)
    axis.scatter(table["difference_pp"], rows, c=colors, s=18, zorder=2)
    axis.set_yticks(rows, table["comparison"])
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=6)
    for at, column in enumerate(columns):
        look = {"textcoords": "offset points", "ha": "right", "fontsize": TICK, "annotation_clip": False}
        axis.annotate(column, (1, 1), (24 + 41 * at, 2), "axes fraction", va="bottom", **look)
        for row, text in enumerate(table[column]):
            axis.annotate(text, (1, row), (24 + 41 * at, 0), axis.get_yaxis_transform(), va="center_baseline", **look)
    axis.set_xlabel("difference in accuracy (points)")
    sns.despine(figure, left=True)
    return figure


def learning_curves(metrics, arm):
    """Loss and training accuracy of one run over its epochs.

    metrics: rows with epoch, train_loss (nats) and train_accuracy (fraction), such as metrics.csv.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 1.8), layout="constrained")
    color = arm_styles([arm])[arm]["color"]
    shown = ("train_loss", 1, "training loss (nats)"), ("train_accuracy", 100, "training accuracy (%)")
    for axis, (column, scale, quantity) in zip(axes, shown, strict=True):
        axis.plot(metrics["epoch"], scale * metrics[column], color=color, marker="o")
        axis.set(xlabel="epoch", ylabel=quantity)
        axis.xaxis.get_major_locator().set_params(integer=True)
    sns.despine(figure)
    return figure


def confusion_matrices(panels, classes):
    """Matrices side by side. panels: (title, percentages (classes, classes), diverging) each; rows are true classes.

    The colours of a plain matrix leave out its diagonal, so that the errors show; those of a diverging one are centred
    on zero. Percentages that round to zero, and changes that round to less than 0.3 points, are not printed.
    """
    size = (PAGE, 1.76) if len(panels) > 1 else (COLUMN, 2.4)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (title, matrix, diverging) in zip(axes.flat, panels, strict=True):
        shade = matrix if diverging else np.where(np.eye(len(classes), dtype=bool), 0, matrix)
        limit = max(np.abs(shade).max(), 1e-9)
        colors = {"cmap": "PuOr_r", "vmin": -limit} if diverging else {"cmap": "Blues", "vmin": 0}
        axis.imshow(shade, vmax=limit, aspect="auto", **colors)
        for row, column in np.argwhere(np.abs(matrix).round(1) >= (0.3 if diverging else 0.1)):
            value, dark = matrix[row, column], abs(shade[row, column]) > 0.6 * limit
            style = {"fontsize": TICK, "color": "white" if dark else "black"}
            text = f"{value:{'+' * diverging}.{0 if abs(value) >= 9.95 else 1}f}".replace("-", "−")
            axis.text(column, row, text, ha="center", va="center", **style)
        axis.set_xticks(range(len(classes)), classes, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(classes)), classes if axis is axes[0, 0] else [])
        axis.set_title(title, pad=3)
        axis.tick_params(length=0)
    axes[0, 0].set_ylabel("true class")
    return figure
