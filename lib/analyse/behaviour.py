"""What differs between two arms beyond accuracy: classes, images, calibration, gates. Exploratory, without p-values.

Row i of both arms' arrays is the same seed; different shapes raise ValueError. No torch.
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist, pdist
from scipy.special import entr, log_softmax
from scipy.stats import rankdata

from lib.analyse.statistics import (
    brier,
    confusion_percent,
    expected_calibration_error,
    mean_interval,
    nll,
    recall_percent,
)
from lib.files import run_folder
from lib.runs import load_table

SHARES = ["share_below_0.1", "share_above_0.9"]
ETA_SQUARED = ["eta_squared", "eta_squared_null", "eta_squared_null_95"]
GATE_STATISTICS = ["mean", "sd_channels", "sd_images", *SHARES, *ETA_SQUARED]


def paired_table(arm, baseline, index):
    """One row for each of k measures of n paired runs, (n, k) of either arm; index: their k names, a pandas Index.

    Columns arm and baseline (means over runs), difference arm − baseline with its 95 % t interval low, high (NaN for a
    single run or equal differences), n_pairs; in the unit of the measures.
    """
    arm, baseline = _paired(arm, baseline)
    rows = []
    for one, other in zip(arm.T, baseline.T, strict=True):
        low, high = mean_interval(one - other) or (np.nan, np.nan)
        rows.append((one.mean(), other.mean(), (one - other).mean(), low, high, len(one)))
    return pd.DataFrame(rows, index=index, columns=["arm", "baseline", "difference", "low", "high", "n_pairs"])


def _paired(arm, baseline):
    arm, baseline = np.asarray(arm), np.asarray(baseline)
    if arm.shape != baseline.shape:
        raise ValueError(f"runs of shape {arm.shape} cannot be paired with {baseline.shape}")
    return arm, baseline


def _in_points(table):
    return table.rename(columns={name: f"{name}_pp" for name in ("difference", "low", "high")})


def class_table(predictions_arm, predictions_baseline, labels, classes):
    """Recall of each class in percent, and its paired difference in points; index class, columns of paired_table.

    predictions: integers (runs, N); labels: integers (N,); classes: names.
    """
    recalls = [recall_percent(each, labels, len(classes)) for each in _paired(predictions_arm, predictions_baseline)]
    return _in_points(paired_table(*recalls, pd.Index(classes, name="class")))


def confusion_difference(predictions_arm, predictions_baseline, labels, classes):
    """Confusion matrix of the arm − that of the baseline, runs pooled, in points, (classes, classes); rows are true.

    predictions: integers (runs, N); labels: integers (N,); classes: names.
    """
    arm, baseline = _paired(predictions_arm, predictions_baseline)
    matrix = confusion_percent(arm, labels, len(classes)) - confusion_percent(baseline, labels, len(classes))
    return pd.DataFrame(matrix, index=pd.Index(classes, name="true"), columns=pd.Index(classes, name="predicted"))


def churn(predictions_arm, predictions_baseline):
    """Share of images, in percent, that two runs classify differently: its mean over pairs of runs, None without pairs.

    same_seed: arm and baseline with the same seed; other_seed: with different seeds; within_arm and within_baseline:
    two runs of one arm, which is what different arms are to be held against. predictions: integers (runs, N).
    """
    arm, baseline = _paired(predictions_arm, predictions_baseline)
    across, same_seed = cdist(arm, baseline, "hamming"), np.eye(len(arm), dtype=bool)
    shares = {"same_seed": across[same_seed], "other_seed": across[~same_seed]}
    shares |= {"within_arm": pdist(arm, "hamming"), "within_baseline": pdist(baseline, "hamming")}
    return {name: 100 * float(share.mean()) if len(share) else None for name, share in shares.items()}


def uncertainty_subsets(human_labels):
    """Thirds of the test images by the entropy of their human labels, float (N, classes): {name: bool (N,)}.

    Images of equal entropy stay together in the third of their mean rank: people agree fully on 4,393 of the CIFAR-10
    images, so the low third is these.
    """
    entropy = entr(human_labels).sum(axis=1)
    rank = rankdata(entropy.round(9)) / len(entropy)  # the last digits depend on the order of the sum
    thirds = {"low": rank <= 1 / 3, "middle": (rank > 1 / 3) & (rank <= 2 / 3), "high": rank > 2 / 3}
    return {f"{name} human entropy": members for name, members in thirds.items()}


def subset_table(correct_arm, correct_baseline, subsets):
    """Accuracy in percent on subsets of images, and its paired difference in points: n_images, then as paired_table.

    correct: bool (runs, N); subsets: {name: bool (N,)}, none of them empty; index subset.
    """
    arm, baseline = _paired(correct_arm, correct_baseline)
    percent = [
        100 * np.stack([correct[:, members].mean(1) for members in subsets.values()], axis=1)
        for correct in (arm, baseline)
    ]
    table = _in_points(paired_table(*percent, pd.Index(subsets, name="subset")))
    table.insert(0, "n_images", [int(members.sum()) for members in subsets.values()])
    return table


def calibration_table(logits_arm, logits_baseline, labels, human_labels=None):
    """Calibration of both arms, lower is better; index metric, columns of paired_table.

    nll (nats), brier (0 to 2), ece (0 to 1, 15 bins); with human_labels, float (N, classes), also human_nll, the
    cross-entropy with what people answer, in nats. logits: float (runs, N, classes); labels: integers (N,).
    """
    metrics = {"nll": nll, "brier": brier, "ece": expected_calibration_error}
    if human_labels is not None:
        metrics["human_nll"] = lambda logits, _: _cross_entropy(logits, human_labels)
    values = [
        [[metric(run, labels) for metric in metrics.values()] for run in logits]
        for logits in _paired(logits_arm, logits_baseline)
    ]
    return paired_table(*values, pd.Index(metrics, name="metric"))


def _cross_entropy(logits, shares):
    return float(-(shares * log_softmax(np.asarray(logits, np.float64), axis=1)).sum(axis=1).mean())


def disagreements(predictions_arm, predictions_baseline, labels, count):
    """The at most `count` images that one arm gets right in more runs than the other, the largest difference first.

    Columns index, label, right_arm and right_baseline (shares of runs). predictions: integers (runs, N); labels:
    integers (N,). Chance alone gives such images too.
    """
    hits = [(each == labels).sum(axis=0) for each in _paired(predictions_arm, predictions_baseline)]
    difference = np.abs(hits[0] - hits[1])
    chosen = np.argsort(-difference, kind="stable")[:count]
    chosen = chosen[difference[chosen] > 0]
    right_arm, right_baseline = (each[chosen] / len(predictions_arm) for each in hits)
    columns = {"index": chosen, "label": labels[chosen], "right_arm": right_arm, "right_baseline": right_baseline}
    return pd.DataFrame(columns)


def gate_table(study, runs):
    """Statistics of the gates of each arm and block: arm, block, n_runs, mean over runs and SD, `<name>_sd`, of each.

    They are those of gates.csv; eta_squared is NaN for gates that do not vary over images. Empty where no run has any.
    """
    tables = _tables_of_runs(study, runs, "gates.csv")
    blocks = tables.groupby(["arm", "block"], sort=False)
    means, spreads = blocks[GATE_STATISTICS].mean(), blocks[GATE_STATISTICS].std().add_suffix("_sd")
    return blocks.size().rename("n_runs").to_frame().join(means).join(spreads).reset_index()


def lesion_table(study, runs):
    """What disturbed gates cost in accuracy: arm, lesion (mean, shuffled), block, n_runs, drop_pp, low_pp, high_pp.

    drop_pp: undisturbed − disturbed within each run, with its 95 % t interval over runs (NaN as in paired_table).
    """
    tables = _tables_of_runs(study, runs, "lesions.csv")
    undisturbed = tables[tables["lesion"] == "none"].set_index(["arm", "seed"])["accuracy"].rename("undisturbed")
    rows = []
    for names, part in tables[tables["lesion"] != "none"].groupby(["arm", "lesion", "block"], sort=False):
        drops = 100 * (part.join(undisturbed, on=["arm", "seed"])["undisturbed"] - part["accuracy"])
        rows.append((*names, len(drops), drops.mean(), *(mean_interval(drops) or (np.nan, np.nan))))
    return pd.DataFrame(rows, columns=["arm", "lesion", "block", "n_runs", "drop_pp", "low_pp", "high_pp"])


def _tables_of_runs(study, runs, name):
    """The CSV file `name` of all runs that have one, with arm and seed."""
    keys = [(arm, seed, run_folder(study.name, arm, seed)) for arm, seed in zip(runs["arm"], runs["seed"], strict=True)]
    tables = [load_table(f, name).assign(arm=arm, seed=seed) for arm, seed, f in keys if (f / name).exists()]
    nothing = pd.DataFrame(columns=["arm", "seed", "block", "lesion", "accuracy", *GATE_STATISTICS], dtype=float)
    return pd.concat(tables, ignore_index=True) if tables else nothing
