import dataclasses
import types

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from lib.corruptions import CORRUPTIONS, corrupt
from lib.errors import StudyError
from lib.evaluation import corruption_scores, evaluate_on_held_out, evaluate_on_test
from lib.gates import gate_statistics, interventions, record_gates
from lib.lossless import FILE
from lib.models import build_model
from lib.paths import data_folder
from lib.runs import load_logits
from lib.training import Trainer

PROBED = 16
GATED = ["se_resnet18", "static_gate_resnet18"]
PLAIN = ["resnet18", "half_scale_resnet18"]
GATE_FILES = {"gates.csv", "gates.npz", "interventions.csv"}
BLOCKS = [f"block{number}" for number in range(1, 9)]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, make_config, dataset):
    """Trainer, run folder and scores of each architecture after one epoch and its evaluation."""
    found = {}
    for architecture in (*GATED, *PLAIN):
        config = make_config(architecture=architecture, epochs=1, probe_images=PROBED)
        images, labels = dataset.train_images, dataset.train_labels
        trainer = Trainer(config, build_model(config, 10), images, labels, torch.device("cpu"), "fp32")
        trainer.train_epoch()
        folder = tmp_path_factory.mktemp(architecture)
        found[architecture] = trainer, folder, evaluate_on_test(trainer, dataset, folder)
    return found


def made_up(logits):
    """A trainer whose network is asked nothing: it gives these logits for any images."""
    config = types.SimpleNamespace(probe_images=2)
    model = types.SimpleNamespace(blocks=[])
    return types.SimpleNamespace(config=config, model=model, predict=lambda images: logits[: len(images)])


def scored(logits, labels):
    """Accuracy and loss of logits, by torch."""
    logits, labels = torch.from_numpy(logits).double(), torch.from_numpy(labels.astype(np.int64))
    return (logits.argmax(1) == labels).double().mean().item(), functional.cross_entropy(logits, labels).item()


def test_scores_follow_from_the_stored_logits(evaluated, dataset):
    trainer, folder, scores = evaluated["se_resnet18"]
    logits, labels = load_logits(folder)
    np.testing.assert_array_equal(labels, dataset.test_labels)
    np.testing.assert_allclose(logits, trainer.predict(dataset.test_images), rtol=1e-3, atol=1e-3)
    assert (scores["test_accuracy"], scores["test_loss"]) == pytest.approx(scored(logits, labels))


