"""Analyses of single test images, as pure functions of arrays: churn, subsets of images, and calibration.

Of runs in the same order of seeds: `correct` bool (runs, N), `predictions` integers (runs, N).
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist, pdist
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.metrics import brier_score_loss, log_loss

from lib.data import IMAGES
from lib.statistics import mean_interval


def churn(predictions_arm, predictions_baseline):
    """Share of images, in percent, that two runs classify differently: its mean and SD over pairs of runs.

    between_arms: arm and baseline with the same seed; between_arms_other_seed: with different seeds, all pairs;
    between_arm_runs and between_baselines: pairs of runs of one arm. A mean needs one pair, an SD (`…_sd`) two, else
    None. Pairs share runs, so the SD describes them and yields no standard error. Raises ValueError for runs without a
    partner.
    """
    arm, baseline = _paired(predictions_arm, predictions_baseline)
    across, same_seed = cdist(arm, baseline, "hamming"), np.eye(len(arm), dtype=bool)
    shares = {
        "between_arms": across[same_seed],
        "between_arms_other_seed": across[~same_seed],
        "between_arm_runs": pdist(arm, "hamming"),
        "between_baselines": pdist(baseline, "hamming"),
    }
    result = {}
    for name, share in shares.items():
        result[name] = 100 * float(share.mean()) if len(share) else None
        result[f"{name}_sd"] = 100 * float(share.std(ddof=1)) if len(share) > 1 else None
    return result


def uncertainty_subsets(annotations):
    """Subsets {name: bool (10000,)} of the CIFAR-10 test images, those that the available annotations define.

    The thirds of human entropy go by rank, and images of equal entropy stay together in the third of their mean rank:
    people agree fully on 4,393 images, so the low third is these and the sizes are 4,393, 2,337 and 3,270.
    """
    entropy, duplicate, label_error = annotations
    subsets = {"all": np.ones(IMAGES["test"], bool)}
    if duplicate is not None:
        subsets |= {"without duplicates": ~duplicate, "near-duplicates": duplicate}
    if label_error is not None:
        subsets |= {"without label errors": ~label_error, "label errors": label_error}
    if duplicate is not None and label_error is not None:
        subsets["without duplicates and label errors"] = ~(duplicate | label_error)
    if entropy is not None:
        rank = rankdata(entropy.round(9)) / len(entropy)  # the last digits depend on the order of the sum
        subsets["low human entropy"] = rank <= 1 / 3
        subsets["middle human entropy"] = (rank > 1 / 3) & (rank <= 2 / 3)
        subsets["high human entropy"] = rank > 2 / 3
    return subsets


def subset_differences(correct_arm, correct_baseline, subsets):
    """Accuracy of both arms, in percent, and their paired difference with its t interval over seeds, for each subset.

    subsets: {name: bool (N,)}; an empty one gets no row. The interval of a single seed is NaN. Raises ValueError for
    runs without a partner.
    """
    arm, baseline = _paired(correct_arm, correct_baseline)
    rows = {}
    for name, members in subsets.items():
        if not members.any():
            continue
        percent_arm, percent_baseline = (100 * correct[:, members].mean(1) for correct in (arm, baseline))
        differences = percent_arm - percent_baseline
        low, high = mean_interval(differences) or (np.nan, np.nan)
        rows[name] = {
            "n_images": int(members.sum()),
            "accuracy_arm_percent": percent_arm.mean(),
            "accuracy_baseline_percent": percent_baseline.mean(),
            "difference_pp": differences.mean(),
            "low_pp": low,
            "high_pp": high,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("subset")


def per_image_difference(correct_arm, correct_baseline):
    """Share of seeds in which the arm is right minus that of the baseline, float64 (N,) from −1 to 1.

    Raises ValueError for runs without a partner.
    """
    arm, baseline = _paired(correct_arm, correct_baseline)
    # Whole numbers are subtracted, so that equal differences are equal to the last bit.
    return (arm.sum(0, dtype=int) - baseline.sum(0, dtype=int)) / len(arm)


def most_different(difference, count):
    """Indices int64 of the `count` images with the largest absolute difference of either sign, the largest first.

    Equal ones go by index.
    """
    return np.argsort(-np.abs(difference), kind="stable")[:count]


def calibration(logits, labels, bins=15):
    """Calibration of one run: {"nll", "brier", "ece"}, computed in float64; lower is better.

    nll: nats, at most 36 for one image; brier: squared distance from the one-hot label, summed over classes, 0 to 2;
    ece: expected calibration error of the top label, 0 to 1, over bins of equal width (Guo et al. 2017, section 2).
    logits: float (N, classes), labels: integers (N,).
    """
    probabilities, classes = softmax(logits.astype(float), axis=-1), np.arange(logits.shape[-1])
    _, confidence, correct = _sums_per_bin(probabilities, labels, bins)
    return {
        "nll": float(log_loss(labels, probabilities, labels=classes)),
        "brier": float(brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)),
        "ece": float(np.abs(correct - confidence).sum() / len(labels)),
    }


def reliability(logits, labels, bins=15):
    """Reliability diagram of runs pooled: mean confidence, accuracy and share of images of each bin, as fractions.

    One row for each of the bins of equal width, from 0 to 1; an empty bin has share 0 and NaN else. logits: float
    (runs, N, classes), labels: integers (N,).
    """
    count, confidence, correct = _sums_per_bin(softmax(logits.astype(float), axis=-1), labels, bins)
    filled = np.where(count, count, np.nan)
    table = {"confidence": confidence / filled, "accuracy": correct / filled, "share": count / count.sum()}
    return pd.DataFrame(table).rename_axis("bin")


def _sums_per_bin(probabilities, labels, bins):
    """Number of images, sum of confidences and number of hits in each bin of confidence, (bins,) each.

    probabilities: (..., N, classes). A confidence on an edge belongs to the bin below (Guo et al. 2017).
    """
    confidence = probabilities.max(-1).ravel()
    correct = (probabilities.argmax(-1) == labels).ravel()
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return tuple(np.bincount(place, weights, minlength=bins) for weights in (None, confidence, correct))


def _paired(arm, baseline):
    """Both as arrays; raises ValueError unless each run of the one has a partner in the other."""
    arm, baseline = np.asarray(arm), np.asarray(baseline)
    if arm.shape != baseline.shape:
        raise ValueError(f"runs of shape {arm.shape} cannot be paired with {baseline.shape}")
    return arm, baseline
