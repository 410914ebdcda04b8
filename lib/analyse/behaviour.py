"""What differs between two arms beyond accuracy: classes, images, calibration, gates. Exploratory, without p-values.

Row i of both arms' arrays is the same seed; arms with different numbers of runs raise ValueError. No torch.
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist, pdist
from scipy.special import log_softmax

from lib.analyse import statistics
from lib.files import run_folder
from lib.runs import load_table

CONSTANT_SD = 0.001  # of gates over images, below which they count as the same for every image


def paired_table(arm, baseline, index, unit=""):
    """One row for each of k measures of n paired runs, (n, k) of either arm; index: their k names, a pandas Index.

    Columns arm and baseline (means over runs), difference arm − baseline with its 95 % t interval low, high (NaN for a
    single run or equal differences), n_pairs; in the unit of the measures. unit: end of the names of those three.
    """
    arm, baseline = statistics.paired(arm, baseline)
    rows = []
    for one, other in zip(arm.T, baseline.T, strict=True):
        low, high = statistics.mean_interval(one - other) or (np.nan, np.nan)
        rows.append((one.mean(), other.mean(), (one - other).mean(), low, high, len(one)))
    change = [f"{name}{unit}" for name in ("difference", "low", "high")]
    return pd.DataFrame(rows, index=index, columns=["arm", "baseline", *change, "n_pairs"])


def class_table(predictions_arm, predictions_baseline, labels, classes):
    """Recall of each class in percent, and its paired difference in points; index class, columns of paired_table.

    predictions: integers (runs, N); labels: integers (N,); classes: names.
    """
    arms = predictions_arm, predictions_baseline
    recalls = [statistics.recall_percent(each, labels, len(classes)) for each in arms]
    return paired_table(*recalls, pd.Index(classes, name="class"), "_pp")


def confusion_difference(predictions_arm, predictions_baseline, labels, classes):
    """Confusion matrix of the arm − that of the baseline, runs pooled, in points, (classes, classes); rows are true.

    predictions: integers (runs, N); labels: integers (N,); classes: names.
    """
    arms = statistics.paired(predictions_arm, predictions_baseline)
    arm, baseline = (statistics.confusion_percent(each.astype(int), labels, len(classes)) for each in arms)
    return pd.DataFrame(arm - baseline, pd.Index(classes, name="true"), pd.Index(classes, name="predicted"))


def churn(predictions_arm, predictions_baseline):
    """Share of images, in percent, that two runs classify differently: its mean over pairs of runs, None without pairs.

    same_seed: arm and baseline with the same seed; other_seed: with different seeds; within_arm and within_baseline:
    two runs of one arm, which is what different arms are to be held against. predictions: integers (runs, N).
    """
    arm, baseline = statistics.paired(predictions_arm, predictions_baseline)
    across, same_seed = cdist(arm, baseline, "hamming"), np.eye(len(arm), dtype=bool)
    shares = {"same_seed": across[same_seed], "other_seed": across[~same_seed]}
    shares |= {"within_arm": pdist(arm, "hamming"), "within_baseline": pdist(baseline, "hamming")}
    return {name: 100 * float(share.mean()) if len(share) else None for name, share in shares.items()}


def calibration_table(logits_arm, logits_baseline, labels, human_labels=None):
    """Calibration of both arms, lower is better; index metric, columns of paired_table.

    nll (nats), brier (0 to 2), ece (0 to 1, 15 bins); with human_labels, float (N, classes), also human_nll, the
    cross-entropy with what people answer, in nats. logits: float (runs, N, classes); labels: integers (N,).
    """
    metrics = {"nll": statistics.nll, "brier": statistics.brier, "ece": statistics.expected_calibration_error}
    if human_labels is not None:
        metrics["human_nll"] = lambda run, _: -(human_labels * log_softmax(run.astype(float), axis=1)).sum(1).mean()
    values = [
        [[metric(run, labels) for metric in metrics.values()] for run in logits]
        for logits in (logits_arm, logits_baseline)
    ]
    return paired_table(*values, pd.Index(metrics, name="metric"))


def disagreements(predictions_arm, predictions_baseline, labels, count):
    """The at most `count` images that one arm gets right in more runs than the other, the largest difference first.

    Columns index, label, right_arm and right_baseline (shares of runs). predictions: integers (runs, N); labels:
    integers (N,). Chance alone gives such images too.
    """
    arm, baseline = statistics.paired(predictions_arm, predictions_baseline)
    right_arm, right_baseline = (arm == labels).sum(axis=0), (baseline == labels).sum(axis=0)
    images = np.argsort(-abs(right_arm - right_baseline), kind="stable")[:count]
    table = pd.DataFrame({"right_arm": right_arm, "right_baseline": right_baseline}).loc[images] / len(arm)
    table.insert(0, "label", labels[images])
    return table[table["right_arm"] != table["right_baseline"]].rename_axis("index").reset_index()


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
