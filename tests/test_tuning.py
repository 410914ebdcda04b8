import math

import numpy as np
import pandas as pd
import pytest

from lib.config import config_hash
from lib.errors import StudyError
from lib.paths import run_folder
from lib.runs import read_json, write_json
from lib.studyfile import Tuning
from lib.tuning import cell_label, choose_winners, grid_cells, tie_margin, tuning_scores

ARMS = ("resnet18", "se_resnet18")
RATES = {"learning_rate": [0.05, 0.1, 0.2]}
DEFAULT = {"learning_rate": 0.1}


def tuning_of(grid=RATES, arms=ARMS, seeds=(7, 8)):
    return Tuning(arms, tuple(seeds), 20, grid)


def scores_of(accuracies, arm="resnet18"):
    """A row for each cell and seed from {arm: cells × seeds}, or from the cells × seeds of one arm."""
    tables = accuracies if isinstance(accuracies, dict) else {arm: accuracies}
    rows = [
        {"tuned": tuned, "cell": cell, "seed": 7 + column, "val_accuracy": accuracy, "val_loss": 1.0}
        for tuned, table in tables.items()
        for cell, values in enumerate(table)
        for column, accuracy in enumerate(values)
    ]
    return pd.DataFrame(rows)


def winner(accuracies, default=DEFAULT, grid=RATES):
    """The winning cell of one arm; the rows come in an order that must not matter."""
    shuffled = scores_of(accuracies).sample(frac=1, random_state=0)
    return choose_winners(tuning_of(grid, ("resnet18",)), shuffled, default)["resnet18"]


def test_every_combination_of_the_grid_is_one_cell():
    cells = grid_cells(tuning_of({"learning_rate": [0.05, 0.1, 0.2], "weight_decay": [0.0005, 0.001]}))
    assert len(cells) == 6
    expected = {(rate, decay) for rate in (0.05, 0.1, 0.2) for decay in (0.0005, 0.001)}
    assert {(cell["learning_rate"], cell["weight_decay"]) for cell in cells} == expected


def test_label_of_a_cell_names_the_arm_and_every_setting():
    cell = {"learning_rate": 0.05, "weight_decay": 0.0005, "epochs": 12}
    assert cell_label("se_resnet18", cell) == "tuning__se_resnet18__learning_rate_0.05__weight_decay_0.0005__epochs_12"


def test_best_mean_wins_where_seeds_agree():
    assert winner([[0.90, 0.90], [0.91, 0.91], [0.92, 0.92]]) == {"learning_rate": 0.2}
    assert winner([[0.95, 0.95], [0.91, 0.91], [0.92, 0.92]]) == {"learning_rate": 0.05}


def test_mean_over_seeds_decides_and_not_the_best_seed():
    # means 0.75, 0.30, 0.50; the highest single accuracy is in the last cell; margin √((0 + 0 + 0.32) / 3) = 0.33
    assert winner([[0.75, 0.75], [0.30, 0.30], [0.10, 0.90]]) == {"learning_rate": 0.05}


# The cells' variances are 0.0002, 0.0002 and 0, with n = 2 seeds: margin √(0.0004 / 3 · 2 / 2) = 0.011547
SPREAD = [[0.89, 0.91], [0.80, 0.82]]


def test_margin_of_a_worked_example():
    accuracy = pd.DataFrame([*SPREAD, [0.5, 0.5]])
    assert tie_margin(accuracy) == pytest.approx(math.sqrt(0.0004 / 3), rel=1e-9)


def test_margin_falls_with_the_number_of_seeds():
    # variance of 1, 2, 3, 4 is 5/3: √(5/3 · 2/4)
    assert tie_margin(pd.DataFrame([[1.0, 2.0, 3.0, 4.0]])) == pytest.approx(math.sqrt(5 / 6))


@pytest.mark.parametrize("accuracy", [[[0.5], [0.7]], [[0.5, 0.5], [0.7, 0.7]]])
def test_margin_without_a_spread_is_zero(accuracy):
    assert tie_margin(pd.DataFrame(accuracy)) == 0


@pytest.mark.parametrize(("lead", "expected"), [(0.0115, 0.1), (0.0116, 0.05)])
def test_default_stays_within_the_margin_and_loses_beyond_it(lead, expected):
    default = [0.90 - lead, 0.90 - lead]
    assert winner([SPREAD[0], default, SPREAD[1]]) == {"learning_rate": expected}


def test_margin_is_pooled_over_the_cells_of_the_same_arm_only():
    noisy = [[0.10, 0.90], [0.50, 0.50], [0.90, 0.10]]
    quiet = [[0.901, 0.901], [0.900, 0.900], [0.800, 0.800]]
    winners = choose_winners(tuning_of(), scores_of({"resnet18": quiet, "se_resnet18": noisy}), DEFAULT)
    assert winners == {"resnet18": {"learning_rate": 0.05}, "se_resnet18": {"learning_rate": 0.1}}


def test_exact_tie_goes_to_the_default():
    assert winner([[0.9], [0.9], [0.9]]) == DEFAULT
    assert winner([[0.9], [0.8], [0.9]]) == {"learning_rate": 0.05}


