"""House style of the figures and those about single arms; functions take tables or arrays, return a matplotlib Figure.

Each figure answers one question. What two arms differ in is drawn by lib.comparisonfigures, what networks do beyond
their accuracy by lib.behaviourfigures.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lib.config import SEPARATOR
from lib.runs import atomic_write
from lib.statistics import SMALLEST_EFFECT_PP

COLUMN, PAGE = 3.4, 6.9  # inches
TEXT = {"label": 8, "tick": 7, "cell": 6.5}  # points
BAND_NOTE = f"shaded: smallest effect of interest, ±{SMALLEST_EFFECT_PP:g}"

# Colour, marker and line of each arm, the same in every figure. The colours are mostly Okabe and Ito's, told apart by
# colour-blind readers; markers and lines tell arms apart in greyscale.
ARM_STYLES = {
    "resnet18": ("#0072B2", "o", "-"),
    "se_resnet18": ("#D55E00", "s", "--"),
    "se_skip_resnet18": ("#CC79A7", "^", "-."),
    "static_gate_resnet18": ("#009E73", "D", ":"),
    "half_scale_resnet18": ("#56B4E9", "v", (0, (3, 1, 1, 1, 1, 1))),
    "static_gate_skip_resnet18": ("#117733", "d", (0, (5, 1, 1, 1))),
    "half_scale_skip_resnet18": ("#88CCEE", "1", (0, (2, 1))),
    "wide_resnet18": ("#000000", "P", (0, (1, 3))),
    "se_resnet18_r4": ("#E69F00", "<", (0, (8, 2))),
    "se_resnet18_r32": ("#7A4A1E", ">", (0, (8, 2, 1, 2))),
}
OTHER_STYLES = (
    ("#332288", "p", "-"),
    ("#999933", "h", "--"),
    ("#AA4499", "X", "-."),
    ("#7F7F7F", "*", ":"),
)
VARIANT_LINES = (":", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3)), (0, (8, 2, 1, 2)), (0, (4, 4)))


def use_style():
    """House style for all figures: readable in print at the size they are made."""
    sizes = {"font.size": TEXT["label"], "axes.labelsize": TEXT["label"], "axes.titlesize": TEXT["label"]}
    sizes |= {f"{part}.labelsize": TEXT["tick"] for part in ("xtick", "ytick")} | {"legend.fontsize": TEXT["tick"]}
    files = {"figure.dpi": 110, "savefig.dpi": 200, "savefig.pad_inches": 0.03, "pdf.fonttype": 42}
    look = {"legend.frameon": False, "axes.titlelocation": "left", "axes.linewidth": 0.8}
    # the font that comes with matplotlib, so that figures do not depend on the machine's
    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans", rc={**sizes, **files, **look})


def arm_styles(arms):
    """Colour, marker and linestyle of each arm as keywords of Axes.plot, {arm: {…}}.

    Named arms look the same in every figure; a variant `arm__variant` has its arm's colour and marker and a line of its
    own; others take what is left, in order.
    """
    others, lines, styles = 0, {}, {}
    for arm in arms:
        base, _, variant = arm.partition(SEPARATOR)
        if base in ARM_STYLES:
            color, marker, line = ARM_STYLES[base]
        else:
            color, marker, line = OTHER_STYLES[others % len(OTHER_STYLES)]
            others += 1
        if base in ARM_STYLES and variant:
            lines[base] = lines.get(base, -1) + 1
            line = VARIANT_LINES[lines[base] % len(VARIANT_LINES)]
        styles[arm] = {"color": color, "marker": marker, "linestyle": line}
    return styles


def arm_colours(arms):
    """The colour of each arm, {arm: colour}, the same in every figure."""
    return {arm: style["color"] for arm, style in arm_styles(arms).items()}


def save_figure(figure, folder, name):
    """Write `name`.png and `name`.pdf, without dates, so equal results give equal files."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # settled: with images in it, the layout would move a little at every drawing
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight")
        atomic_write(folder / f"{name}.{kind}", lambda file, content=buffer: file.write(content.getvalue()))


def count_text(count, noun):
    """1 seed, 2 seeds."""
    return f"{count:.0f} {noun if count == 1 else noun + 's'}"


