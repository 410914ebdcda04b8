import itertools

import numpy as np
import pytest
from made_runs import make_study, small_study
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import log_loss

from lib.analyse import behaviour
from lib.analyse.results import load_runs
from lib.files import run_folder
from lib.runs import load_table

LABELS = np.arange(20) % 2  # ten images of each of two classes
T_2 = 4.302652729911275  # quantile of Student's t at 0.975, 2 degrees of freedom


def predictions_with(*wrong):
    """Predictions (runs, 20): in each run, (mistakes in class 0, mistakes in class 1)."""
    predictions = np.tile(LABELS, (len(wrong), 1))
    for run, mistakes in zip(predictions, wrong, strict=True):
        for label, count in enumerate(mistakes):
            run[np.flatnonzero(label == LABELS)[:count]] = 1 - label
    return predictions


def test_classes_by_hand():
    arm = predictions_with((0, 1), (1, 1), (2, 1))  # recalls of class 0: 100, 90, 80
    baseline = predictions_with((1, 1), (3, 1), (5, 1))  # 90, 70, 50; class 1: 90 in every run
    table = behaviour.class_table(arm, baseline, LABELS, ["cat", "dog"])
    cat, dog = table.loc["cat"], table.loc["dog"]
    half_width = T_2 * 10 / 3**0.5  # of the differences 10, 20, 30
    assert (cat["arm"], cat["baseline"], cat["n_pairs"]) == (pytest.approx(90), pytest.approx(70), 3)
    assert cat[["difference_pp", "low_pp", "high_pp"]].tolist() == pytest.approx([20, 20 - half_width, 20 + half_width])
    assert dog["difference_pp"] == 0 and dog[["low_pp", "high_pp"]].isna().all()  # equal differences: no interval
    assert not any(name.startswith("p_") for name in table)


def test_confusions_by_hand():
    table = behaviour.confusion_difference(predictions_with((1, 0)), predictions_with((3, 5)), LABELS, ["cat", "dog"])
    assert table.loc["cat"].tolist() == pytest.approx([20, -20])
    assert table.loc["dog"].tolist() == pytest.approx([-50, 50])


@pytest.mark.parametrize(
    ("analysis", "more"),
    [
        (behaviour.churn, ()),
        (behaviour.class_table, (LABELS, ["cat", "dog"])),
        (behaviour.disagreements, (LABELS, 2)),
        (behaviour.confusion_difference, (LABELS, ["cat", "dog"])),
    ],
)
def test_runs_without_a_partner_are_refused(analysis, more):
    with pytest.raises(ValueError, match="cannot be paired"):
        analysis(predictions_with((1, 0), (1, 0)), predictions_with((1, 0)), *more)


def test_churn_equals_pairs_compared_one_by_one():
    arm, baseline = np.random.default_rng(0).integers(0, 3, (2, 5, 40))
    pairs = {
        "same_seed": list(zip(arm, baseline, strict=True)),
        "other_seed": [(arm[i], baseline[j]) for i, j in itertools.permutations(range(5), 2)],
        "within_arm": list(itertools.combinations(arm, 2)),
        "within_baseline": list(itertools.combinations(baseline, 2)),
    }
    expected = {name: 100 * np.mean([np.mean(a != b) for a, b in runs]) for name, runs in pairs.items()}
    assert behaviour.churn(arm, baseline) == pytest.approx(expected)
    alone = behaviour.churn(arm[:1], baseline[:1])
    assert alone["same_seed"] == pytest.approx(100 * np.mean(arm[0] != baseline[0]))
    assert alone["other_seed"] is alone["within_arm"] is alone["within_baseline"] is None


def test_calibration_is_compared_over_runs():
    arm, baseline = np.random.default_rng(0).normal(size=(2, 3, 20, 2)).astype(np.float32)
    human = np.random.default_rng(1).dirichlet([1, 1], 20)
    table = behaviour.calibration_table(arm, baseline, LABELS, human)
    assert table.index.tolist() == ["nll", "brier", "ece", "human_nll"]
    probabilities = [softmax(each.astype(float), -1) for each in (arm, baseline)]
    losses = [[log_loss(LABELS, run) for run in each] for each in probabilities]
    related = stats.ttest_rel(*losses)
    assert table.loc["nll", ["arm", "baseline"]].tolist() == pytest.approx(np.mean(losses, axis=1))
    assert table.loc["nll", "low"] == pytest.approx(related.confidence_interval().low)
    human_losses = [-(human * np.log(run)).sum(1).mean() for run in probabilities[0]]
    assert table.loc["human_nll", "arm"] == pytest.approx(np.mean(human_losses))
    assert "human_nll" not in behaviour.calibration_table(arm, baseline, LABELS).index


def test_images_that_one_arm_gets_right_more_often():
    labels = np.array([0, 1, 2, 3])
    arm = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 5, 2, 3]])
    baseline = np.array([[0, 1, 2, 9], [0, 7, 8, 8], [0, 7, 9, 8]])
    table = behaviour.disagreements(arm, baseline, labels, 10)
    assert table["index"].tolist() == table["label"].tolist() == [3, 2, 1]  # image 0 is right in all runs
    assert table["right_arm"].tolist() == pytest.approx([1, 1, 2 / 3])
    assert table["right_baseline"].tolist() == pytest.approx([0, 1 / 3, 1 / 3])
    assert len(behaviour.disagreements(arm, baseline, labels, 2)) == 2


def test_gates_and_lesions_are_means_over_the_runs_that_have_them(tmp_path):
    make_study(study := small_study(tmp_path), only=lambda config: config.seed < 3)
    runs, folders = load_runs(study), [run_folder(study.name, "se_resnet18", seed) for seed in range(3)]
    tables = [load_table(folder, "gates.csv").set_index("block") for folder in folders]
    spreads = [table.loc["block3", "sd_channels"] for table in tables]
    gates = behaviour.gate_table(study, runs).set_index(["arm", "block"])
    assert not any(arm.startswith("resnet18") for arm, _ in gates.index)
    row = gates.loc[("se_resnet18", "block3")]
    assert (row["n_runs"], row["sd_channels"]) == (3, pytest.approx(np.mean(spreads)))
    assert row["sd_channels_sd"] == pytest.approx(np.std(spreads, ddof=1))

    tables = [load_table(folder, "lesions.csv").set_index(["lesion", "block"])["accuracy"] for folder in folders]
    drops = [100 * (accuracy["none", "none"] - accuracy["shuffled", "all"]) for accuracy in tables]
    table = behaviour.lesion_table(study, runs).set_index(["arm", "lesion", "block"])
    row, test = table.loc[("se_resnet18", "shuffled", "all")], stats.ttest_1samp(drops, 0)
    assert (row["n_runs"], row["drop_pp"]) == (3, pytest.approx(np.mean(drops)))
    assert (row["low_pp"], row["high_pp"]) == pytest.approx(tuple(test.confidence_interval()))


def test_without_gates_the_tables_are_empty(tmp_path):
    make_study(study := small_study(tmp_path), only=lambda config: config.seed < 2 and config.arm == "resnet18")
    runs = load_runs(study)
    assert behaviour.gate_table(study, runs).empty and behaviour.lesion_table(study, runs).empty
