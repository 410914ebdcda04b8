"""What differs between two arms beyond accuracy: classes, calibration, single images; exploratory, without torch.

Row i of both arms' arrays is the same seed. Tables are empty where no seed has finished both arms.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lib.images import calibration, most_different, per_image_difference
from lib.statistics import ROUNDING_PP, benjamini_hochberg, mean_interval, recall_percent

SUMMARY = ["arm", "baseline", "difference", "low", "high", "p_value", "n_pairs"]
IN_POINTS = {name: f"{name}_pp" for name in ("difference", "low", "high")}
CALIBRATION = ["nll", "brier", "ece"]
FLIPS = 9_999  # random flips of signs: p-values down to 0.0001


def finished_seeds(runs, arm):
    """Sorted seeds of the finished runs of an arm; runs: the table of load_runs, which may be empty."""
    return [] if runs.empty else sorted(runs.loc[runs["arm"] == arm, "seed"].tolist())


def paired_seeds(runs, arm, baseline):
    """Sorted seeds that both arms have finished; runs: the table of load_runs, which may be empty."""
    of_baseline = finished_seeds(runs, baseline)
    return [seed for seed in finished_seeds(runs, arm) if seed in of_baseline]


def seed_interval(values):
    """Student's t interval (low, high) of the mean of one value a run, (n,); NaN for fewer than two runs.

    NaN, too, where all values agree: accuracies move in steps of one image, so two runs may agree by chance, and that
    would make an interval of no width.
    """
    return tuple(mean_interval(values)) if _vary(values) else (np.nan, np.nan)


def paired_table(arm, baseline, index):
    """One row for each of k measures of n paired runs, float (n, k) of either arm; index: their k names.

    Columns SUMMARY, in the unit of the measures: both means, mean difference arm − baseline with t interval and p-value
    of the paired t test over seeds (NaN as in seed_interval), and n. Raises ValueError for runs without a partner.
    """
    arm, baseline = np.asarray(arm, float), np.asarray(baseline, float)
    if arm.shape != baseline.shape:
        raise ValueError(f"runs of shape {arm.shape} cannot be paired with {baseline.shape}")
    rows = []
    for differences in (arm - baseline).T if len(arm) else ():
        p_value = float(stats.ttest_1samp(differences, 0).pvalue) if _vary(differences) else np.nan
        rows.append((differences.mean(), *seed_interval(differences), p_value, len(differences)))
    table = pd.DataFrame(rows, columns=SUMMARY[2:], index=index[: len(rows)])
    table.insert(0, "arm", arm.mean(0) if rows else [])
    table.insert(1, "baseline", baseline.mean(0) if rows else [])
    return table


def _vary(values):
    return len(values) > 1 and np.ptp(values) > ROUNDING_PP


def class_table(predictions_arm, predictions_baseline, labels, classes):
    """Recall of each class, in percent, and its paired difference over seeds, in points; index class.

    Columns recall_arm, recall_baseline, difference_pp, low_pp, high_pp, p_value, n_pairs as in paired_table, and p_fdr,
    adjusted over the classes (Benjamini and Hochberg). predictions: integers (runs, N); labels: integers (N,); classes:
    names. Raises ValueError for runs without a partner.
    """
    recalls = [
        recall_percent(predictions, labels, len(classes)) if len(predictions) else np.empty((0, len(classes)))
        for predictions in (predictions_arm, predictions_baseline)
    ]
    table = paired_table(*recalls, pd.Index(classes, name="class"))
    adjusted = benjamini_hochberg([None if np.isnan(p) else p for p in table["p_value"]])
    names = {"arm": "recall_arm", "baseline": "recall_baseline", **IN_POINTS}
    return table.rename(columns=names).assign(p_fdr=np.array(adjusted, float))


def calibration_table(logits_arm, logits_baseline, labels):
    """Calibration of both arms, means over runs, and paired differences; index metric: nll (nats), brier, ece.

    Columns SUMMARY; the metrics are those of lib.images.calibration, lower is better. logits: float (runs, N, classes);
    labels: integers (N,). Raises ValueError for runs without a partner.
    """
    arm, baseline = (
        np.array([list(calibration(run, labels).values()) for run in logits]).reshape(-1, len(CALIBRATION))
        for logits in (logits_arm, logits_baseline)
    )
    return paired_table(arm, baseline, pd.Index(CALIBRATION, name="metric"))


def image_disagreements(correct_arm, correct_baseline, predictions_arm, predictions_baseline, labels, count):
    """The at most `count` images whose share of runs that are right differs most, largest first; none that are equal.

    Columns index, label, right_arm, right_baseline (shares of runs, fractions), prediction_arm, prediction_baseline
    (the most frequent class, of equal ones the lowest). correct: bool (runs, N); predictions: integers (runs, N);
    labels: integers (N,). Chance alone gives such images too: see disagreement_excess. Raises ValueError for runs
    without a partner.
    """
    columns = ["index", "label", "right_arm", "right_baseline", "prediction_arm", "prediction_baseline"]
    if not len(correct_arm):
        return pd.DataFrame(columns=columns)
    difference = per_image_difference(correct_arm, correct_baseline)
    chosen = most_different(difference, count)
    chosen = chosen[difference[chosen] != 0]
    shares = [np.mean(correct[:, chosen], axis=0) for correct in (correct_arm, correct_baseline)]
    usual = [stats.mode(each[:, chosen], axis=0).mode for each in (predictions_arm, predictions_baseline)]
    return pd.DataFrame(dict(zip(columns, [chosen, labels[chosen], *shares, *usual], strict=True)))


def disagreement_excess(correct_arm, correct_baseline):
    """Do the arms get other images right than seeds alone explain? correct: bool (n, N), n paired runs on N images.

    d_i, the difference in image i, is the mean over n seeds of D_ri, which is −1, 0 or 1. With the covariance matrix
    C (n, n) of the rows of D over images:
    observed_sd = √(ΣC / n²), the SD of d_i over images;
    expected_sd = √((mean of C's diagonal − mean of the rest) / n), the same if the arms differed in no image, or in all
    alike: the residual mean square of the layout seeds × images, over n. Its square is unbiased from two pairs on, for
    images of any difficulty, runs that are better or worse as a whole, and pairs that share noise; baseline runs held
    against each other would give it from halves of n/2 runs only;
    ratio = observed_sd / expected_sd, about 1 for equal arms; where arms differ it grows with n;
    true_sd = √max(0, observed_sd² − expected_sd²), the SD over images that is left for any n;
    p_value: share of random swaps of arm and baseline within seeds with an observed_sd as large; of n pairs it is about
    1 / 2^(n − 1) or more.
    None for fewer than two runs or images, ratio also without noise. An arm that is more accurate exceeds 1 as well: it
    gains on hard images and cannot on easy ones. Raises ValueError for runs without a partner.
    """
    arm, baseline = np.asarray(correct_arm, int), np.asarray(correct_baseline, int)
    if arm.shape != baseline.shape:
        raise ValueError(f"runs of shape {arm.shape} cannot be paired with {baseline.shape}")
    n, images = arm.shape
    if n < 2 or images < 2:
        return dict.fromkeys(["observed_sd", "expected_sd", "ratio", "true_sd", "p_value"]) | {"n_pairs": n}
    differences = arm - baseline
    sums = differences.sum(1)
    products = images * differences @ differences.T - np.outer(sums, sums)  # whole numbers: images · (images − 1) · C
    scale = n**2 * images * (images - 1)
    observed = products.sum() / scale
    expected = (n * np.trace(products) - products.sum()) / (n - 1) / scale
    signs = np.random.default_rng(0).choice([-1, 1], (FLIPS, n))
    swapped = ((signs @ products) * signs).sum(1)
    return {
        "observed_sd": float(np.sqrt(observed)),
        "expected_sd": float(np.sqrt(expected)),
        "ratio": float(np.sqrt(observed / expected)) if expected else None,
        "true_sd": float(np.sqrt(max(0.0, observed - expected))),
        "p_value": float((1 + (swapped >= products.sum()).sum()) / (1 + FLIPS)),
        "n_pairs": n,
    }
