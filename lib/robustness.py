"""Two arms on other versions of the test images: corrupted ones, and original bytes in place of JPEG copies."""

import numpy as np
import pandas as pd

from lib.behaviour import IN_POINTS, finished_seeds, paired_seeds, paired_table, seed_interval
from lib.paths import run_folder
from lib.runs import load_arrays, load_logits, load_run_table

CORRUPTION_COLUMNS = {"corruption": str, "severity": int, "accuracy": float}
LOSSLESS = "lossless_logits.npz"


def corruption_table(study, arm, baseline, seeds):
    """Accuracy of both arms, in percent, on corrupted test images, and paired differences over seeds, in points.

    Columns corruption, severity, n_pairs, accuracy_arm, accuracy_baseline, difference_pp, low_pp, high_pp (t interval).
    Severity 0 is the mean over the severities 1 to 5, corruption `mean` the mean over all corruptions. Only corruptions
    that all runs have met count. On the JPEG copy of CIFAR-10, of quality 75, the corruption `jpeg` compresses a second
    time: its severities are not those of the original bytes and need not rise in effect. Empty without seeds. Raises
    StudyError for a missing or damaged corruptions.csv.
    """
    columns = ["corruption", "severity", "n_pairs", "accuracy_arm", "accuracy_baseline", *IN_POINTS.values()]
    if not seeds:
        return pd.DataFrame(columns=columns)
    runs = [run_folder(study.name, name, seed) for name in (arm, baseline) for seed in seeds]
    parts = [_corruption_percent(folder) for folder in runs]
    percent = _with_means(pd.concat(parts, axis=1, join="inner", keys=range(len(parts))))
    of_arm, of_baseline = np.split(percent.to_numpy().T, 2)
    table = paired_table(of_arm, of_baseline, percent.index).reset_index()
    names = {"arm": "accuracy_arm", "baseline": "accuracy_baseline", **IN_POINTS}
    return table.rename(columns=names)[columns]


def _corruption_percent(folder):
    """Accuracies in percent of one run, indexed by corruption and severity."""
    table = load_run_table(folder, "corruptions.csv", CORRUPTION_COLUMNS)
    return 100 * table.set_index(["corruption", "severity"])["accuracy"]


def _with_means(percent):
    """Adds the means over severities (severity 0) and over corruptions (corruption `mean`), rows in order."""
    table = percent.reset_index()
    table = pd.concat([table, table.assign(corruption="mean")])
    table = pd.concat([table.assign(severity=0), table])
    table["corruption"] = pd.Categorical(table["corruption"], table["corruption"].unique())
    return table.groupby(["corruption", "severity"], observed=True).mean()


def lossless_table(study, runs, arms):
    """Accuracy of each arm, in percent, on original bytes and on the JPEG copies of the same test images.

    Columns arm, n_runs, accuracy_lossless, accuracy_copy, gap_pp (lossless − copy), low_pp, high_pp (t interval of the
    gap over runs). Only runs with lossless_logits.npz count; an arm without any has no row. Raises StudyError for a
    damaged file.
    """
    rows = []
    for arm in arms:
        folders = [run_folder(study.name, arm, seed) for seed in finished_seeds(runs, arm)]
        percent = np.array([_lossless_percent(folder) for folder in folders if (folder / LOSSLESS).exists()])
        if len(percent):
            gaps = percent[:, 0] - percent[:, 1]
            rows.append((arm, len(percent), *percent.mean(0), gaps.mean(), *seed_interval(gaps)))
    columns = ["arm", "n_runs", "accuracy_lossless", "accuracy_copy", "gap_pp", "low_pp", "high_pp"]
    return pd.DataFrame(rows, columns=columns)


def _lossless_percent(folder):
    """Accuracy of one run on the original bytes and on the JPEG copies of the same images."""
    logits, labels, indices = load_arrays(folder / LOSSLESS, "logits", "labels", "indices")
    copies, _ = load_logits(folder)
    return [100 * (each.argmax(1) == labels).mean() for each in (logits, copies[indices])]


def lossless_difference(study, runs):
    """The primary comparison on the original bytes: {n_pairs, difference_pp, interval_pp}, t interval over seeds.

    From the column lossless_accuracy (fractions) of the table of load_runs. What the finished pairs cannot say is None.
    """
    known = runs.dropna(subset="lossless_accuracy") if "lossless_accuracy" in runs else pd.DataFrame()
    seeds = paired_seeds(known, study.arm, study.baseline)
    if not seeds:
        return {"n_pairs": 0, "difference_pp": None, "interval_pp": None}
    percent = 100 * known.pivot(index="seed", columns="arm", values="lossless_accuracy").loc[seeds].astype(float)
    differences = (percent[study.arm] - percent[study.baseline]).to_numpy()
    low, high = seed_interval(differences)
    interval = None if np.isnan(low) else [low, high]
    return {"n_pairs": len(seeds), "difference_pp": float(differences.mean()), "interval_pp": interval}
