import itertools
import math
import time
import warnings

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from lib.annotations import Annotations
from lib.images import (
    calibration,
    churn,
    most_different,
    per_image_difference,
    reliability,
    subset_differences,
    uncertainty_subsets,
)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def logits_of(probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


def random_logits(*shape, scale=2.0):
    return np.random.default_rng(0).normal(0, scale, shape).astype(np.float32)


def test_churn_by_hand():
    baseline = np.array([[0, 1, 2, 3], [0, 1, 2, 0]])
    arm = np.array([[0, 1, 0, 0], [0, 1, 2, 0]])
    assert churn(arm, baseline) == {
        "between_arms": 25,  # 2 of 4 images with the first seed, none with the second
        "between_arms_sd": pytest.approx(50 / math.sqrt(2)),
        "between_arms_other_seed": 25,  # arm 0 and baseline 1: 1 of 4; arm 1 and baseline 0: 1 of 4
        "between_arms_other_seed_sd": 0,
        "between_arm_runs": 25,
        "between_arm_runs_sd": None,
        "between_baselines": 25,
        "between_baselines_sd": None,
    }


def test_churn_equals_pairs_compared_one_by_one():
    arm, baseline = np.random.default_rng(0).integers(0, 3, (2, 5, 40))
    pairs = {
        "between_arms": [(arm[i], baseline[i]) for i in range(5)],
        "between_arms_other_seed": [(arm[i], baseline[j]) for i, j in itertools.permutations(range(5), 2)],
        "between_arm_runs": list(itertools.combinations(arm, 2)),
        "between_baselines": list(itertools.combinations(baseline, 2)),
    }
    result = churn(arm, baseline)
    for name, runs in pairs.items():
        shares = [100 * np.mean(one != other) for one, other in runs]
        assert result[name] == pytest.approx(np.mean(shares))
        assert result[f"{name}_sd"] == pytest.approx(np.std(shares, ddof=1))


def test_churn_of_one_pair_of_runs_has_nothing_to_compare_with():
    result = churn([[0, 1]], [[1, 1]])
    assert result.pop("between_arms") == 50
    assert len(result) == 7 and set(result.values()) == {None}


@pytest.mark.parametrize("analysis", [churn, per_image_difference, lambda a, b: subset_differences(a, b, {})])
def test_runs_without_a_partner_are_refused(analysis):
    with pytest.raises(ValueError, match="cannot be paired"):
        analysis(np.ones((2, 4), bool), np.ones((1, 4), bool))


def test_subset_differences_by_hand():
    arm = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], bool)
    baseline = np.array([[1, 0, 0, 0], [1, 1, 0, 1]], bool)
    first_two = np.array([True, True, False, False])
    table = subset_differences(arm, baseline, {"all": np.ones(4, bool), "first": first_two, "none": ~np.ones(4, bool)})
    assert list(table.index) == ["all", "first"] and table.index.name == "subset"
    # t(0.975, 1 df) = 12.706; differences 50 and 0 over all images, so also over the first two
    assert table.loc["all"].tolist() == pytest.approx([4, 75, 50, 25, 25 - 12.7062047 * 25, 25 + 12.7062047 * 25])
    assert table.loc["first"].tolist() == pytest.approx([2, 100, 75, 25, 25 - 12.7062047 * 25, 25 + 12.7062047 * 25])
    assert table["n_images"].dtype == int


def test_one_seed_has_differences_without_intervals():
    table = subset_differences([[True, True]], [[True, False]], {"all": np.ones(2, bool)})
    assert table.loc["all", "difference_pp"] == 50
    assert table.loc["all", ["low_pp", "high_pp"]].isna().all()


def annotations(entropy=None, duplicates=None, label_errors=None):
    """Annotations of 10,000 images from the indices of the marked ones."""
    marks = [None if marked is None else np.isin(np.arange(10_000), marked) for marked in (duplicates, label_errors)]
    return Annotations(entropy, *marks)


def test_subsets_of_marked_images():
    subsets = uncertainty_subsets(annotations(duplicates=[1, 2, 3], label_errors=[3, 4]))
    assert {name: int(members.sum()) for name, members in subsets.items()} == {
        "all": 10_000,
        "without duplicates": 9_997,
        "near-duplicates": 3,
        "without label errors": 9_998,
        "label errors": 2,
        "without duplicates and label errors": 9_996,
    }
    assert np.flatnonzero(~subsets["without duplicates and label errors"]).tolist() == [1, 2, 3, 4]
    assert all(members.dtype == bool and members.shape == (10_000,) for members in subsets.values())


def test_subsets_need_their_annotations():
    assert list(uncertainty_subsets(annotations())) == ["all"]
    assert list(uncertainty_subsets(annotations(label_errors=[0]))) == ["all", "without label errors", "label errors"]


THIRDS = [f"{third} human entropy" for third in ("low", "middle", "high")]


def test_thirds_of_distinct_entropies_are_equal():
    subsets = uncertainty_subsets(annotations(entropy=np.random.default_rng(0).permutation(10_000) / 10_000))
    assert [subsets[name].sum() for name in THIRDS] == [3333, 3333, 3334]


def test_images_of_equal_entropy_stay_together_and_thirds_are_a_partition():
    entropy = np.repeat([0.0, 0.1, 0.9], [4500, 2400, 3100])
    entropy[6500:6900] += 1e-16  # the same entropy, summed in another order
    subsets = uncertainty_subsets(annotations(entropy=entropy[::-1]))
    low, middle, high = (subsets[name][::-1] for name in THIRDS)
    # mean ranks 2250.5, 5700.5 and 8450.5 of 10,000
    assert [low.sum(), middle.sum(), high.sum()] == [4500, 2400, 3100]
    assert entropy[low].max() == 0 and entropy[middle].max() < 0.2 and entropy[high].min() == 0.9
    assert (low.astype(int) + middle + high == 1).all()


