"""The statistics of the comparison, as pure functions of arrays; accuracies are fractions, differences points (pp)."""

import itertools

import numpy as np
from scipy import integrate, optimize, stats
from sklearn.metrics import confusion_matrix
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

CONFIDENCE = 0.95
ALPHA = 0.05  # 1 − CONFIDENCE
SMALLEST_EFFECT_PP = 0.15  # smallest effect of interest, preregistered
EXACT_PAIRS = 20  # beyond, random flips are drawn
RANDOM_FLIPS = 99_999
ROUNDING_PP = 1e-9  # what subtracting fractions loses; real differences are at least 1e-4 pp


def mean_interval(values):
    """Student's t interval [low, high] for the mean of values (n,), or None for fewer than two."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return None
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half_width), float(values.mean() + half_width)]


def paired_comparison(arm, baseline):
    """Mean difference arm − baseline of paired accuracies (n,), fractions, with its intervals, tests and decision.

    p_value is two-sided and, up to 20 pairs, exact: all sign flips of the differences. wins and losses count the pairs
    in which arm is better and worse. What n or equal values cannot support is None: the mean needs one pair; its t
    interval, tests, decision and standard deviation two; correlation and bootstrap three, not all equal; win_p one pair
    that is no tie. Raises ValueError for values without a partner.
    """
    arm, baseline = np.asarray(arm, float), np.asarray(baseline, float)
    if arm.shape != baseline.shape:
        raise ValueError(f"{arm.shape} values cannot be paired with {baseline.shape}")
    differences = 100 * (arm - baseline)
    n = len(differences)
    mean = float(differences.mean()) if n else None
    interval, tost_p = mean_interval(differences), equivalence_p(differences)
    wins, losses = int((arm > baseline).sum()), int((arm < baseline).sum())
    return {
        "n_pairs": n,
        "difference_pp": mean,
        "seed_interval_pp": interval,
        "p_value": sign_flip_p(differences),
        "tost_p": tost_p,
        "decision": decide(mean, interval, tost_p),
        "sd_difference_pp": float(differences.std(ddof=1)) if n > 1 else None,
        "seed_correlation": _correlation(arm, baseline),
        "wins": wins,
        "losses": losses,
        "win_p": float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None,
        "bootstrap_interval_pp": _bootstrap_interval(differences),
    }


def _correlation(arm, baseline):
    if len(arm) < 3 or not np.ptp(arm) or not np.ptp(baseline):
        return None
    return float(np.corrcoef(arm, baseline)[0, 1])


def _bootstrap_interval(differences):
    if len(differences) < 3 or np.ptp(differences) < ROUNDING_PP:
        return None
    interval = stats.bootstrap(
        (differences,), np.mean, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return [float(interval.low), float(interval.high)]


def sign_flip_p(differences):
    """Two-sided p-value of a zero mean from sign flips of paired differences (n,); None for fewer than two.

    Exact up to EXACT_PAIRS pairs: the share of all 2^n flips whose sum is at least as far from zero, ties within
    rounding included. The sums are those of two halves, added in every combination.
    """
    differences = np.asarray(differences, float)
    n = len(differences)
    if n < 2:
        return None
    if n > EXACT_PAIRS:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (RANDOM_FLIPS, n))
        extreme = np.abs(signs @ differences) >= np.abs(differences.sum()) - ROUNDING_PP
        return float((1 + extreme.sum()) / (1 + RANDOM_FLIPS))
    sums = np.add.outer(_flipped_sums(differences[: n // 2]), _flipped_sums(differences[n // 2 :]))
    return float((np.abs(sums) >= np.abs(differences.sum()) - ROUNDING_PP).mean())


def _flipped_sums(values):
    """Sums (2^k,) of the values (k,) with every combination of signs."""
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
    return signs @ values


def equivalence_p(differences, margin=SMALLEST_EFFECT_PP):
    """TOST p-value that the mean of paired differences (n,) lies within ±margin, both in pp; None for fewer than two.

    Equal differences give the limit of a vanishing spread: 0 within the margin, 0.5 on it, 1 beyond.
    """
    differences = np.asarray(differences, float)
    if len(differences) < 2:
        return None
    if np.ptp(differences) < ROUNDING_PP:
        beyond = abs(differences.mean()) - margin
        return 0.5 if abs(beyond) < ROUNDING_PP else float(beyond > 0)
    return float(ttost_paired(differences, np.zeros_like(differences), -margin, margin)[0])


def decide(difference_pp, interval_pp, equivalence_p):
    """The preregistered reading of a mean difference, its 95 % interval [low, high] (pp) and its TOST p-value.

    The first that holds: "superior" or "inferior" (the interval excludes 0, the difference is at least 0.15 pp),
    "different but negligible" (it excludes 0, within ±0.15 pp), "equivalent" (p < 0.05), "different, size unclear"
    (the interval excludes 0), "inconclusive". None without an interval.
    """
    if interval_pp is None:
        return None
    low, high = interval_pp
    if low > 0 or high < 0:
        if abs(difference_pp) >= SMALLEST_EFFECT_PP - ROUNDING_PP:
            return "superior" if difference_pp > 0 else "inferior"
        if max(-low, high) <= SMALLEST_EFFECT_PP + ROUNDING_PP:
            return "different but negligible"
    if equivalence_p < ALPHA:
        return "equivalent"
    return "different, size unclear" if low > 0 or high < 0 else "inconclusive"


def holm(p_values):
    """Holm's adjusted p-values, in the order given, for a confirmatory family; None stays None and counts for none."""
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values):
    """Benjamini and Hochberg's adjusted p-values, in the order given, for an exploratory family; None stays None."""
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values, method):
    known = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(known, alpha=ALPHA, method=method)[1] if known else [])
    return [None if p is None else float(next(adjusted)) for p in p_values]


