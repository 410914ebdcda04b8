import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from lib.imagestatistics import crossed_interval, image_comparison
from lib.statistics import decide, equivalence_p, mean_interval

KEYS = ["image_interval_pp", "image_p_value", "image_tost_p", "image_decision"]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def simulated_correctness(generator, n, images, seed_spread, image_spread):
    """Correctness (n, images) of two arms of equal true accuracy over new seeds and new images.

    Each run is right with probability 0.9, ± image_spread on each image for each arm and shifted for each run.
    """
    arms = []
    for _ in range(2):
        probabilities = 0.9 + image_spread * generator.choice([-1, 1], images)
        shifts = generator.normal(0, seed_spread, (n, 1)) if seed_spread else 0
        arms.append(generator.random((n, images), dtype=np.float32) < np.clip(probabilities + shifts, 0, 1))
    return arms


def test_image_comparison_by_hand():
    arm = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], bool)
    baseline = np.array([[1, 0, 0, 0], [1, 0, 0, 0]], bool)
    result = image_comparison(arm, baseline)
    # differences averaged over the two seeds 0, 100, 50, 50: mean 50, s = √(5000/3), t quantile 3.182446
    error = math.sqrt(5000 / 3) / 2
    assert result["image_interval_pp"] == pytest.approx([50 - 3.182446305 * error, 50 + 3.182446305 * error])
    assert result["image_p_value"] == pytest.approx(2 * stats.t.sf(50 / error, 3))
    assert result["image_tost_p"] == pytest.approx(stats.t.sf((0.15 - 50) / error, 3))
    assert result["image_decision"] == "inconclusive"


def test_image_comparison_decides_by_the_rules_of_the_seed_comparison():
    decisions = set()
    for shift in (-0.02, 0, 0.02):
        generator = np.random.default_rng(0)
        arm, baseline = generator.random((5, 2000)) < 0.9 + shift, generator.random((5, 2000)) < 0.9
        result = image_comparison(arm, baseline)
        differences = 100 * (arm.mean(0) - baseline.mean(0))
        assert result["image_tost_p"] == pytest.approx(equivalence_p(differences))
        assert result["image_decision"] == decide(
            differences.mean(), mean_interval(differences), equivalence_p(differences)
        )
        decisions.add(result["image_decision"])
    assert decisions == {"superior", "inferior", "inconclusive"}


def test_swapping_the_arms_only_turns_the_sign():
    one, other = simulated_correctness(np.random.default_rng(0), 4, 50, 0.02, 0.1)
    forth, back = image_comparison(one, other), image_comparison(other, one)
    assert forth["image_interval_pp"] == pytest.approx([-end for end in reversed(back["image_interval_pp"])])
    assert forth["image_p_value"] == pytest.approx(back["image_p_value"])
    assert crossed_interval(one, other) == pytest.approx([-end for end in reversed(crossed_interval(other, one))])


def test_no_runs_and_single_images_support_nothing():
    empty = np.zeros((0, 5), bool)
    assert image_comparison(empty, empty) == dict.fromkeys(KEYS)
    assert image_comparison(np.ones((3, 1), bool), np.zeros((3, 1), bool)) == dict.fromkeys(KEYS)
    assert crossed_interval(empty, empty) is None
    assert crossed_interval(np.ones((1, 5), bool), np.zeros((1, 5), bool)) is None
    assert crossed_interval(np.ones((3, 1), bool), np.zeros((3, 1), bool)) is None


@pytest.mark.parametrize(("right", "p", "tost_p", "decision"), [(False, 1, 0, "equivalent"), (True, 0, 1, "superior")])
def test_equal_differences_on_all_images_give_the_limits(right, p, tost_p, decision):
    arm, baseline = np.full((3, 4), right), np.zeros((3, 4), bool)
    mean = 100.0 * right
    assert image_comparison(arm, baseline) == dict(zip(KEYS, ([mean, mean], p, tost_p, decision), strict=True))
    assert crossed_interval(arm, baseline) == [mean, mean]


