"""The statistics of the comparison, as pure functions of arrays; accuracies are fractions, differences points (pp)."""

import numpy as np
from scipy import stats
from sklearn.metrics import confusion_matrix

CONFIDENCE = 0.95
EXACT_PAIRS = 20  # 2^20 sign flips take about 4 s; beyond, random flips are drawn


def paired_comparison(arm, baseline):
    """Mean difference arm − baseline of paired values, with its t interval and permutation p-value.

    arm, baseline: accuracies (n,), fractions, one pair a seed. The p-value is exact, from all sign flips, two-sided,
    up to n = 20. What n cannot support is None: the interval and p-value need two pairs. Raises ValueError without pairs.
    """
    differences = 100 * (np.asarray(arm, float) - np.asarray(baseline, float))
    if not len(differences):
        raise ValueError("no pairs to compare")
    result = {"n_pairs": len(differences), "difference_pp": float(differences.mean())}
    if len(differences) < 2:
        return {**result, "seed_interval_pp": None, "p_value": None}
    interval = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    permutation = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if len(differences) <= EXACT_PAIRS else 100_000,
        vectorized=False,
        rng=np.random.default_rng(0),
    )
    return {
        **result,
        "seed_interval_pp": [float(interval.low), float(interval.high)],
        "p_value": float(permutation.pvalue),
    }


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
