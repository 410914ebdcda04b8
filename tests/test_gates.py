import copy

import numpy as np
import pytest
import torch
from sklearn.feature_selection import f_classif
from torch.nn import functional

from lib import training
from lib.batches import Normalise
from lib.gates import (
    class_mean_gates,
    derangement,
    gate_statistics,
    gated_blocks,
    intervened,
    interventions,
    record_gates,
)
from lib.models import SEGate, build_model
from lib.training import Trainer

BLOCKS = [f"block{number}" for number in range(1, 9)]
SE_PLACEMENTS = ["se_resnet18", "se_skip_resnet18"]
COMPUTED_GATES = [*SE_PLACEMENTS, "static_gate_resnet18"]


@pytest.fixture
def make_trained(make_config, dataset):
    """Builds a trainer after one epoch; noise on its gates makes images and channels differ visibly."""

    def make(architecture="se_resnet18"):
        config = make_config(architecture=architecture, reduction=1, epochs=1, warmup_epochs=0)
        trainer = Trainer(
            config, build_model(config, 10), dataset.train_images, dataset.train_labels, torch.device("cpu"), "fp32"
        )
        trainer.train_epoch()
        generator = torch.Generator().manual_seed(0)
        for name, parameter in trainer.model.named_parameters():
            if ".gate." in name:
                with torch.no_grad():
                    parameter += 3 * torch.randn(parameter.shape, generator=generator)
        return trainer

    return make


def gates_by_hand(model, images):
    """Gates of every block and the logits in one batch, from the blocks' parts put together here."""
    gates = {}
    with torch.no_grad():
        x = torch.relu(model.bn1(model.conv1(Normalise()(torch.from_numpy(images)))))
        for name, block in zip(BLOCKS, model.blocks, strict=True):
            residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
            skip = block.shortcut(x)
            gates[name] = block.gate.gate(skip if block.gate_on_skip else residual)
            factors = gates[name][:, :, None, None]
            x = torch.relu(residual + skip * factors if block.gate_on_skip else residual * factors + skip)
        return gates, model.fc(x.mean((2, 3)))


def random_gates(trainer, images, seed=0):
    rng = np.random.default_rng(seed)
    recorded = record_gates(trainer.model, trainer.predict, images)
    return {block: rng.random(gates.shape, dtype=np.float32) for block, gates in recorded.items()}


