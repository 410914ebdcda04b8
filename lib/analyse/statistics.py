"""The statistics of the comparison, as pure functions of arrays; accuracies are fractions, differences points (pp)."""

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import logsumexp, softmax
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

CONFIDENCE = 0.95
PUBLISHED_GAIN_PP = 0.39  # smallest gain on CIFAR-10 in Hu et al. (2020), table 4
EQUIVALENCE_MARGIN_PP = 0.25
SIGN_FLIP_PAIRS = (6, 20)  # with fewer, p cannot be below 5 %; more are too many to go through
ROUNDING = 1e-9  # what subtracting fractions loses; real differences in accuracy are at least 1e-4 pp


def mean_interval(values):
    """Student's t interval [low, high] for the mean of values (n,); None for fewer than two, and for equal values.

    Accuracies move in steps of one image, so two runs may agree by chance: an interval of no width would mislead.
    """
    values = np.asarray(values, float)
    return _t_interval(values.mean(), stats.sem(values), len(values) - 1) if _vary(values) else None


def _vary(values):
    return len(values) > 1 and np.ptp(values) > ROUNDING


def _t_interval(estimate, error, df):
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, df) * error
    return [float(estimate - half_width), float(estimate + half_width)]


def zero_mean_p(values):
    """Two-sided p-value of Student's t test that the mean of values (n,) is 0; None as in mean_interval."""
    values = np.asarray(values, float)
    return float(stats.ttest_1samp(values, 0).pvalue) if _vary(values) else None


def equivalence_p(differences, margin_pp=EQUIVALENCE_MARGIN_PP):
    """TOST (Schuirmann 1987): p-value that the mean of differences (n,), in pp, lies within ±margin_pp.

    The larger of two one-sided t tests; None as in mean_interval.
    """
    differences = np.asarray(differences, float)
    return float(DescrStatsW(differences).ttost_mean(-margin_pp, margin_pp)[0]) if _vary(differences) else None


def sign_flip_p(differences):
    """Exact two-sided p-value of a zero mean of paired differences (n,); None for fewer than 6 pairs or more than 20.

    It is the share of all 2^n flips of their signs that have a sum at least as far from zero.
    """
    differences = np.asarray(differences, float)
    if not SIGN_FLIP_PAIRS[0] <= len(differences) <= SIGN_FLIP_PAIRS[1]:
        return None
    sums = np.zeros(1)  # with every combination of signs, in the end (2^n,)
    for difference in differences:
        sums = np.concatenate([sums - difference, sums + difference])
    return float((abs(sums) >= abs(differences.sum()) - ROUNDING).mean())  # ties count


def paired_comparison(arm, baseline):
    """Accuracies (n,) of an arm and of the baseline, as fractions, compared pair by pair: arm − baseline.

    seed_interval_pp answers two questions: excludes_zero, and excludes_published_gain (all of it lies below +0.39).
    What n or equal values cannot support is None. Raises ValueError for different shapes.
    """
    arm, baseline = paired(arm, baseline)
    differences, ratios = changes(arm, baseline)
    interval = mean_interval(differences)
    varied = len(arm) > 2 and _vary(arm) and _vary(baseline)
    return {
        "n_pairs": len(differences),
        "difference_pp": float(differences.mean()) if len(arm) else None,
        "seed_interval_pp": interval,
        "sd_difference_pp": float(differences.std(ddof=1)) if len(differences) > 1 else None,
        "p_value": zero_mean_p(differences),
        "sign_flip_p": sign_flip_p(differences),
        "tost_p": equivalence_p(differences),
        "excludes_zero": interval and not interval[0] <= 0 <= interval[1],
        "excludes_published_gain": interval and interval[1] < PUBLISHED_GAIN_PP,
        "seed_correlation": float(np.corrcoef(arm, baseline)[0, 1]) if varied else None,
        "log_error_ratio": float(ratios.mean()) if len(ratios) else None,
        "log_error_ratio_interval": mean_interval(ratios),
    }


def changes(arm, baseline):
    """Differences in pp, and log ratios of the errors (none where an error is 0), of paired accuracies (n,)."""
    ratios = np.log((1 - arm) / (1 - baseline)) if (np.append(arm, baseline) < 1).all() else np.empty(0)
    return 100 * (arm - baseline), ratios


def paired(arm, baseline):
    """Both as float arrays; ValueError for different shapes, which NumPy might stretch to fit."""
    arm, baseline = np.asarray(arm, float), np.asarray(baseline, float)
    if arm.shape != baseline.shape:
        raise ValueError(f"results of shape {arm.shape} cannot be paired with {baseline.shape}")
    return arm, baseline


