"""The comparison seen from the images: what holds on new images like these, from which images each run got right.

Correctness is bool, (n, N): n paired runs on the same N images, row i of both arms the same seed.
"""

import numpy as np
from scipy import stats

from lib.statistics import CONFIDENCE, ROUNDING_PP, decide, equivalence_p, mean_interval


def image_comparison(correct_arm, correct_baseline):
    """Mean over images of the difference arm − baseline (pp) averaged over seeds: t interval, t test, TOST, decision.

    correct_arm, correct_baseline: bool (n, N). The interval answers "these networks, on new images like these", the
    seed interval "new networks, on these images". All None for n = 0 or fewer than two images. Raises ValueError for
    runs or images without a partner.
    """
    matrix = _differences(correct_arm, correct_baseline)
    differences = matrix.mean(axis=0) if len(matrix) else np.empty(0)
    interval, tost_p = mean_interval(differences), equivalence_p(differences)
    return {
        "image_interval_pp": interval,
        "image_p_value": _zero_mean_p(differences),
        "image_tost_p": tost_p,
        "image_decision": None if interval is None else decide(float(differences.mean()), interval, tost_p),
    }


def crossed_interval(correct_arm, correct_baseline):
    """Interval [low, high] of the difference arm − baseline (pp) for new seeds and new images at once.

    correct_arm, correct_baseline: bool (n, N). Two-way crossed random effects (Owen 2007, "The pigeonhole bootstrap",
    for the model): the unbiased variance of the mean is (S + I − R) / nN with the mean squares of seeds, images and
    residual, which is s²_seeds/n + s²_images/N − s²_residual/nN; a component estimated below 0 counts as 0. Student's t
    quantile with Satterthwaite's degrees of freedom: normal where images dominate, n − 1 where seeds do. In simulations
    it covers 94 to 99 of 100 from three seeds on, in places only 90 with two. None for fewer than two seeds or images.
    Raises ValueError for runs or images without a partner.
    """
    differences = _differences(correct_arm, correct_baseline)
    n, images = differences.shape
    if n < 2 or images < 2:
        return None
    mean, by_seed, by_image = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    seed_square, image_square = images * by_seed.var(ddof=1), n * by_image.var(ddof=1)
    residuals = differences - by_seed[:, None] - by_image + mean
    residual_square = (residuals**2).sum() / ((n - 1) * (images - 1))
    total = max(seed_square + image_square - residual_square, seed_square, image_square)
    spread = seed_square**2 / (n - 1) + image_square**2 / (images - 1)
    spread += residual_square**2 / ((n - 1) * (images - 1))
    fewest = min(n, images) - 1
    freedom = max(total**2 / spread, fewest) if spread else fewest
    half_width = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(total / (n * images))
    return [float(mean - half_width), float(mean + half_width)]


def _differences(correct_arm, correct_baseline):
    """Differences arm − baseline of correctness (n, N) in pp: −100, 0 or 100."""
    arm, baseline = np.asarray(correct_arm, float), np.asarray(correct_baseline, float)
    if arm.shape != baseline.shape:
        raise ValueError(f"{arm.shape} results cannot be paired with {baseline.shape}")
    return 100 * (arm - baseline)


def _zero_mean_p(differences):
    """Two-sided t test of a zero mean; equal differences give the limit of a vanishing spread."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) < ROUNDING_PP:
        return float(abs(differences.mean()) < ROUNDING_PP)
    return float(stats.ttest_1samp(differences, 0).pvalue)