def test_difference_of_an_image_is_its_share_of_seeds():
    arm = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1]], bool)
    baseline = np.array([[0, 1, 1], [0, 1, 1], [1, 0, 1]], bool)
    assert per_image_difference(arm, baseline).tolist() == pytest.approx([2 / 3, -1 / 3, -2 / 3])


def test_most_different_images_are_of_both_signs_and_ties_go_by_index():
    assert most_different(np.array([0.1, -0.5, 0.0, 0.5, -0.9, 0.1]), 5).tolist() == [4, 1, 3, 0, 5]
    assert most_different(np.tile([0.0, 0.5, -0.5], 1000), 100).tolist() == [i for i in range(150) if i % 3]


def test_equal_differences_are_ties_whatever_they_were_subtracted_from():
    arm, baseline = np.zeros((2, 10, 3), bool)
    for image, (right_arm, right_baseline) in enumerate([(3, 2), (1, 0), (8, 9)]):
        arm[:right_arm, image] = baseline[:right_baseline, image] = True
    assert most_different(per_image_difference(arm, baseline), 3).tolist() == [0, 1, 2]


def test_calibration_by_hand():
    logits = logits_of([[0.9, 0.05, 0.05], [0.6, 0.2, 0.2], [0.2, 0.7, 0.1]])
    result = calibration(logits, np.array([0, 1, 1]), bins=2)
    # all three confidences, 0.9, 0.6 and 0.7, lie in the upper bin, where 2 of 3 are right
    assert result["ece"] == pytest.approx(abs(2 / 3 - 2.2 / 3))
    assert result["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 3)
    assert result["brier"] == pytest.approx((0.015 + (0.36 + 0.64 + 0.04) + (0.04 + 0.09 + 0.01)) / 3)


@pytest.mark.parametrize("scale", [0.3, 2.0])
@pytest.mark.parametrize("bins", [15, 7])
def test_calibration_error_equals_torchmetrics(scale, bins):
    logits = random_logits(3000, 10, scale=scale)
    labels = np.random.default_rng(1).integers(0, 10, 3000)
    labels[:2000] = logits[:2000].argmax(1)
    expected = MulticlassCalibrationError(num_classes=10, n_bins=bins, norm="l1")
    value = float(expected(torch.from_numpy(logits), torch.from_numpy(labels)))
    assert calibration(logits, labels, bins)["ece"] == pytest.approx(value, abs=1e-6)


def test_loss_and_brier_score_equal_torch():
    logits, labels = random_logits(2000, 10), np.random.default_rng(1).integers(0, 9, 2000)  # one class never occurs
    tensors = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    squares = (tensors[0].softmax(1) - torch.nn.functional.one_hot(tensors[1], 10)).square().sum(1)
    result = calibration(logits, labels)
    assert result["nll"] == pytest.approx(torch.nn.functional.cross_entropy(*tensors).item())
    assert result["brier"] == pytest.approx(squares.mean().item())


def test_brier_score_of_two_classes_sums_over_both():
    assert calibration(logits_of([[0.8, 0.2]]), np.array([1]))["brier"] == pytest.approx(2 * 0.64)


def test_certain_predictions_belong_to_the_last_bin():
    logits = np.array([[200, 0, 0], [0, 200, 0]], np.float32)
    table = reliability(logits[None], np.array([0, 0]))
    assert table.loc[14].tolist() == pytest.approx([1, 0.5, 1])
    assert calibration(logits, np.array([0, 0]))["ece"] == pytest.approx(0.5)


def test_reliability_by_hand_pools_runs():
    runs = [
        logits_of([[0.3, 0.3, 0.4], [0.45, 0.3, 0.25], [0.9, 0.05, 0.05]]),
        logits_of([[0.1, 0.1, 0.8], [0.3, 0.45, 0.25], [0.05, 0.9, 0.05]]),
    ]
    table = reliability(np.stack(runs), np.array([2, 0, 0]), bins=4)
    # bins end at 0.25, 0.5, 0.75 and 1; 0.4, 0.45 and 0.45 fall into the second, 0.9, 0.8 and 0.9 into the last
    assert table["share"].tolist() == [0, 0.5, 0, 0.5]
    assert table["confidence"][[1, 3]].tolist() == pytest.approx([1.3 / 3, 2.6 / 3])
    assert table["accuracy"][[1, 3]].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert table.loc[[0, 2], ["confidence", "accuracy"]].isna().all(axis=None)


def test_confidence_on_an_edge_belongs_to_the_bin_below():
    table = reliability(np.array([[[0, 0, -2000], [0, -2000, 0]]], np.float32), np.array([0, 0]), bins=2)
    assert table["share"].tolist() == [1, 0] and table["confidence"][0] == 0.5


def test_reliability_diagram_holds_the_calibration_error():
    logits, labels = random_logits(1, 2000, 10), np.random.default_rng(1).integers(0, 10, 2000)
    table = reliability(logits, labels)
    gaps = table["share"] * (table["accuracy"] - table["confidence"]).abs()
    assert gaps.sum() == pytest.approx(calibration(logits[0], labels)["ece"])


def test_twenty_runs_of_each_arm_take_a_few_seconds():
    logits, labels = random_logits(20, 10_000, 10), np.random.default_rng(1).integers(0, 10, 10_000)
    predictions, subsets = logits.argmax(2), uncertainty_subsets(annotations(np.zeros(10_000), [1], [2]))
    start = time.process_time()
    churn(predictions, predictions[::-1])
    subset_differences(predictions == labels, predictions[::-1] == labels, subsets)
    reliability(logits, labels)
    for run in logits:
        calibration(run, labels)
    assert time.process_time() - start < 6
