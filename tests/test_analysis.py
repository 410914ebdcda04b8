import json

import numpy as np
import pandas as pd
import pytest

from lib.analysis import (
    READINGS,
    base_arms,
    build_results,
    conclusion,
    cost_table,
    primary_results,
    secondary_results,
    summarise_arms,
)
from lib.study import Study

STUDY = Study("mine", "Two arms", "se_resnet18", "resnet18", ())
IMAGES = 1000


def table(accuracies):
    """Runs with the given test accuracies, {arm: {seed: accuracy}}."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "test_accuracy": accuracy,
            "test_loss": 1 - accuracy,
            "test_ece": 0.1,
            "corruption_accuracy": 0.5,
            "parameters": 100 if arm == "resnet18" else 110,
            "multiply_adds": 1000,
            "train_seconds": 10.0 if arm == "resnet18" else 12.0,
            "data_source": "digits",
            "data_fingerprint": "f" * 64,
        }
        for arm, seeds in accuracies.items()
        for seed, accuracy in seeds.items()
    ]
    return pd.DataFrame(rows)


def hits(accuracies):
    """Correctness (n, IMAGES) with these accuracies: the first images are right."""
    return np.arange(IMAGES) < IMAGES * np.array(accuracies)[:, None]


def primary(accuracies):
    """The primary comparison of runs with these accuracies."""
    runs = table(accuracies)
    seeds = sorted(set(accuracies.get("resnet18", ())) & set(accuracies.get("se_resnet18", ())))
    correct = {arm: hits([by_seed[seed] for seed in seeds]) for arm, by_seed in accuracies.items() if seeds}
    return primary_results(STUDY, runs, correct)


BOTH = {"resnet18": {0: 0.90, 1: 0.92, 2: 0.91}, "se_resnet18": {0: 0.91, 1: 0.94, 3: 0.99}}


def test_results_use_pairs_for_the_difference_and_all_runs_for_the_means():
    results = build_results(STUDY, table(BOTH), primary(BOTH))
    said = results["primary"]
    assert said["n_pairs"] == 2 and said["difference_pp"] == pytest.approx(1.5)
    # t(0.975, 1 df) = 12.706; the standard error of 1 and 2 is 0.5
    assert said["seed_interval_pp"] == pytest.approx([1.5 - 6.353, 1.5 + 6.353], abs=1e-3)
    assert results["arms"]["se_resnet18"]["n_runs"] == 3
    assert results["arms"]["se_resnet18"]["test_accuracy_mean"] == pytest.approx((0.91 + 0.94 + 0.99) / 3)


def test_the_interval_over_images_is_that_of_the_mean_difference_of_each_image():
    said = primary(BOTH)
    # of 1000 images, 10 differ in the first seed, 20 others in the second: means of 50, 50 and 0 points
    differences = np.repeat([50, 0], [30, 970])
    half_width = 1.962341 * differences.std(ddof=1) / 1000**0.5
    assert said["image_interval_pp"] == pytest.approx([1.5 - half_width, 1.5 + half_width], abs=1e-4)


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ({"resnet18": {0: 0.9}}, "No seed has finished both"),
        ({"resnet18": {0: 0.9}, "se_resnet18": {0: 0.91}}, "+1.00 percentage points over 1 paired seed; one pair"),
        (BOTH, "+1.50 percentage points over 2 paired seeds, 95 % interval −4.85 to +7.85 over seeds"),
        (BOTH, "inconclusive (neither a difference nor its absence is shown) on these test images"),
        (BOTH, "no claim is made about new images, since the interval over images leads to another reading."),
        (
            {"resnet18": {0: 0.9, 1: 0.9, 2: 0.9}, "se_resnet18": {0: 0.80, 1: 0.81, 2: 0.79}},
            "−10.00 percentage points over 3 paired seeds, 95 % interval −12.48 to −7.52 over seeds",
        ),
        (
            {"resnet18": {0: 0.9, 1: 0.9, 2: 0.9}, "se_resnet18": {0: 0.80, 1: 0.81, 2: 0.79}},
            "large enough to matter) on these test images, and the same on new images like them.",
        ),
        (
            {arm: dict.fromkeys(range(4), 0.9) for arm in ("resnet18", "se_resnet18")},
            "equivalent (no difference that would matter)",
        ),
    ],
)
def test_conclusion_claims_no_more_than_the_pairs_support(accuracies, said):
    assert said in conclusion(primary(accuracies))
    json.dumps(build_results(STUDY, table(accuracies), primary(accuracies)), allow_nan=False)


def test_every_decision_has_its_words():
    from lib.statistics import decide

    decisions = {decide(*case) for case in [(1, [0.5, 2], 1), (-1, [-2, -0.5], 1), (0.1, [0.05, 0.15], 0)]}
    decisions |= {decide(0, [-0.1, 0.1], 0.01), decide(0, [-1, 1], 0.5), decide(0, None, None)}
    decisions |= {decide(0.14, [0.1, 0.2], 0.5)}
    assert decisions == set(READINGS)


def test_power_is_what_the_observed_spread_allows():
    said = primary(BOTH)
    assert said["sd_difference_pp"] == pytest.approx(0.5**0.5)
    assert said["detectable_difference_pp"] > 3 and said["equivalence_power"] < 0.1


def test_secondary_endpoint_is_the_paired_difference_in_loss():
    said = secondary_results(STUDY, table(BOTH))
    assert said["difference_nats"] == pytest.approx(-0.015) and said["n_pairs"] == 2
    assert said["p_value"] == pytest.approx(0.5)
    assert secondary_results(STUDY, table({"resnet18": {0: 0.9}}))["difference_nats"] is None


def test_what_one_run_cannot_say_is_none():
    arms = build_results(STUDY, table({"resnet18": {0: 0.9}}), {})["arms"]
    assert arms == {
        "resnet18": {"n_runs": 1, "test_accuracy_mean": 0.9, "test_accuracy_sd": None, "parameters": 100},
    }


def test_tables_become_rows_of_plain_values():
    columns = {"x": [1, 2], "y": [0.5, np.nan], "z": [np.float32(1), np.inf]}
    more = pd.DataFrame(columns, index=pd.Index(["a", "b"], name="k"))
    results = build_results(STUDY, table(BOTH), {}, more=more, other={"n": 1})
    assert results["more"] == [{"k": "a", "x": 1, "y": 0.5, "z": 1}, {"k": "b", "x": 2, "y": None, "z": None}]
    assert results["other"] == {"n": 1}


def test_costs_are_relative_to_the_baseline():
    costs = cost_table(table(BOTH), "resnet18")
    assert costs.loc["se_resnet18", "parameters / resnet18"] == "1.1000"
    assert costs.loc["se_resnet18", "train_seconds_median / resnet18"] == "1.2000"


def test_costs_without_the_baseline_are_absolute_only():
    costs = cost_table(table({"se_resnet18": {0: 0.9}}), "resnet18")
    assert list(costs.columns) == ["parameters", "multiply_adds", "train_seconds_median"]


def test_arms_keep_the_order_of_the_study():
    assert list(summarise_arms(table(BOTH)).index) == ["resnet18", "se_resnet18"]


def test_variants_of_a_stage_are_no_arms():
    runs = table({"resnet18": {0: 0.9}, "resnet18__12_epochs": {0: 0.8}})
    assert list(base_arms(runs)["arm"]) == ["resnet18"]
