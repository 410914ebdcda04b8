import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.batches import Normalise, plan_epoch
from lib.errors import StudyError
from lib.models import build_model
from lib.training import Trainer, learning_rate_at

CPU = torch.device("cpu")
normalise = Normalise()


@pytest.fixture
def make_trainer(make_config, dataset):
    """Builds a trainer of the tiny run; `images` takes the first so many, `model` replaces the network."""

    def make(images=96, model=None, precision="fp32", **changes):
        config = make_config(**changes)
        model = model or build_model(config, 10)
        return Trainer(config, model, dataset.train_images[:images], dataset.train_labels[:images], CPU, precision)

    return make


class Oracle(nn.Module):
    """Reads the class of an image off its first pixel, which holds ten times the label."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        zero = normalise(torch.zeros(1, 1, 1, 3, dtype=torch.uint8))[0, 0]
        ten = normalise(torch.full((1, 1, 1, 3), 10, dtype=torch.uint8))[0, 0]
        labels = ((x[:, 0, 0, 0] - zero) / (ten - zero)).flatten().round().long()
        return 10 * functional.one_hot(labels, 10) + self.offset


def labelled_images(labels):
    return np.broadcast_to((10 * labels)[:, None, None, None], (len(labels), 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("step", "steps", "warmup", "expected"),
    [
        (0, 100, 10, 0.01),
        (4, 100, 10, 0.05),
        (9, 100, 10, 0.1),
        (10, 100, 10, 0.1),
        (55, 100, 10, 0.05),
        (100, 100, 10, 0.0),
        (40, 100, 10, 0.1 * 0.75),
        (0, 100, 0, 0.1),
        (50, 100, 0, 0.05),
        (99, 100, 100, 0.1),
        (0, 1, 0, 0.1),
    ],
)
def test_learning_rate_worked_examples(step, steps, warmup, expected):
    assert learning_rate_at(step, steps, warmup, 0.1) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1, 2.5, 3.9, 20])
def test_learning_rate_rises_to_the_peak_and_then_falls(warmup):
    rates = [learning_rate_at(step, 20, warmup, 0.1) for step in range(20)]
    highest = rates.index(max(rates))
    assert max(rates) <= 0.1
    assert rates[:highest] == sorted(rates[:highest])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)
    assert min(rates) > 0


def slow_batch(dataset, plan, step, padding):
    """A batch and its labels, one image at a time in numpy."""
    rows = zip(*(values[step].tolist() for values in (plan.order, plan.top, plan.left, plan.flip)), strict=True)
    crops, labels = [], []
    for index, top, left, flip in rows:
        padded = np.pad(dataset.train_images[index], ((padding,) * 2, (padding,) * 2, (0, 0)), mode="reflect")
        crop = padded[top : top + 32, left : left + 32]
        crops.append(crop[:, ::-1] if flip else crop)
        labels.append(int(dataset.train_labels[index]))
    pixels = np.stack(crops) / 255
    pixels = (pixels - (0.4914, 0.4822, 0.4465)) / (0.2470, 0.2435, 0.2616)
    return torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32), torch.tensor(labels)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_updates_equal_nesterov_momentum_and_weight_decay_by_hand(make_trainer, dataset, momentum):
    trainer = make_trainer(momentum=momentum, weight_decay=0.01, learning_rate=0.05, epochs=2)
    model = copy.deepcopy(trainer.model)
    velocities = [torch.zeros_like(parameter) for parameter in model.parameters()]
    rates = [0.05 / 3, 0.1 / 3, 0.05]
    plan, losses = plan_epoch(trainer.config, 0, 96), []
    for step, rate in enumerate(rates):
        images, labels = slow_batch(dataset, plan, step, padding=4)
        loss = functional.cross_entropy(model(images), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, gradient, velocity in zip(model.parameters(), gradients, velocities, strict=True):
                decayed = gradient + 0.01 * parameter
                velocity.mul_(momentum).add_(decayed)
                parameter -= rate * (decayed + momentum * velocity)
    row = trainer.train_epoch()
    assert row["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert row["learning_rate"] == pytest.approx(0.05)
    for (name, mine), expected in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_weight_decay_acts_on_every_parameter(make_trainer):
    optimizer = make_trainer(weight_decay=0.02).optimizer
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02]
    assert len(optimizer.param_groups[0]["params"]) == len(list(make_trainer().model.parameters()))


def test_loss_falls_and_accuracy_rises(make_trainer):
    trainer = make_trainer(epochs=8, learning_rate=0.05, horizontal_flip=False, crop_padding=0, architecture="resnet18")
    rows = [trainer.train_epoch() for _ in range(8)]
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] > rows[0]["train_accuracy"]


def test_rows_count_epochs_and_images(make_trainer):
    trainer = make_trainer(images=70)
    rows = [trainer.train_epoch(), trainer.train_epoch()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["images_per_second"] * rows[0]["train_seconds"] == pytest.approx(64)


def test_learning_rate_follows_the_schedule_over_the_epochs(make_trainer):
    trainer = make_trainer(epochs=4, warmup_epochs=1.0, learning_rate=0.1)
    rates = [trainer.train_epoch()["learning_rate"] for _ in range(4)]
    cosines = [math.cos(math.pi * step / 9) for step in (2, 5, 8)]
    assert rates == pytest.approx([0.1, *(0.05 * (1 + cosine) for cosine in cosines)])


def test_images_reach_the_network_with_their_own_labels(make_config):
    labels = np.random.default_rng(0).integers(0, 10, 96).astype(np.uint8)
    trainer = Trainer(make_config(), Oracle(), labelled_images(labels), labels, CPU, "fp32")
    assert trainer.train_epoch()["train_accuracy"] == 1.0


def test_predictions_keep_the_order_of_the_images(make_config):
    labels = np.random.default_rng(0).integers(0, 10, 1203).astype(np.uint8)
    trainer = Trainer(make_config(), Oracle(), labelled_images(labels[:96]), labels[:96], CPU, "fp32")
    np.testing.assert_array_equal(trainer.predict(labelled_images(labels)).argmax(1), labels)


def test_predictions_are_the_evaluated_network_without_augmentation(make_trainer, dataset):
    trainer = make_trainer()
    trainer.train_epoch()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    logits = trainer.predict(dataset.test_images)
    with torch.no_grad():
        expected = trainer.model.eval()(normalise(torch.from_numpy(dataset.test_images)))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_training_after_a_prediction_uses_batch_statistics_again(make_trainer, dataset):
    one, other = make_trainer(), make_trainer()
    other.predict(dataset.test_images)
    assert one.train_epoch()["train_loss"] == other.train_epoch()["train_loss"]


def test_loss_that_is_not_finite_names_the_learning_rate(make_trainer):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.Linear(32, 10))
    trainer = make_trainer(model=model, learning_rate=100.0, epochs=20, warmup_epochs=0)
    with pytest.raises(StudyError, match="the training loss is (nan|inf) in epoch .*learning_rate"):
        for _ in range(20):
            trainer.train_epoch()


def test_batch_larger_than_the_training_set_is_refused(make_trainer):
    with pytest.raises(StudyError, match="batch_size = 32 is larger than the 31 training images"):
        make_trainer(images=31)


def test_batch_as_large_as_the_training_set_is_one_step(make_trainer):
    assert make_trainer(images=32).steps_per_epoch == 1


def test_label_smoothing_mixes_in_the_mean_over_all_classes(make_trainer, dataset):
    smoothing = 0.3
    trainer = make_trainer(images=32, label_smoothing=smoothing)
    images, labels = slow_batch(dataset, plan_epoch(trainer.config, 0, 32), 0, padding=4)
    with torch.no_grad():
        log_shares = copy.deepcopy(trainer.model)(images).log_softmax(1)
    plain = -log_shares[torch.arange(32), labels].mean().item()
    expected = (1 - smoothing) * plain - smoothing * log_shares.mean().item()
    assert not math.isclose(expected, plain, rel_tol=1e-3)
    assert trainer.train_epoch()["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_to_fp32(make_trainer, precision):
    losses = [
        make_trainer(images=32, precision=name, epochs=1).train_epoch()["train_loss"] for name in ("fp32", precision)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_predictions_are_in_fp32_whatever_the_precision_of_training(make_trainer, dataset, precision):
    exact, other = (make_trainer(precision=name).predict(dataset.test_images) for name in ("fp32", precision))
    np.testing.assert_array_equal(other, exact)


def test_fp16_that_overflows_at_first_leaves_the_network_as_it_was(make_trainer):
    trainer = make_trainer(images=64, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train_epoch()
    assert trainer.scaler.get_scale() == 2.0**58
    assert all(torch.equal(one, other) for one, other in zip(trainer.model.parameters(), before, strict=True))


def test_restored_trainer_goes_on_as_if_nothing_had_happened(make_trainer, dataset):
    whole, first, second = make_trainer(), make_trainer(), make_trainer(seed=0)
    first.train_epoch()
    second.restore(copy.deepcopy(first.state()))
    assert second.epoch == 1
    second.train_epoch()
    whole.train_epoch()
    whole.train_epoch()
    np.testing.assert_array_equal(second.predict(dataset.test_images), whole.predict(dataset.test_images))
