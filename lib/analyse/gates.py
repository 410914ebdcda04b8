"""What the gates of trained networks do, and what disturbing them costs; no torch."""

import numpy as np
import pandas as pd

from lib.analyse import statistics
from lib.files import run_folder
from lib.runs import load_table

CONSTANT_SD = 0.001  # of gates over images, below which they count as the same for every image


def gate_table(study, runs):
    """Statistics of the gates of each arm and block: mean over runs and SD, `<name>_sd`, of each column of gates.csv.

    Before them arm, block, n_runs and n_constant, in how many runs the gates are the same for every image. The
    eta_squared columns leave these runs out and are NaN where no other is left. Empty where no run has gates.
    """
    tables = _tables_of_runs(study, runs, "gates.csv").drop(columns="seed")
    constant = tables.get("sd_images", pd.Series(dtype=float)) < CONSTANT_SD
    tables.loc[constant, [name for name in tables if name.startswith("eta_squared")]] = np.nan
    blocks = tables.assign(constant=constant).groupby(["arm", "block"], sort=False)
    table = blocks.mean().join(blocks.std().add_suffix("_sd")).drop(columns=["constant", "constant_sd"])
    table.insert(0, "n_runs", blocks.size())
    table.insert(1, "n_constant", blocks["constant"].sum())
    return table.reset_index()


def lesion_table(study, runs):
    """What disturbed gates cost in accuracy: arm, lesion (mean, shuffled), block, n_runs, drop_pp, low_pp, high_pp.

    drop_pp: undisturbed − disturbed within each run, with its 95 % t interval over runs (NaN as in paired_table).
    """
    tables = _tables_of_runs(study, runs, "lesions.csv")
    undisturbed = tables[tables["lesion"] == "none"].set_index(["arm", "seed"])["accuracy"].rename("undisturbed")
    rows = []
    for names, part in tables[tables["lesion"] != "none"].groupby(["arm", "lesion", "block"], sort=False):
        drops = 100 * (part.join(undisturbed, on=["arm", "seed"])["undisturbed"] - part["accuracy"])
        rows.append((*names, len(drops), drops.mean(), *(statistics.mean_interval(drops) or (np.nan, np.nan))))
    return pd.DataFrame(rows, columns=["arm", "lesion", "block", "n_runs", "drop_pp", "low_pp", "high_pp"])


def _tables_of_runs(study, runs, name):
    """The CSV file `name` of all runs of arms that have one, with arm and seed; StudyError where one has lost it."""
    keys = [(arm, seed, run_folder(study.name, arm, seed)) for arm, seed in zip(runs["arm"], runs["seed"], strict=True)]
    gated = {arm for arm, _, folder in keys if (folder / name).exists()}
    tables = [load_table(folder, name).assign(arm=arm, seed=seed) for arm, seed, folder in keys if arm in gated]
    nothing = pd.DataFrame(columns=["arm", "seed", "block", "lesion", "accuracy"], dtype=float)
    return pd.concat(tables, ignore_index=True) if tables else nothing
