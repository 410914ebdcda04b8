"""What the gates of the finished runs do, and what the accuracy owes them: tables over seeds, without torch."""

import pandas as pd

from lib.analysis import base_arms
from lib.behaviour import finished_seeds, seed_interval
from lib.paths import run_folder
from lib.runs import load_run_table

SHARES = ["share_below_0.1", "share_above_0.9"]
ETA_SQUARED = ["eta_squared", "eta_squared_null", "eta_squared_null_95"]
STATISTICS = ["mean", "sd_channels", "sd_images", *SHARES, *ETA_SQUARED]


def gate_table(study, runs):
    """Statistics of the gates (lib.gates.gate_statistics) of each arm and block: mean and SD over runs with gates.csv.

    Columns arm, block, n_runs, then each of STATISTICS and its SD over seeds, `<name>_sd`, NaN for a single run. The
    eta_squared of gates that do not vary over images are NaN. Variants of an arm (`arm__variant`) are left out. Empty
    where no run has gates; raises StudyError for a damaged file.
    """
    arms = [] if runs.empty else base_arms(runs)["arm"].unique()
    columns = {"block": str, **dict.fromkeys(STATISTICS, float)}
    parts = [
        table.assign(arm=arm)
        for arm in arms
        for table in _run_tables(study, arm, finished_seeds(runs, arm), "gates.csv", columns)
    ]
    wanted = ["arm", "block", "n_runs", *(name + part for name in STATISTICS for part in ("", "_sd"))]
    if not parts:
        return pd.DataFrame(columns=wanted)
    blocks = pd.concat(parts).groupby(["arm", "block"], sort=False)
    table = blocks[STATISTICS].mean().join(blocks[STATISTICS].std().add_suffix("_sd"))
    return table.assign(n_runs=blocks.size()).reset_index()[wanted]


def intervention_table(study, arm, seeds):
    """Test accuracy with the gates disturbed, over those runs of `seeds` that have an interventions.csv.

    Columns intervention (mean, shuffled; see lib.gates.interventions), block (block1, …, all), n_runs, accuracy
    (percent), drop_pp (undisturbed − disturbed within each run, positive where the network needs its gates), low_pp,
    high_pp (t interval over seeds). Empty where no run has gates; raises StudyError for a damaged file.
    """
    columns = {"intervention": str, "block": str, "accuracy": float}
    tables = _run_tables(study, arm, seeds, "interventions.csv", columns)
    wanted = ["intervention", "block", "n_runs", "accuracy", "drop_pp", "low_pp", "high_pp"]
    if not tables:
        return pd.DataFrame(columns=wanted)
    parts = []
    for table in tables:
        undisturbed = table["intervention"] == "none"
        percent = 100 * table["accuracy"]
        drops = table.assign(accuracy=percent, drop=percent[undisturbed].mean() - percent)
        parts.append(drops[~undisturbed])
    rows = []
    for names, group in pd.concat(parts).groupby(["intervention", "block"], sort=False):
        drops = group["drop"]
        rows.append((*names, len(group), group["accuracy"].mean(), drops.mean(), *seed_interval(drops)))
    return pd.DataFrame(rows, columns=wanted)


def _run_tables(study, arm, seeds, name, columns):
    """The CSV file `name` of each run that has it."""
    folders = [run_folder(study.name, arm, seed) for seed in seeds]
    return [load_run_table(folder, name, columns) for folder in folders if (folder / name).exists()]
