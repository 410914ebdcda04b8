"""The figures, each answering one question; functions take tables or arrays and return a matplotlib Figure."""

import io

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from lib.runs import atomic_write

# Okabe and Ito's colours, told apart by colour-blind readers; the baseline is always blue, SE always orange.
COLOURS = {"resnet18": "#0072B2", "se_resnet18": "#D55E00"}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
COLUMN, PAGE = 3.4, 6.9  # inches


def use_style():
    """House style for all figures: readable in print at column width."""
    sns.set_theme(style="ticks", context="paper", rc={"figure.dpi": 110, "savefig.dpi": 200, "legend.frameon": False})


def arm_colours(arms):
    """One colour for each arm, the same in every figure."""
    others = iter(OTHER_COLOURS * 4)
    return {arm: COLOURS.get(arm) or next(others) for arm in arms}


def save_figure(figure, folder, name):
    """Write `name`.png and `name`.pdf, without dates, so equal results give equal files."""
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight")
        atomic_write(folder / f"{name}.{kind}", lambda file, content=buffer: file.write(content.getvalue()))


def image_grid(images, titles, columns=10):
    """Images uint8 (N, H, W, 3) with a title each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(PAGE, PAGE / columns * rows * 1.25), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(title, fontsize=7, pad=2)
    figure.tight_layout(pad=0.3)
    return figure


def learning_curves(metrics):
    """Loss and training accuracy over the epochs: mean line of each arm, a thin line for each run.

    metrics: rows with arm, seed, epoch, train_loss and train_accuracy (fraction).
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.4))
    colours = arm_colours(metrics["arm"].unique())
    for axis, column, label in zip(
        axes, ("train_loss", "train_accuracy"), ("training loss (nats)", "training accuracy (%)"), strict=True
    ):
        shown = metrics.assign(value=metrics[column] * (100 if column.endswith("accuracy") else 1))
        style = {"data": shown, "x": "epoch", "y": "value", "hue": "arm", "palette": colours, "ax": axis}
        sns.lineplot(**style, units="seed", estimator=None, linewidth=0.5, alpha=0.5, legend=False)
        sns.lineplot(**style, errorbar=None, linewidth=1.5, legend=column == "train_loss")
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(title=None)
    sns.despine(figure)
    figure.tight_layout()
    return figure


def confusion_matrices(panels, classes):
    """Matrices side by side. panels: (title, percentages (classes, classes), diverging) each; rows are true classes.

    A plain matrix hides its diagonal's colour so that the errors show; a diverging one is centred on zero.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(COLUMN * len(panels), COLUMN), squeeze=False)
    for number, (axis, (title, matrix, diverging)) in enumerate(zip(axes.flat, panels, strict=True)):
        errors = np.where(np.eye(len(matrix), dtype=bool) & (not diverging), 0, matrix)
        limit = max(np.abs(errors).max(), 1e-9)
        axis.imshow(errors, cmap="PuOr_r" if diverging else "Blues", vmin=-limit if diverging else 0, vmax=limit)
        for row, column in np.ndindex(matrix.shape):
            value = matrix[row, column]
            text = f"{value:+.1f}" if diverging else f"{value:.1f}" if row != column else f"{value:.0f}"
            dark = abs(errors[row, column]) > 0.6 * limit
            axis.text(column, row, text, ha="center", va="center", fontsize=5, color="white" if dark else "black")
        ticks = range(len(classes))
        axis.set_xticks(ticks, classes, rotation=90)
        axis.set_yticks(ticks, classes if number == 0 else [])
        axis.set(title=title, xlabel="predicted")
        axis.tick_params(labelsize=7, length=0)
    axes[0, 0].set_ylabel("true")
    figure.tight_layout()
    return figure