def test_default_outside_the_grid_gives_way_to_the_best():
    noisy = [[0.10, 0.90], [0.50, 0.51], [0.90, 0.10]]
    assert winner(noisy, default={"learning_rate": 0.3}) == {"learning_rate": 0.1}
    assert winner(noisy, default={"learning_rate": 0.2}) == {"learning_rate": 0.2}


def test_cell_of_two_settings_is_the_default_only_with_both():
    grid = {"learning_rate": [0.05, 0.1], "weight_decay": [0.0005, 0.001]}
    noisy = [[0.60, 0.80], [0.50, 0.70], [0.55, 0.75], [0.48, 0.68]]  # margin √0.02 = 0.14
    for rate in (0.05, 0.1):
        for decay in (0.0005, 0.001):
            cell = {"learning_rate": rate, "weight_decay": decay}
            assert winner(noisy, default=cell, grid=grid) == cell
    assert winner(noisy, default={"learning_rate": 0.1, "weight_decay": 1.0}, grid=grid) == {
        "learning_rate": 0.05,
        "weight_decay": 0.0005,
    }


@pytest.fixture
def configs(make_config):
    """The runs of a tuning of two arms, three cells and two seeds, as load_study makes them."""
    tuning = tuning_of()
    return {
        (arm, index, seed): make_config(
            arm=cell_label(arm, cell), architecture=arm, seed=seed, validation_images=20, batch_size=16, **cell
        )
        for arm in ARMS
        for index, cell in enumerate(grid_cells(tuning))
        for seed in tuning.seeds
    }


def finish(config, val_accuracy, val_loss=1.0):
    """Writes what a complete run of the tuning leaves that later steps read."""
    folder = run_folder("mine", config.arm, config.seed)
    summary = {
        "config_hash": config_hash(config.to_dict()),
        "data_source": "digits",
        "data_fingerprint": "f" * 64,
        "precision": "fp32",
        "val_accuracy": val_accuracy,
        "val_loss": val_loss,
        "parameters": 1000,
        "train_seconds": 1.0,
    }
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "summary.json", summary)
    return folder


def test_scores_are_those_of_the_finished_runs(configs):
    assert len(tuning_scores("mine", tuning_of(), configs)) == 0
    finish(configs["resnet18", 2, 8], 0.75, 0.9)
    finish(configs["se_resnet18", 0, 7], 0.5, 1.5)
    scores = tuning_scores("mine", tuning_of(), configs)
    columns = ["tuned", "cell", "learning_rate", "seed", "val_accuracy", "val_loss"]
    assert list(scores.columns) == columns
    assert scores.to_numpy().tolist() == [["resnet18", 2, 0.2, 8, 0.75, 0.9], ["se_resnet18", 0, 0.05, 7, 0.5, 1.5]]


def test_winners_follow_from_run_folders(configs):
    accuracies = {"resnet18": [0.7, 0.8, 0.9], "se_resnet18": [0.9, 0.8, 0.7]}
    for (arm, cell, _), config in configs.items():
        finish(config, accuracies[arm][cell])
    scores = tuning_scores("mine", tuning_of(), configs)
    winners = choose_winners(tuning_of(), scores, DEFAULT)
    assert winners == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.05}}


@pytest.mark.parametrize("missing", ["val_accuracy", "val_loss", "config_hash"])
def test_run_without_validation_scores_is_not_finished(configs, missing):
    folder = finish(configs["resnet18", 0, 7], 0.5)
    summary = read_json(folder / "summary.json") | {"test_accuracy": 0.9, "test_loss": 0.5}
    del summary[missing]
    write_json(folder / "summary.json", summary)
    assert len(tuning_scores("mine", tuning_of(), configs)) == 0


def test_tuning_of_other_settings_is_refused(configs, make_config):
    config = configs["resnet18", 0, 7]
    finish(make_config(**config.to_dict() | {"epochs": 2}), 0.5)
    with pytest.raises(StudyError, match="epochs 2 there, 3 here"):
        tuning_scores("mine", tuning_of(), configs)


def test_preregistered_rule_on_six_cells_and_two_seeds():
    grid = {"learning_rate": [0.05, 0.1, 0.2], "weight_decay": [0.0005, 0.001]}
    generator = np.random.default_rng(3)
    default = {"learning_rate": 0.1, "weight_decay": 0.0005}
    outcomes = set()
    for spread in (0.001, 0.01):
        for _ in range(30):
            table = 0.9 + generator.normal(0, 0.002, (6, 1)) + generator.normal(0, spread, (6, 2))
            means, pairs = table.mean(1), table[:, 0] - table[:, 1]
            pooled_sd = math.sqrt(sum(pair**2 / 2 for pair in pairs) / 6)
            beaten = means.max() - means[2] > pooled_sd * math.sqrt(2 / 2)
            expected = grid_cells(tuning_of(grid))[means.argmax()] if beaten else default
            assert winner(table.tolist(), default, grid) == expected
            outcomes.add(expected == default)
    assert outcomes == {True, False}
