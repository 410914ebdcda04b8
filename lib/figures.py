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

    Plain matrices share one colour scale, without their diagonal, so that the errors show; a diverging one is centred
    on zero. Cells that round to zero are left empty.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(COLUMN * len(panels), COLUMN), squeeze=False)
    diagonal = np.eye(len(classes), dtype=bool)
    shades = [matrix if diverging else np.where(diagonal, 0, matrix) for _, matrix, diverging in panels]
    plain = [shade.max() for shade, (_, _, diverging) in zip(shades, panels, strict=True) if not diverging]
    for axis, shade, (title, matrix, diverging) in zip(axes.flat, shades, panels, strict=True):
        limit = max(np.abs(shade).max() if diverging else max(plain), 1e-9)
        axis.imshow(shade, cmap="PuOr_r" if diverging else "Blues", vmin=-limit if diverging else 0, vmax=limit)
        for row, column in np.argwhere(np.abs(matrix) >= 0.05):
            value = matrix[row, column]
            text = f"{value:+.1f}" if diverging else f"{value:.1f}"
            dark = abs(shade[row, column]) > 0.6 * limit
            axis.text(column, row, text, ha="center", va="center", fontsize=5, color="white" if dark else "black")
        axis.set_xticks(range(len(classes)), classes, rotation=90)
        axis.set_yticks(range(len(classes)), classes if axis is axes[0, 0] else [])
        axis.set(title=title, xlabel="predicted")
        axis.tick_params(labelsize=7, length=0)
    axes[0, 0].set_ylabel("true")
    figure.tight_layout()
    return figure


def paired_accuracy(pairs, comparison):
    """Left: test accuracy of each seed in both arms, joined; right: the differences with mean and interval.

    pairs: fractions, index seed, columns baseline and arm; comparison: what paired_comparison returned for them.
    """
    baseline, arm = pairs.columns
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.6), width_ratios=[1, 1.4])
    colours = arm_colours(pairs.columns)
    left.plot([0, 1], 100 * pairs.to_numpy().T, color="0.75", linewidth=0.8, zorder=1)
    for position, name in enumerate(pairs.columns):
        left.scatter([position] * len(pairs), 100 * pairs[name], color=colours[name], s=18, zorder=2)
        left.hlines(100 * pairs[name].mean(), position - 0.18, position + 0.18, color=colours[name], linewidth=2)
    left.set_xticks([0, 1], [baseline, arm])
    left.set(xlim=(-0.5, 1.5), ylabel="test accuracy (%)", title=f"{len(pairs)} paired seeds; bars: means")
    differences = 100 * (pairs[arm] - pairs[baseline])
    right.axvline(0, color="0.4", linewidth=0.8, linestyle="--")
    right.scatter(differences, range(len(differences)), color=colours[arm], s=18)
    right.set_yticks([*range(len(differences)), -1.2], [*(f"seed {seed}" for seed in differences.index), "mean"])
    if comparison["seed_interval_pp"]:
        right.hlines(-1.2, *comparison["seed_interval_pp"], color="black", linewidth=1.5)
    right.scatter(comparison["difference_pp"], -1.2, color="black", marker="D", s=24)
    right.set(xlabel=f"{arm} − {baseline} (percentage points)", title="differences; line: 95 % t interval")
    sns.despine(figure)
    figure.tight_layout()
    return figure


def recall_by_class(recalls):
    """Left: recall of each class in both arms; right: the paired difference with its interval.

    recalls: rows are classes; columns baseline, arm, difference_pp, low_pp and high_pp, in percent and points.
    """
    baseline, arm = recalls.columns[:2]
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.8), sharey=True)
    colours, rows = arm_colours([baseline, arm]), np.arange(len(recalls))
    for name, marker in ((baseline, "o"), (arm, "s")):
        left.scatter(recalls[name], rows, color=colours[name], marker=marker, s=18, label=name)
    left.set_yticks(rows, recalls.index)
    left.invert_yaxis()
    left.set(xlabel="recall (%), mean over seeds")
    left.legend(loc="best")
    right.axvline(0, color="0.4", linewidth=0.8, linestyle="--")
    right.hlines(rows, recalls["low_pp"], recalls["high_pp"], color="0.5", linewidth=1.2)
    right.scatter(recalls["difference_pp"], rows, color="black", s=18, zorder=2)
    right.set(xlabel="difference (points), 95 % interval each")
    sns.despine(figure)
    figure.tight_layout()
    return figure


def speed_bars(speeds, baseline):
    """Images per second of each contender, a line over the middle half of the rounds, and the ratio to the baseline.

    speeds: what lib.benchmark.summarise returned.
    """
    figure, axis = plt.subplots(figsize=(PAGE, 0.28 * len(speeds) + 0.6))
    rows, rates = np.arange(len(speeds)), speeds["images_per_second"]
    ours = ["#D55E00" if name.startswith("ours") else "#0072B2" if name == baseline else "0.7" for name in speeds.index]
    axis.barh(rows, rates, color=ours, height=0.7)
    axis.hlines(rows, speeds["images_per_second_q1"], speeds["images_per_second_q3"], color="black", linewidth=1.2)
    for row, ratio in enumerate(speeds[f"times_{baseline}"]):
        place = max(rates.iloc[row], speeds["images_per_second_q3"].iloc[row])
        axis.text(place + 0.01 * rates.max(), row, f"{ratio:.2f}×", va="center", fontsize=7)
    axis.set_yticks(rows, speeds.index)
    axis.invert_yaxis()
    axis.set(xlabel=f"images trained per second; numbers: times {baseline!r}")
    sns.despine(figure)
    figure.tight_layout()
    return figure