def detectable_difference(sd_difference_pp, n, power=0.8):
    """Smallest mean difference (pp) of n pairs that a two-sided paired t test at 5 % detects with this power.

    sd_difference_pp: standard deviation of the paired differences. None for fewer than two pairs.
    """
    if n < 2:
        return None
    # Squared t is noncentral F. Not TTestPower.solve_power: where its noncentral t underflows, as for two pairs, it
    # returns an effect of another power without a word (10.0 SD, power 0.73, where 0.95 is asked for).
    critical = stats.f.ppf(1 - ALPHA, 1, n - 1)
    largest = 5 * (1 + np.sqrt(critical))  # in standard errors, where the test misses less than once in 10^6
    shift = optimize.brentq(lambda shift: stats.ncf.sf(critical, 1, n - 1, shift**2) - power, 0, largest)
    return float(shift * sd_difference_pp / np.sqrt(n))


def equivalence_power(sd_difference_pp, n, margin=SMALLEST_EFFECT_PP):
    """Probability that TOST at 5 % finds n pairs within ±margin (pp) when their true mean difference is 0.

    sd_difference_pp: standard deviation of the paired differences. None for fewer than two pairs.
    """
    if n < 2:
        return None
    if not sd_difference_pp:
        return 1.0
    room = margin * np.sqrt(n) / sd_difference_pp  # the margin in standard errors
    quantile = stats.t.ppf(1 - ALPHA, n - 1)

    def power_at(probability):  # given this quantile of the sample's standard deviation, which the mean is free of
        return 2 * stats.norm.cdf(room - quantile * np.sqrt(stats.chi2.ppf(probability, n - 1) / (n - 1))) - 1

    largest = stats.chi2.cdf((n - 1) * (room / quantile) ** 2, n - 1)  # no mean passes with a larger deviation
    return float(integrate.quad(power_at, 0, largest)[0])


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


def score(logits, labels):
    """Accuracy (fraction) and mean negative log-likelihood (nats) of logits (N, classes), labels integers (N,)."""
    logits = np.asarray(logits).astype(np.float64)
    likelihood = logits[np.arange(len(labels)), labels] - np.logaddexp.reduce(logits, axis=1)
    return {"accuracy": float((logits.argmax(1) == labels).mean()), "loss": float(-likelihood.mean())}