def test_results_are_plain_json():
    arm, baseline = simulated_correctness(np.random.default_rng(0), 3, 40, 0.02, 0.1)
    result = image_comparison(arm, baseline) | {
        "both": crossed_interval(arm, baseline),
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    values = [item for value in result.values() for item in (value if isinstance(value, list) else [value])]
    assert {type(value) for value in values} == {float, str}


@pytest.mark.parametrize("compare", [image_comparison, crossed_interval])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (1, 4), (3, 1)])
def test_runs_or_images_without_a_partner_are_refused(compare, shape):
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(np.ones((3, 4), bool), np.zeros(shape, bool))


def test_crossed_interval_uses_the_mean_squares_of_a_two_way_analysis_of_variance():
    generator = np.random.default_rng(0)
    arm = generator.random((4, 9)) < np.add.outer([0.9, 0.3, 0.8, 0.5], [0.4, -0.4, 0.3] * 3)
    baseline = generator.random((4, 9)) < 0.2
    differences = 100.0 * (arm.astype(int) - baseline)
    table = pd.DataFrame(differences).rename_axis("seed").reset_index().melt("seed", var_name="image")
    squares = anova_lm(ols("value ~ C(seed) + C(image)", table.astype(float)).fit())["mean_sq"]
    signed = squares * [1, 1, -1]
    assert signed.sum() > squares[:2].max()  # no component is estimated below 0
    freedom = signed.sum() ** 2 / (squares**2 / [3, 8, 24]).sum()
    half_width = stats.t.ppf(0.975, freedom) * math.sqrt(signed.sum() / 36)
    mean = differences.mean()
    assert crossed_interval(arm, baseline) == pytest.approx([mean - half_width, mean + half_width])


def test_crossed_interval_of_runs_that_are_alike_is_the_image_interval():
    arm, baseline = np.random.default_rng(0).random((2, 30)) < [[0.7], [0.5]]
    interval = mean_interval(100.0 * (arm.astype(int) - baseline))
    # Identical runs leave nothing but images: no seed and no residual mean square.
    assert crossed_interval(np.tile(arm, (6, 1)), np.tile(baseline, (6, 1))) == pytest.approx(interval)


def test_crossed_interval_of_images_that_are_alike_is_the_seed_interval():
    arm, baseline = np.array([True, False, True, True]), np.array([False, False, False, True])
    interval = mean_interval(100.0 * (arm.astype(int) - baseline))
    assert crossed_interval(np.tile(arm[:, None], 20), np.tile(baseline[:, None], 20)) == pytest.approx(interval)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_crossed_interval_is_never_narrower_than_the_image_interval(n):
    generator = np.random.default_rng(n)
    for _ in range(60):
        arm, baseline = simulated_correctness(generator, n, 100, 0, 0)
        assert np.ptp(crossed_interval(arm, baseline)) > 0.9999 * np.ptp(
            image_comparison(arm, baseline)["image_interval_pp"]
        )


def test_image_interval_holds_on_new_images_where_the_seed_interval_does_not():
    generator, studies = np.random.default_rng(0), 600
    missed = {"seeds": 0, "images": 0, "both": 0}
    for _ in range(studies):
        arm, baseline = simulated_correctness(generator, 10, 400, 0, 0.1)
        intervals = {
            "seeds": mean_interval(100 * (arm.mean(1) - baseline.mean(1))),
            "images": image_comparison(arm, baseline)["image_interval_pp"],
            "both": crossed_interval(arm, baseline),
        }
        for name, (low, high) in intervals.items():
            missed[name] += not low <= 0 <= high
    tolerance = 3 * math.sqrt(0.95 * 0.05 / studies)
    assert missed["images"] / studies == pytest.approx(0.05, abs=tolerance)
    assert 0.01 < missed["both"] / studies < 0.05 + tolerance
    assert missed["seeds"] > 2 * missed["images"]


@pytest.mark.parametrize(
    ("n", "seed_spread", "image_spread"), [(3, 0.05, 0.0), (5, 0.02, 0.1), (10, 0.05, 0.1), (20, 0.02, 0.1)]
)
def test_crossed_interval_covers_for_new_seeds_and_new_images(n, seed_spread, image_spread):
    generator, studies = np.random.default_rng(n), 1000
    covered = 0
    for _ in range(studies):
        low, high = crossed_interval(*simulated_correctness(generator, n, 200, seed_spread, image_spread))
        covered += low <= 0 <= high
    assert covered / studies == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / studies))
