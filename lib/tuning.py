"""The tuning: which runs it takes, and which cell of the grid each tuned arm wins with."""

import itertools

import numpy as np
import pandas as pd

from lib.config import SEPARATOR
from lib.paths import run_folder
from lib.runs import read_summary


def grid_cells(tuning):
    """Every combination of the grid's values: a list of {setting: value}."""
    return [dict(zip(tuning.grid, values, strict=True)) for values in itertools.product(*tuning.grid.values())]


def cell_label(arm, cell):
    """What the runs of one arm in one cell of the grid are called."""
    return SEPARATOR.join(["tuning", arm, *(f"{name}_{value:g}" for name, value in cell.items())])


def tuning_scores(study_name, tuning, configs):
    """One row for each finished run of the tuning: tuned, its settings, seed, val_accuracy (fraction), val_loss (nats).

    configs: {(tuned arm, index of the cell, seed): RunConfig}.
    """
    rows, cells = [], grid_cells(tuning)
    for (arm, cell, seed), config in configs.items():
        summary = read_summary(run_folder(study_name, config.arm, seed), config)
        if summary:
            scores = {name: summary[name] for name in ("val_accuracy", "val_loss")}
            rows.append({"tuned": arm, "cell": cell, **cells[cell], "seed": seed, **scores})
    return pd.DataFrame(rows)


def choose_winners(tuning, scores, default):
    """{arm: winning cell} from complete `scores`: the best mean validation accuracy, ties going to the default.

    default: the cell declared beforehand, as {setting: value}. It stays unless the best cell beats it by more than the
    standard error of the difference of two cells, from the spread between seeds, pooled over the arm's cells.
    """
    cells = grid_cells(tuning)
    winners = {}
    for arm in tuning.arms:
        accuracy = scores[scores["tuned"] == arm].pivot(index="cell", columns="seed", values="val_accuracy")
        means, best = accuracy.mean(axis=1), int(accuracy.mean(axis=1).idxmax())
        if default in cells and means[best] - means[cells.index(default)] <= tie_margin(accuracy):
            best = cells.index(default)
        winners[arm] = cells[best]
    return winners


def tie_margin(accuracy):
    """Standard error of the difference of two cells' means; accuracy: cells × seeds. 0 where seeds show no spread."""
    seeds = accuracy.shape[1]
    if seeds < 2:
        return 0.0
    return float(np.sqrt(accuracy.var(axis=1, ddof=1).mean() * 2 / seeds))