def mark_zero(axis, along="x", band=False):
    """A dashed line at no difference along x or y and, with `band`, the smallest effect of interest as a light band."""
    line, span = (axis.axvline, axis.axvspan) if along == "x" else (axis.axhline, axis.axhspan)
    line(0, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
    if band:
        span(-SMALLEST_EFFECT_PP, SMALLEST_EFFECT_PP, color="0.92", linewidth=0, zorder=-1)
        for edge in (-SMALLEST_EFFECT_PP, SMALLEST_EFFECT_PP):  # seen in print, where the band is pale
            line(edge, color="0.7", linewidth=0.5, zorder=-1)


def draw_differences(axis, table, rows, **style):
    """Points at difference_pp with lines from low_pp to high_pp (NaN for none), a row of the table at each of rows."""
    look = {"color": "black", "marker": "o", "markersize": 4.5} | style
    axis.hlines(rows, table["low_pp"], table["high_pp"], color=look["color"], linewidth=1.3)
    axis.plot(table["difference_pp"], rows, **look | {"linestyle": "none"})


def name_rows(axis, names):
    """Names beside rows 0, 1, …, downwards from the top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def image_grid(images, titles, columns=10):
    """Images uint8 (N, H, W, 3) with a title each; a title may have several lines."""
    rows, lines = max(1, -(-len(images) // columns)), 1 + max((title.count("\n") for title in titles), default=0)
    height = rows * (PAGE / columns + 0.05 + 0.12 * lines)
    figure, axes = plt.subplots(rows, columns, figsize=(PAGE, height), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=TEXT["cell"], pad=2, loc="center")
    return figure


def disagreement_gallery(images, disagreements, classes, names):
    """Which images do the arms differ in most? Each with its true class, the mistake and how often either arm is right.

    images: uint8 (N, 32, 32, 3); disagreements: as from lib.behaviour.image_disagreements; classes: names; names:
    baseline and arm. The mistake is the most frequent answer of the arm that is right less often, where it is wrong.
    """
    titles = []
    for row in disagreements.itertuples():
        worse = row.prediction_arm if row.right_arm < row.right_baseline else row.prediction_baseline
        mistake = f"as {classes[worse]}" if worse != row.label else ""
        titles.append(f"{classes[row.label]}\n{mistake}\n{100 * row.right_baseline:.0f} → {100 * row.right_arm:.0f} %")
    figure = image_grid(images[disagreements["index"].to_numpy(int)], titles)
    figure.set_figheight(figure.get_figheight() + 0.3)
    note = f"true class; most frequent mistake; share of runs that are right, {names[0]} → {names[1]}\n"
    figure.suptitle(note, fontsize=TEXT["tick"], x=0.01, ha="left")
    return figure


def learning_curves(metrics):
    """Loss and training accuracy over the epochs: a thin line for each run, a thick one for the mean of each arm.

    metrics: rows with arm, seed, epoch, train_loss (nats) and train_accuracy (fraction).
    """
    styles = arm_styles(metrics["arm"].unique())
    columns = min(3, len(styles))
    height = 2.3 + 0.16 * -(-len(styles) // columns)
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, height), layout="constrained")
    for arm, runs in metrics.groupby("arm", sort=False):
        look = styles[arm] | {"marker": ""}
        for axis, column, scale in zip(axes, ("train_loss", "train_accuracy"), (1, 100), strict=True):
            curves = scale * runs.pivot(index="epoch", columns="seed", values=column)
            axis.plot(curves, color=look["color"], linewidth=0.4, alpha=0.3)
            label = f"{arm} ({count_text(curves.shape[1], 'run')})"
            axis.plot(curves.mean(axis=1), **look, linewidth=1.4, zorder=3, label=label)
    for axis, label in zip(axes, ("training loss (nats)", "training accuracy (%)"), strict=True):
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, handlelength=3.2)
    sns.despine(figure)
    return figure


def confusion_matrices(panels, classes):
    """Matrices side by side. panels: (title, percentages (classes, classes), diverging) each; rows are true classes.

    Plain matrices share one colour scale, without their diagonal, so that the errors show; a diverging one is centred
    on zero and written without the zero before the point. Cells that round to zero are left empty.
    """
    width = min(PAGE, COLUMN * len(panels))
    size = (width, (width - 0.7) / len(panels) + 0.95)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01)
    diagonal = np.eye(len(classes), dtype=bool)
    shades = [matrix if diverging else np.where(diagonal, 0, matrix) for _, matrix, diverging in panels]
    plain = [shade.max() for shade, (_, _, diverging) in zip(shades, panels, strict=True) if not diverging]
    for axis, shade, (title, matrix, diverging) in zip(axes.flat, shades, panels, strict=True):
        limit = max(np.abs(shade).max() if diverging else max(plain), 1e-9)
        axis.imshow(shade, cmap="PuOr_r" if diverging else "Blues", vmin=-limit if diverging else 0, vmax=limit)
        for row, column in np.argwhere(np.abs(matrix) >= 0.05):
            text = _signed(matrix[row, column]) if diverging else f"{matrix[row, column]:.1f}"
            dark = abs(shade[row, column]) > 0.6 * limit
            style = {"fontsize": TEXT["cell"], "color": "white" if dark else "black"}
            axis.text(column, row, text, ha="center", va="center", **style)
        axis.set_xticks(range(len(classes)), classes, rotation=90)
        axis.set_yticks(range(len(classes)), classes if axis is axes[0, 0] else [])
        axis.set(title=title, xlabel="predicted")
        axis.tick_params(labelsize=TEXT["tick"], length=0)
    axes[0, 0].set_ylabel("true")
    return figure


def _signed(value):
    """One decimal with its sign and no zero before the point, for small cells: +.3, −1.2."""
    return f"{value:+.1f}".replace("-", "−").replace("+0.", "+.").replace("−0.", "−.")


def recall_by_class(recalls, arm="se_resnet18", baseline="resnet18"):
    """Which classes does the arm recognise more often? Left: recall in both arms; right: the paired difference.

    recalls: index class, columns recall_arm, recall_baseline (percent), difference_pp, low_pp, high_pp (NaN for none)
    and n_pairs, as from lib.behaviour.class_table.
    """
    size = (PAGE, 0.19 * len(recalls) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    rows = np.arange(len(recalls))
    left.hlines(rows, recalls["recall_baseline"], recalls["recall_arm"], color="0.75", linewidth=1, zorder=1)
    for name, column in ((baseline, "recall_baseline"), (arm, "recall_arm")):
        style = arm_styles([name])[name] | {"linestyle": "none"}
        left.plot(recalls[column], rows, **style, markersize=4.5, label=name)
    name_rows(left, recalls.index)
    pairs = count_text(recalls["n_pairs"].min(), "seed")
    left.set_xlabel(f"recall (%), mean over {pairs}")
    figure.legend(loc="outside upper left", ncols=2)
    mark_zero(right)
    draw_differences(right, recalls, rows)
    right.set_xlabel(f"{arm} − {baseline} (points)\nlines: 95 % interval over seeds, uncorrected")
    right.tick_params(axis="y", length=0)
    sns.despine(figure, left=True)
    return figure


def speed_bars(speeds, baseline):
    """Images per second of each contender, a line over the middle half of the rounds, and the ratio to the baseline.

    speeds: what lib.benchmark.summarise returned.
    """
    figure, axis = plt.subplots(figsize=(PAGE, 0.24 * len(speeds) + 0.6), layout="constrained")
    rows, rates = np.arange(len(speeds)), speeds["images_per_second"]
    ours, base = ARM_STYLES["se_resnet18"][0], ARM_STYLES["resnet18"][0]
    colours = [ours if name.startswith("ours") else base if name == baseline else "0.75" for name in speeds.index]
    axis.barh(rows, rates, color=colours, height=0.7)
    axis.hlines(rows, speeds["images_per_second_q1"], speeds["images_per_second_q3"], color="black", linewidth=1.2)
    for row, ratio in enumerate(speeds[f"times_{baseline}"]):
        place = max(rates.iloc[row], speeds["images_per_second_q3"].iloc[row])
        axis.text(place + 0.01 * rates.max(), row, f"{ratio:.2f}×", va="center", fontsize=TEXT["tick"])
    name_rows(axis, speeds.index)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set(xlabel=f"images trained per second, median and middle half of the rounds; numbers: times {baseline!r}")
    sns.despine(figure)
    return figure
