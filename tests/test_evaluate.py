import numpy as np
import pytest
import torch
from conftest import tiny_config
from sklearn.feature_selection import f_classif
from torch.nn import functional

from lib.runs import stored_logits
from lib.train import evaluate as module
from lib.train import trainer as trainer_module
from lib.train.augment import Normalise
from lib.train.models import build_model
from lib.train.trainer import DivergedError, Trainer

BLOCKS = [f"block{number}" for number in range(1, 9)]


@pytest.fixture
def make_trained(dataset):
    """Builds a trainer after one epoch; noise on its gates makes images and channels differ visibly."""

    def make(architecture):
        config = tiny_config(architecture=architecture, reduction=1, epochs=1, warmup_epochs=0, batch_size=16)
        arrays = dataset.train_images, dataset.train_labels
        trainer = Trainer(config, build_model(config, 10), *arrays, torch.device("cpu"), "fp32")
        trainer.train_epoch()
        generator = torch.Generator().manual_seed(0)
        for block in trainer.model.blocks:
            for parameter in block.gate.parameters():
                parameter.data += 3 * torch.randn(parameter.shape, generator=generator)
        return trainer

    return make


@torch.no_grad()
def by_hand(model, images, replaced=None):
    """Logits and gates of every block in one batch, from the blocks' parts; `replaced`: {block: gates (N, C)}."""
    gates, x = {}, torch.relu(model.bn1(model.conv1(Normalise()(torch.from_numpy(images)))))
    for name, block in zip(BLOCKS, model.blocks, strict=True):
        residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        skip = block.shortcut(x)
        gates[name] = block.gate.gate(skip if block.gate_on_skip else residual)
        if name in (replaced or {}):
            gates[name] = torch.tensor(replaced[name], dtype=torch.float32)
        factors = gates[name][:, :, None, None]
        x = torch.relu(residual + skip * factors if block.gate_on_skip else residual * factors + skip)
    return model.fc(x.mean((2, 3))).numpy(), {name: values.numpy() for name, values in gates.items()}


def scored(logits, labels):
    logits, labels = torch.from_numpy(logits).double(), torch.from_numpy(labels.astype(np.int64))
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return {"accuracy": accuracy, "loss": pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-4)}


@pytest.mark.parametrize("batch", [7, 500])
@pytest.mark.parametrize("architecture", ["se_resnet18", "se_skip_resnet18"])
def test_an_evaluation_equals_one_by_hand(make_trained, dataset, monkeypatch, architecture, batch):
    monkeypatch.setattr(trainer_module, "PREDICTION_BATCH", batch)
    trainer, n = make_trained(architecture), 20  # lesion_images of the tiny run
    found = module.evaluate(trainer, dataset)
    logits, gates = by_hand(trainer.model, dataset.test_images)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
    scores = {name: found.scores[f"test_{name}"] for name in ("accuracy", "loss")}
    assert scores == scored(stored_logits(found.logits), dataset.test_labels)
    for block, values in found.gates.items():
        np.testing.assert_allclose(values, gates[block], rtol=1e-4, atol=1e-5)
    images, labels, others = dataset.test_images[:n], dataset.test_labels[:n], module.derangement(n)
    assert sorted(others) == list(range(n)) and not (others == np.arange(n)).any()
    _, training_gates = by_hand(trainer.model, dataset.train_images[:n])
    disturbed = {
        "none": {},
        "mean": {block: np.tile(values.mean(0), (n, 1)) for block, values in training_gates.items()},
        "shuffled": {block: values[:n][others] for block, values in gates.items()},
    }
    for row in found.lesions.itertuples():
        chosen = {b: values for b, values in disturbed[row.lesion].items() if row.block in (b, "all")}
        expected = scored(by_hand(trainer.model, images, chosen)[0], labels)
        assert {"accuracy": row.accuracy, "loss": row.loss} == expected, row
    assert len(found.lesions) == 1 + 2 * 9 and found.lesions["loss"].is_unique
    assert not any(part._forward_hooks for part in trainer.model.modules()) and torch.is_grad_enabled()


def test_lesions_leave_a_static_gate_as_it_is_and_networks_without_gates_have_none(make_trained, dataset):
    found = module.evaluate(make_trained("static_gate_resnet18"), dataset)
    assert len(found.lesions) == 19 and found.lesions["accuracy"].nunique() == 1
    np.testing.assert_allclose(found.lesions["loss"], found.lesions["loss"][0], rtol=1e-5)
    for values in found.gates.values():
        statistics = module.gate_statistics(values, dataset.test_labels)
        assert statistics["sd_images"] == 0 and statistics["sd_channels"] > 0.05 and statistics["eta_squared"] is None
    for architecture in ("resnet18", "half_scale_resnet18"):
        found = module.evaluate(make_trained(architecture), dataset)
        assert found.gates is None and found.lesions is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_logits_that_are_not_finite_as_stored_fail_the_run(make_trained, dataset, value):
    trainer = make_trained("resnet18")
    trainer.model.fc.bias.data[3] = value
    with pytest.raises(DivergedError, match="logits are not finite.*learning_rate"):
        module.evaluate(trainer, dataset)


def test_gate_statistics_of_a_worked_example():
    # channel 1: class means 0.1 and 0.5 around 0.3, within ±0.05; channel 2: 0.93 and 0.95 in both classes
    gates = np.array([[0.05, 0.93], [0.15, 0.95], [0.45, 0.93], [0.55, 0.95]])
    found = module.gate_statistics(gates, np.array([0, 0, 1, 1]))
    expected = {"mean": (0.3 + 0.94) / 2, "sd_channels": (0.94 - 0.3) / 2, "share_below_0.1": 1 / 8}
    expected |= {"sd_images": (np.hypot(0.2, 0.05) + 0.01) / 2, "share_above_0.9": 4 / 8}
    expected["eta_squared"] = 4 * 0.2**2 / (4 * (0.2**2 + 0.05**2) + 4 * 0.01**2)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_eta_squared_agrees_with_the_f_test_of_each_channel():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 7], 200)
    gates = rng.random((200, 6)) * np.linspace(0.1, 1, 6) + 0.1 * labels[:, None] * rng.random(6)
    f = f_classif(gates, labels)[0]
    expected = np.average(3 * f / (3 * f + 200 - 4), weights=gates.var(0))
    assert module.gate_statistics(gates, labels)["eta_squared"] == pytest.approx(expected)


def test_eta_squared_of_gates_that_know_all_or_nothing_of_the_class_or_do_not_vary():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    assert module.gate_statistics(rng.random((10, 16))[labels], labels)["eta_squared"] == pytest.approx(1)
    found = module.gate_statistics(rng.random((1000, 16)), labels, permutations=200)
    # under permutation the expected share is (classes − 1) / (images − 1), whatever the gates
    assert found["eta_squared"] == pytest.approx(9 / 999, rel=0.5)
    assert found["eta_squared_null"] == pytest.approx(9 / 999, rel=0.03)
    constant = np.broadcast_to(np.array([0.1, 0.3, 0.7, 1e-6], np.float32), (1000, 4))
    assert module.gate_statistics(constant, labels)["eta_squared"] is None