def paired_table(arm, baseline, index, unit=""):
    """One row for each of k measures of n paired runs, (n, k) of either arm; index: their k names, a pandas Index.

    Columns arm and baseline (means over runs), n_pairs, and the difference arm − baseline with its 95 % t interval low,
    high (NaN for a single run or equal differences), with `unit` at the end. ValueError for different shapes.
    """
    arm, baseline = paired(arm, baseline)
    rows = []
    for one, other in zip(arm.T, baseline.T, strict=True):
        low, high = mean_interval(one - other) or (np.nan, np.nan)
        rows.append((one.mean(), other.mean(), (one - other).mean(), low, high, len(one)))
    change = [f"{name}{unit}" for name in ("difference", "low", "high")]
    return pd.DataFrame(rows, index=index, columns=["arm", "baseline", *change, "n_pairs"])


def crossed_interval(correct_arm, correct_baseline):
    """Interval [low, high] of the difference arm − baseline (pp) for new seeds and new images at once.

    correct_*: bool (n, N), row i of both the same seed. Two-way crossed random effects (model: Owen 2007, "The
    pigeonhole bootstrap"): the variance of the mean is (S + I − R) / nN with the mean squares of seeds, images and
    residual; a component below 0 counts as 0. Student's t with Satterthwaite's degrees of freedom; covers 94 to 99 of
    100 from three seeds on. None without three seeds, two images and some spread. ValueError for different shapes.
    """
    differences = 100 * np.subtract(*paired(correct_arm, correct_baseline))
    n, n_images = differences.shape
    if n < 3 or n_images < 2 or not np.ptp(differences):
        return None
    mean, by_seed, by_image = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    df_residual = (n - 1) * (n_images - 1)
    seeds, images = n_images * by_seed.var(ddof=1), n * by_image.var(ddof=1)
    residual = ((differences - by_seed[:, None] - by_image + mean) ** 2).sum() / df_residual
    total = max(seeds + images - residual, seeds, images)
    spread = seeds**2 / (n - 1) + images**2 / (n_images - 1) + residual**2 / df_residual
    df = max(total**2 / spread, min(n, n_images) - 1)
    return _t_interval(mean, np.sqrt(total / (n * n_images)), df)


def holm(p_values):
    """Holm's adjusted p-values for a planned family, in the order given; None counts as 1 and stays None."""
    adjusted = multipletests([1.0 if p is None else p for p in p_values], method="holm")[1]
    return [None if p is None else float(value) for p, value in zip(p_values, adjusted, strict=True)]


def contrast_of_cells(cells, weights):
    """Σ weight · mean over independent cells: estimate, interval [low, high], df, p_value (two-sided).

    cells: arrays of values (n_i,), each with a variance of its own; weights: a number each. Student's t with
    Satterthwaite's degrees of freedom (for weights 1, −1 Welch's test); None for a single value or where none varies.
    """
    estimate = float(np.dot(weights, [np.mean(cell) for cell in cells]))
    if min(map(len, cells)) < 2 or not any(map(_vary, cells)):
        return {"estimate": estimate, "interval": None, "df": None, "p_value": None}
    sizes = np.array([len(cell) for cell in cells])
    variances = np.square(weights) * [np.var(cell, ddof=1) for cell in cells] / sizes
    error, df = np.sqrt(variances.sum()), float(variances.sum() ** 2 / (variances**2 / (sizes - 1)).sum())
    p_value = float(2 * stats.t.sf(abs(estimate) / error, df))
    return {"estimate": estimate, "interval": _t_interval(estimate, error, df), "df": df, "p_value": p_value}


def slope_weights(x):
    """Weights (k,) of k means at x (k,) whose weighted sum is the least-squares slope over x."""
    deviations = np.asarray(x, float) - np.mean(x)
    return deviations / (deviations**2).sum()


def nll(logits, labels):
    """Mean negative log-likelihood in nats, computed in float64, of logits (N, classes); labels: integers (N,)."""
    logits = np.asarray(logits, np.float64)
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def brier(logits, labels):
    """Brier score, 0 to 2: squared distance of the probabilities from the one-hot label, summed over classes."""
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    probabilities[np.arange(len(labels)), labels] -= 1
    return float((probabilities**2).sum(axis=1).mean())


def expected_calibration_error(logits, labels, bins=15):
    """Mean distance of confidence and accuracy over bins of confidence, weighted by their images, 0 to 1.

    logits: (N, classes); labels: integers (N,). Bins have equal width and include their upper edge (Guo et al. 2017).
    """
    probabilities = softmax(np.asarray(logits, np.float64), axis=1)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return float(pd.Series(correct - confidence).groupby(place).sum().abs().sum() / len(labels))