def hooks_left(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("architecture", COMPUTED_GATES)
def test_recorded_gates_are_those_of_a_pass_by_hand(make_trained, dataset, architecture):
    trainer = make_trained(architecture)
    recorded = record_gates(trainer.model, trainer.predict, dataset.test_images)
    expected, logits = gates_by_hand(trainer.model, dataset.test_images)
    np.testing.assert_allclose(trainer.predict(dataset.test_images), logits, rtol=1e-4, atol=1e-5)
    assert list(recorded) == BLOCKS
    for block, gates in recorded.items():
        assert gates.dtype == np.float32
        np.testing.assert_allclose(gates, expected[block], rtol=1e-4, atol=1e-5)


def test_recorded_gates_do_not_depend_on_the_batch_size(make_trained, dataset, monkeypatch):
    trainer = make_trained()
    whole = record_gates(trainer.model, trainer.predict, dataset.test_images)
    monkeypatch.setattr(training, "PREDICTION_BATCH", 7)
    for block, gates in record_gates(trainer.model, trainer.predict, dataset.test_images).items():
        assert whole[block].std(0).max() > 1e-3
        np.testing.assert_allclose(gates, whole[block], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet18", "half_scale_resnet18"])
def test_network_without_computed_gates_has_none_to_record(make_trained, dataset, architecture):
    trainer = make_trained(architecture)
    assert gated_blocks(trainer.model) == {}
    assert record_gates(trainer.model, trainer.predict, dataset.test_images) == {}
    rows = interventions(trainer.model, trainer.predict, dataset.test_images, dataset.test_labels, {})
    assert [row["intervention"] for row in rows] == ["none"]


@pytest.mark.parametrize("batch", [7, 500])
@pytest.mark.parametrize("architecture", COMPUTED_GATES)
def test_gates_replaced_by_themselves_change_nothing(make_trained, dataset, monkeypatch, architecture, batch):
    monkeypatch.setattr(training, "PREDICTION_BATCH", batch)
    trainer = make_trained(architecture)
    clean = trainer.predict(dataset.test_images)
    recorded = record_gates(trainer.model, trainer.predict, dataset.test_images)
    np.testing.assert_allclose(
        intervened(trainer.model, trainer.predict, dataset.test_images, recorded), clean, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("architecture", COMPUTED_GATES)
def test_gates_replaced_by_ones_give_the_plain_network(make_config, make_trained, dataset, architecture):
    trainer = make_trained(architecture)
    plain = build_model(make_config(architecture="resnet18"), 10).eval()
    shared = {name: value for name, value in trainer.model.state_dict().items() if ".gate." not in name}
    plain.load_state_dict(shared)
    with torch.no_grad():
        expected = plain(Normalise()(torch.from_numpy(dataset.test_images)))
    ones = {
        block: np.ones_like(gates)
        for block, gates in record_gates(trainer.model, trainer.predict, dataset.test_images).items()
    }
    clean = trainer.predict(dataset.test_images)
    assert np.abs(clean - expected.numpy()).max() > 0.01
    np.testing.assert_allclose(
        intervened(trainer.model, trainer.predict, dataset.test_images, ones), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("blocks", [["block3"], ["block1", "block8"], BLOCKS])
@pytest.mark.parametrize("architecture", SE_PLACEMENTS)
def test_each_image_gets_its_own_replacement(make_trained, dataset, monkeypatch, architecture, blocks):
    trainer = make_trained(architecture)
    replacements = {
        block: gates for block, gates in random_gates(trainer, dataset.test_images).items() if block in blocks
    }
    by_hand = copy.deepcopy(trainer.model)
    expected = []
    for index in range(len(dataset.test_images)):
        for block, gates in replacements.items():
            row = torch.from_numpy(gates[index])
            by_hand.blocks[BLOCKS.index(block)].gate.gate = lambda x, row=row: row[None]
        expected.append(gates_by_hand(by_hand, dataset.test_images[index : index + 1])[1])
    monkeypatch.setattr(training, "PREDICTION_BATCH", 7)
    logits = intervened(trainer.model, trainer.predict, dataset.test_images, replacements)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_replacements_for_another_number_of_images_are_refused(make_trained, dataset):
    trainer = make_trained()
    with pytest.raises(ValueError, match="block2: 1 rows of gates for 40 images"):
        intervened(trainer.model, trainer.predict, dataset.test_images, {"block2": np.ones((1, 4), np.float32)})


def test_network_and_gradients_are_left_as_they_were(make_trained, dataset):
    trainer = make_trained()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    tracked = []

    def predict(images):
        tracked.append(torch.is_grad_enabled())
        return trainer.predict(images)

    record_gates(trainer.model, predict, dataset.test_images)
    intervened(trainer.model, predict, dataset.test_images, random_gates(trainer, dataset.test_images))
    assert tracked == [False, False]
    assert torch.is_grad_enabled()
    assert hooks_left(trainer.model) == 0
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_hooks_are_gone_after_an_error(make_trained, dataset):
    trainer = make_trained()
    replacements, hooked = random_gates(trainer, dataset.test_images), []

    def fail(images):
        hooked.append(hooks_left(trainer.model))
        trainer.predict(images)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        record_gates(trainer.model, fail, dataset.test_images)
    with pytest.raises(RuntimeError, match="out of memory"):
        intervened(trainer.model, fail, dataset.test_images, replacements)
    with pytest.raises(KeyError, match="block9"):
        intervened(trainer.model, fail, dataset.test_images, replacements | {"block9": replacements["block8"]})
    assert hooked == [8, 8]
    assert hooks_left(trainer.model) == 0


def loss_and_accuracy(logits, labels):
    logits, labels = torch.as_tensor(logits, dtype=torch.float64), torch.from_numpy(labels).long()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return pytest.approx({"accuracy": accuracy, "loss": functional.cross_entropy(logits, labels).item()}, rel=1e-4)


def test_rows_of_interventions_equal_networks_changed_by_hand(make_trained, dataset, monkeypatch):
    trainer, images, labels = make_trained(), dataset.test_images, dataset.test_labels
    recorded = {block: gates.numpy() for block, gates in gates_by_hand(trainer.model.eval(), images)[0].items()}
    rng = np.random.default_rng(1)
    mean_gates = {block: rng.random(gates.shape[1]) for block, gates in recorded.items()}
    rows = interventions(trainer.model, trainer.predict, images, labels, mean_gates)
    assert [(row["intervention"], row["block"]) for row in rows] == [
        ("none", "none"),
        *(("mean", block) for block in [*BLOCKS, "all"]),
        *(("shuffled", block) for block in [*BLOCKS, "all"]),
    ]
    assert len({row["loss"] for row in rows}) == len(rows)
    others = derangement(len(images))
    for row in rows:
        by_hand = copy.deepcopy(trainer.model).eval()
        for block in BLOCKS if row["block"] == "all" else [row["block"]] * (row["block"] != "none"):
            mean, shuffled = (mean_gates[block].astype(np.float32)[None], recorded[block][others])
            values = torch.from_numpy(mean if row["intervention"] == "mean" else shuffled)
            by_hand.blocks[BLOCKS.index(block)].gate.gate = lambda x, values=values: values.expand(len(x), -1)
        expected = loss_and_accuracy(gates_by_hand(by_hand, images)[1], labels)
        assert {name: row[name] for name in ("accuracy", "loss")} == expected, row


def test_interventions_leave_a_static_gate_as_it_is(make_trained, dataset):
    trainer = make_trained("static_gate_resnet18")
    recorded = record_gates(trainer.model, trainer.predict, dataset.test_images)
    mean_gates = {block: gates.mean(0) for block, gates in recorded.items()}
    clean, *rows = interventions(trainer.model, trainer.predict, dataset.test_images, dataset.test_labels, mean_gates)
    assert len(rows) == 18
    for row in rows:
        assert (row["accuracy"], row["loss"]) == (clean["accuracy"], pytest.approx(clean["loss"], rel=1e-5))


@pytest.mark.parametrize("n", [2, 3, 10, 10_000])
def test_derangement_moves_everything_and_loses_nothing(n):
    permutation = derangement(n)
    assert sorted(permutation) == list(range(n))
    assert not (permutation == np.arange(n)).any()
    np.testing.assert_array_equal(derangement(n), permutation)


def test_derangement_of_one_is_refused():
    with pytest.raises(ValueError, match="without fixed points"):
        derangement(1)


def test_statistics_of_a_worked_example():
    # channel 1: class means 0.1 and 0.5 around 0.3, within ±0.05; channel 2: 0.93 and 0.95 in both classes
    gates = np.array([[0.05, 0.93], [0.15, 0.95], [0.45, 0.93], [0.55, 0.95]])
    result = gate_statistics(gates, np.array([0, 0, 1, 1]))
    between, total = 4 * 0.2**2, 4 * (0.2**2 + 0.05**2) + 4 * 0.01**2
    assert result["eta_squared"] == pytest.approx(between / total)
    assert result["mean"] == pytest.approx((0.3 + 0.94) / 2)
    assert result["sd_channels"] == pytest.approx((0.94 - 0.3) / 2)
    assert result["sd_images"] == pytest.approx((np.sqrt(0.2**2 + 0.05**2) + 0.01) / 2)
    assert result["share_below_0.1"] == 1 / 8
    assert result["share_above_0.9"] == 4 / 8


def test_eta_squared_agrees_with_the_f_test_of_each_channel():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 7], 200)
    gates = rng.random((200, 6)) * np.linspace(0.1, 1, 6) + 0.1 * labels[:, None] * rng.random(6)
    f = f_classif(gates, labels)[0]
    eta = 3 * f / (3 * f + 200 - 4)
    expected = np.average(eta, weights=gates.var(0))
    assert gate_statistics(gates, labels)["eta_squared"] == pytest.approx(expected)


def test_gates_that_follow_from_the_class_have_all_their_variance_between_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    result = gate_statistics(rng.random((10, 16), dtype=np.float32)[labels], labels)
    assert result["eta_squared"] == pytest.approx(1)
    assert result["eta_squared_null_95"] < 0.05


def test_gates_that_know_nothing_of_the_class_lie_within_the_null():
    rng = np.random.default_rng(0)
    labels, gates = rng.integers(0, 10, 1000), rng.random((1000, 16), dtype=np.float32)
    result = gate_statistics(gates, labels, permutations=200)
    # under permutation the expected share is (classes − 1) / (images − 1), whatever the gates
    assert result["eta_squared_null"] == pytest.approx(9 / 999, rel=0.03)
    assert result["eta_squared_null"] < result["eta_squared_null_95"] < 1.5 * result["eta_squared_null"]
    assert 0.5 * result["eta_squared_null"] < result["eta_squared"] < 1.5 * result["eta_squared_null"]


def test_null_is_the_same_each_time_and_leaves_its_input_alone():
    rng = np.random.default_rng(0)
    labels, gates = rng.integers(0, 10, 100), rng.random((100, 3))
    copies = labels.copy(), gates.copy()
    assert gate_statistics(gates, labels) == gate_statistics(gates, labels)
    np.testing.assert_array_equal(labels, copies[0])
    np.testing.assert_array_equal(gates, copies[1])


def test_percentile_of_the_null_is_that_of_the_permutations():
    rng = np.random.default_rng(0)
    labels, gates = rng.integers(0, 4, 60), rng.random((60, 1))
    results = [gate_statistics(gates, labels, permutations) for permutations in (1, 2)]
    first = results[0]["eta_squared_null"]
    second = 2 * results[1]["eta_squared_null"] - first
    low, high = sorted((first, second))
    assert results[1]["eta_squared_null_95"] == pytest.approx(low + 0.95 * (high - low))


def test_static_gate_varies_over_channels_but_not_over_images(make_trained, dataset):
    trainer = make_trained("static_gate_resnet18")
    for gates in record_gates(trainer.model, trainer.predict, dataset.test_images).values():
        result = gate_statistics(gates, dataset.test_labels)
        assert result["sd_images"] == 0
        assert result["sd_channels"] > 0.05
        assert [result[f"eta_squared{name}"] for name in ("", "_null", "_null_95")] == [None] * 3


@pytest.mark.parametrize("images", [3, 1017, 10_000])
def test_constant_gates_have_no_variance_however_many_images(images):
    gates = np.broadcast_to(np.array([0.1, 0.3, 0.7, 1e-6], np.float32), (images, 4))
    result = gate_statistics(gates, np.arange(images) % 10)
    assert (result["sd_images"], result["eta_squared"], result["eta_squared_null"]) == (0, None, None)


def test_mean_gates_of_the_classes():
    gates = np.array([[0.1, 0.2], [0.5, 0.4], [0.3, 0.9]], np.float32)
    means = class_mean_gates(gates, np.array([2, 2, 0], np.uint8), 4)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, [[0.3, 0.9], [np.nan] * 2, [0.3, 0.3], [np.nan] * 2], rtol=1e-6)


def test_only_gates_that_are_computed_count_as_gates(make_config):
    blocks = gated_blocks(build_model(make_config(), 10))
    assert list(blocks) == BLOCKS
    assert all(isinstance(module, SEGate) for module in blocks.values())