def calibration_error(logits, labels, bins=15):
    """Expected calibration error (Guo et al. 2017, equation 3), one image at a time."""
    members = [[] for _ in range(bins)]
    for row, label in zip(logits.astype(float), labels, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        members[int(np.ceil(shares.max() * bins)) - 1].append((shares.argmax() == label, shares.max()))
    gaps = [
        len(rows) * abs(np.mean([hit for hit, _ in rows]) - np.mean([share for _, share in rows]))
        for rows in members
        if rows
    ]
    return sum(gaps) / len(labels)


def test_calibration_error_equals_a_computation_by_hand(evaluated):
    for _, folder, scores in evaluated.values():
        assert scores["test_ece"] == pytest.approx(calibration_error(*load_logits(folder)), abs=1e-6)


def test_calibration_error_of_a_worked_example(dataset, tmp_path):
    # three images at 0.75, two of them right, and one wrong at 0.5: (3 · |2/3 − 3/4| + 1 · |0 − 1/2|) / 4 = 0.1875
    few = dataclasses.replace(
        dataset, test_images=dataset.test_images[:4], test_labels=np.array([0, 0, 1, 2], np.uint8)
    )
    shares = np.array([[0.75, 0.125, 0.125], [0.75, 0.125, 0.125], [0.75, 0.125, 0.125], [0.5, 0.25, 0.25]])
    scores = evaluate_on_test(made_up(np.log(shares)), few, tmp_path)
    assert scores["test_ece"] == pytest.approx(0.1875, abs=1e-3)  # logits are stored as float16
    assert scores["test_accuracy"] == 0.5


def test_corruption_table_equals_scores_computed_directly(evaluated, dataset):
    trainer, folder, scores = evaluated["se_resnet18"]
    table = pd.read_csv(folder / "corruptions.csv")
    assert list(table.columns) == ["corruption", "severity", "accuracy", "loss"]
    assert list(zip(table["corruption"], table["severity"], strict=True)) == [
        (name, severity) for name in CORRUPTIONS for severity in (1, 2, 3, 4, 5)
    ]
    assert len(table) == 40
    images, labels = dataset.test_images[:PROBED], dataset.test_labels[:PROBED]
    for row in table.itertuples():
        expected = scored(trainer.predict(corrupt(images, row.corruption, row.severity)), labels)
        assert (row.accuracy, row.loss) == pytest.approx(expected), row
    assert scores["corruption_accuracy"] == pytest.approx(table["accuracy"].mean())
    assert table["loss"].nunique() > 30


def test_every_network_sees_the_same_corrupted_images(dataset):
    seen = []
    for _ in range(2):
        corruption_scores(
            lambda images: seen.append(images) or np.zeros((len(images), 10)),
            dataset.test_images[:4],
            dataset.test_labels[:4],
        )
    assert len(seen) == 80
    for one, other in zip(seen[:40], seen[40:], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("architecture", PLAIN)
def test_network_without_gates_writes_no_gate_files(evaluated, architecture):
    assert {path.name for path in evaluated[architecture][1].iterdir()} == {"test_logits.npz", "corruptions.csv"}


@pytest.mark.parametrize("architecture", GATED)
def test_network_with_gates_writes_all_gate_files(evaluated, architecture):
    files = {path.name for path in evaluated[architecture][1].iterdir()}
    assert files == {"test_logits.npz", "corruptions.csv"} | GATE_FILES


@pytest.mark.parametrize("architecture", GATED)
def test_gate_tables_describe_all_test_images(evaluated, dataset, architecture):
    trainer, folder, _ = evaluated[architecture]
    gates = record_gates(trainer.model, trainer.predict, dataset.test_images)
    table = pd.read_csv(folder / "gates.csv").set_index("block")
    assert list(table.index) == BLOCKS
    for block, values in gates.items():
        for name, value in gate_statistics(values, dataset.test_labels).items():
            found = table.loc[block, name]
            assert np.isnan(found) if value is None else found == pytest.approx(value), (block, name)


def test_static_gate_has_no_share_between_classes(evaluated):
    table = pd.read_csv(evaluated["static_gate_resnet18"][1] / "gates.csv")
    assert table["eta_squared"].isna().all() and (table["sd_images"] == 0).all()
    assert not pd.read_csv(evaluated["se_resnet18"][1] / "gates.csv").isna().any(axis=None)


def test_mean_gates_of_each_class_are_kept_without_pickles(evaluated, dataset):
    trainer, folder, _ = evaluated["se_resnet18"]
    gates = record_gates(trainer.model, trainer.predict, dataset.test_images)
    with np.load(folder / "gates.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(BLOCKS)
        for block in BLOCKS:
            expected = [gates[block][dataset.test_labels == label].mean(0) for label in range(10)]
            assert stored[block].dtype == np.float16
            np.testing.assert_allclose(stored[block], expected, atol=1e-3)


def test_interventions_use_the_mean_gates_of_training_images(evaluated, dataset):
    trainer, folder, _ = evaluated["se_resnet18"]
    table = pd.read_csv(folder / "interventions.csv")
    images, labels = dataset.test_images[:PROBED], dataset.test_labels[:PROBED]

    def expected(source):
        gates = record_gates(trainer.model, trainer.predict, source[:PROBED])
        means = {block: values.mean(0) for block, values in gates.items()}
        return pd.DataFrame(interventions(trainer.model, trainer.predict, images, labels, means))

    pd.testing.assert_frame_equal(table, expected(dataset.train_images))
    assert len(table) == 1 + 2 * 9
    assert not table.equals(expected(dataset.test_images))


def test_more_probe_images_than_there_are_means_all(make_config, dataset, tmp_path):
    few = dataclasses.replace(dataset, test_images=dataset.test_images[:6], test_labels=dataset.test_labels[:6])
    config = make_config(architecture="resnet18", probe_images=10_000)
    trainer = Trainer(
        config, build_model(config, 10), dataset.train_images, dataset.train_labels, torch.device("cpu"), "fp32"
    )
    predicted = []
    predict = trainer.predict
    trainer.predict = lambda images: predicted.append(len(images)) or predict(images)
    evaluate_on_test(trainer, few, tmp_path)
    assert predicted == [6] * 41


def test_original_bytes_are_classified_beside_a_copy(evaluated, dataset, tmp_path):
    trainer, _, _ = evaluated["resnet18"]
    copy = dataclasses.replace(dataset, source="cifar10-jpeg")
    indices = np.array([3, 0, 17, 38, 25])
    images = corrupt(dataset.test_images[indices], "jpeg", 5)
    data_folder().mkdir(parents=True)
    np.savez(data_folder() / FILE, images=images, labels=dataset.test_labels[indices], indices=indices)
    scores = evaluate_on_test(trainer, copy, tmp_path)
    with np.load(tmp_path / "lossless_logits.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["indices"], indices)
        np.testing.assert_array_equal(stored["labels"], dataset.test_labels[indices])
        np.testing.assert_allclose(stored["logits"], trainer.predict(images), rtol=1e-3, atol=1e-3)
        assert scores["lossless_accuracy"] == np.mean(stored["logits"].argmax(1) == stored["labels"])


def test_accuracy_on_original_bytes_counts_them_alone(dataset, tmp_path):
    indices, labels = np.arange(5), dataset.test_labels[:5]
    data_folder().mkdir(parents=True)
    np.savez(data_folder() / FILE, images=dataset.test_images[:5], labels=labels, indices=indices)
    logits = np.eye(10, dtype=np.float32)[(dataset.test_labels + 1) % 10]  # all wrong
    logits[[0, 1, 3]] = np.eye(10)[labels[[0, 1, 3]]]
    scores = evaluate_on_test(made_up(logits), dataclasses.replace(dataset, source="cifar10-jpeg"), tmp_path)
    assert (scores["lossless_accuracy"], scores["test_accuracy"]) == (3 / 5, 3 / 40)


def test_without_original_bytes_there_is_no_score_of_them(evaluated, dataset, tmp_path):
    trainer, folder, scores = evaluated["resnet18"]
    assert scores["lossless_accuracy"] is None
    copy = dataclasses.replace(dataset, source="cifar10-jpeg")
    assert evaluate_on_test(trainer, copy, tmp_path)["lossless_accuracy"] is None
    assert not list(folder.glob("lossless*")) + list(tmp_path.glob("lossless*"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_logits_that_cannot_be_stored_are_refused_before_anything_is_written(dataset, tmp_path, value):
    logits = np.zeros((len(dataset.test_images), 10), np.float32)
    logits[7, 3] = value
    with pytest.raises(StudyError, match="test logits are not finite.*learning_rate"):
        evaluate_on_test(made_up(logits), dataset, tmp_path)
    assert not list(tmp_path.iterdir())


def test_held_out_images_have_accuracy_and_loss(dataset):
    logits = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    images, labels = dataset.train_images[:20], dataset.train_labels[:20]
    scores = evaluate_on_held_out(made_up(logits), images, labels)
    assert list(scores) == ["val_accuracy", "val_loss"]
    assert tuple(scores.values()) == pytest.approx(scored(logits, labels))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_held_out_logits_that_are_not_finite_are_refused(dataset, value):
    logits = np.zeros((20, 10), np.float32)
    logits[7, 3] = value
    with pytest.raises(StudyError, match="validation logits are not finite.*learning_rate"):
        evaluate_on_held_out(made_up(logits), dataset.train_images[:20], dataset.train_labels[:20])
