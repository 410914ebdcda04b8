"""The statistics of the comparison, as pure functions of arrays; accuracies are fractions, differences points (pp)."""

import numpy as np
from scipy import stats
from sklearn.metrics import confusion_matrix

CONFIDENCE = 0.95
EXACT_PAIRS = 20  # 2^20 sign flips take about 4 s; beyond, random flips are drawn


def mean_interval(values):
    """Student's t interval [low, high] for the mean of values (n,), or None for fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return None
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half_width), float(values.mean() + half_width)]


def paired_comparison(arm, baseline):
    """Mean difference arm − baseline of paired accuracies (n,), fractions, with its t interval and permutation p-value.

    The p-value is two-sided and, up to 20 pairs, exact: all sign flips of the differences. What n cannot support is
    None: the mean needs one pair, the interval and the p-value two. Raises ValueError for values without a partner.
    """
    arm, baseline = np.asarray(arm, float), np.asarray(baseline, float)
    if arm.shape != baseline.shape:
        raise ValueError(f"{arm.shape} values cannot be paired with {baseline.shape}")
    differences = 100 * (arm - baseline)
    n = len(differences)
    result = {"n_pairs": n, "difference_pp": float(differences.mean()) if n else None}
    return result | {"seed_interval_pp": mean_interval(differences), "p_value": sign_flip_p(differences)}


def sign_flip_p(differences):
    """Two-sided p-value of a zero mean from sign flips of paired differences (n,); None for fewer than two."""
    if len(differences) < 2:
        return None
    flips = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf if len(differences) <= EXACT_PAIRS else 100_000,
        rng=np.random.default_rng(0),
        vectorized=True,
        batch=2**16,
    )
    return float(flips.pvalue)


def confusion_percent(predictions, labels, classes):
    """Share of each true class (row) that was given each class (column), in percent, (classes, classes).

    predictions: integers (N,) of one run, or (runs, N) to pool runs; labels: integers (N,).
    """
    predictions = np.atleast_2d(predictions)
    truth = np.broadcast_to(labels, predictions.shape)
    return 100 * confusion_matrix(truth.ravel(), predictions.ravel(), labels=range(classes), normalize="true")


def recall_percent(predictions, labels, classes):
    """Recall in percent of each class in each run, (runs, classes), from predictions (runs, N) and labels (N,)."""
    hits = np.atleast_2d(predictions) == labels
    return 100 * np.stack([hits[:, labels == label].mean(1) for label in range(classes)], axis=1)
