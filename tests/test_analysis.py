import json

import pandas as pd
import pytest

from lib.analysis import build_results, conclusion, cost_table, paired_accuracies, summarise_arms
from lib.study import Study

STUDY = Study("mine", "Two arms", "se_resnet18", "resnet18", ())


def table(accuracies):
    """Runs with the given test accuracies, {arm: {seed: accuracy}}."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "test_accuracy": accuracy,
            "test_loss": 1.0,
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


BOTH = {"resnet18": {0: 0.90, 1: 0.92, 2: 0.91}, "se_resnet18": {0: 0.91, 1: 0.94, 3: 0.99}}


def test_only_seeds_that_both_arms_finished_are_paired():
    pairs = paired_accuracies(table(BOTH), "se_resnet18", "resnet18")
    assert list(pairs.index) == [0, 1] and list(pairs.columns) == ["resnet18", "se_resnet18"]


def test_results_use_pairs_for_the_difference_and_all_runs_for_the_means():
    results = build_results(STUDY, table(BOTH))
    primary = results["primary"]
    assert primary["n_pairs"] == 2 and primary["difference_pp"] == pytest.approx(1.5)
    # t(0.975, 1 df) = 12.706; the standard error of 1 and 2 is 0.5
    assert primary["seed_interval_pp"] == pytest.approx([1.5 - 6.353, 1.5 + 6.353], abs=1e-3)
    assert results["arms"]["se_resnet18"]["n_runs"] == 3
    assert results["arms"]["se_resnet18"]["test_accuracy_mean"] == pytest.approx((0.91 + 0.94 + 0.99) / 3)


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ({"resnet18": {0: 0.9}}, "No seed has finished both"),
        ({"resnet18": {0: 0.9}, "se_resnet18": {0: 0.91}}, "+1.00 percentage points over 1 paired seed; one pair"),
        (BOTH, "+1.50 percentage points over 2 paired seeds, 95 % interval over seeds −4.85 to +7.85, which includes"),
        (
            {"resnet18": {0: 0.9, 1: 0.9, 2: 0.9}, "se_resnet18": {0: 0.80, 1: 0.81, 2: 0.79}},
            "−10.00 percentage points over 3 paired seeds, 95 % interval over seeds −12.48 to −7.52, which excludes",
        ),
    ],
)
def test_conclusion_claims_no_more_than_the_pairs_support(accuracies, said):
    results = build_results(STUDY, table(accuracies))
    assert said in conclusion(results)
    json.dumps(results, allow_nan=False)


def test_what_one_run_cannot_say_is_none():
    arms = build_results(STUDY, table({"resnet18": {0: 0.9}}))["arms"]
    assert arms == {
        "resnet18": {"n_runs": 1, "test_accuracy_mean": 0.9, "test_accuracy_sd": None, "parameters": 100},
    }


def test_costs_are_relative_to_the_baseline():
    costs = cost_table(table(BOTH), "resnet18")
    assert costs.loc["parameters / resnet18", "se_resnet18"] == "1.1000"
    assert costs.loc["train_seconds_median / resnet18", "se_resnet18"] == "1.2000"


def test_costs_without_the_baseline_are_absolute_only():
    costs = cost_table(table({"se_resnet18": {0: 0.9}}), "resnet18")
    assert list(costs.index) == ["parameters", "multiply_adds", "train_seconds_median"]


def test_arms_keep_the_order_of_the_study():
    assert list(summarise_arms(table(BOTH)).index) == ["resnet18", "se_resnet18"]
