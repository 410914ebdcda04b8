"""The images that a network is trained on, and each step of its training."""

import copy
import math
import shutil
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import tiny_config
from scipy import stats
from torch._subclasses import fake_tensor
from torch.nn import functional
from torchvision import transforms
from torchvision.transforms import functional as transformed

from lib.files import StudyError
from lib.train import trainer as module
from lib.train.augment import MEAN, STD, Normalise, crop_and_flip, pad, plan_epoch
from lib.train.models import ARCHITECTURES, build_model
from lib.train.trainer import DivergedError, Speedups, Trainer

CPU = torch.device("cpu")


def random_images(count, size=32):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def same(one, other):
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def test_plan_is_a_function_of_the_seed_and_the_epoch_alone():
    plan = plan_epoch(tiny_config(), 1, 96)
    other = tiny_config(arm="other", architecture="resnet18", width=0.5, reduction=8, learning_rate=0.3, epochs=9)
    plan_epoch(other, 0, 96)  # an epoch before leaves no trace
    assert all(same(plan, plan_epoch(other, 1, 96)))
    assert not any(same(plan, plan_epoch(tiny_config(seed=1), 1, 96)))
    assert not any(same(plan, plan_epoch(tiny_config(), 0, 96)))
    plain = plan_epoch(tiny_config(crop_padding=0, horizontal_flip=False), 1, 96)
    assert torch.equal(plan.order, plain.order) and not any(choices.any() for choices in plain[1:])


@pytest.mark.parametrize(("count", "used"), [(96, 96), (100, 96), (127, 96), (32, 32)])
def test_each_image_comes_at_most_once_an_epoch_and_others_are_left_out_in_the_next(count, used):
    plans = [plan_epoch(tiny_config(), epoch, count) for epoch in range(3)]
    assert all(choices.shape == (used // 32, 32) and choices.dtype == torch.int64 for choices in plans[0])
    seen = [set(plan.order.flatten().tolist()) for plan in plans]
    assert all(len(each) == used and each <= set(range(count)) for each in seen)
    assert seen[0] != seen[1] or count == used


def test_every_offset_and_flip_is_equally_likely_whatever_the_image():
    plan = plan_epoch(tiny_config(batch_size=500, crop_padding=4), 0, 50_000)
    cells = (plan.top * 9 + plan.left) * 2 + plan.flip
    assert stats.chisquare(np.bincount(cells.flatten(), minlength=162)).pvalue > 0.01
    for choices in plan[1:]:
        assert abs(np.corrcoef(plan.order.flatten(), choices.flatten())[0, 1]) < 0.02


@pytest.mark.parametrize("padding", [0, 4, 31])
def test_crops_and_flips_equal_torchvision(padding):
    images, plan = random_images(5003), plan_epoch(tiny_config(crop_padding=padding), 0, 5003)
    padded, chosen = pad(images, padding), plan.step(2)
    assert padded.dtype == torch.uint8 and set(chosen.flip.tolist()) == {0, 1}
    found = crop_and_flip(padded, *plan.step(2))
    for batch, order, top, left, flip in zip(found, *(choices.tolist() for choices in chosen), strict=True):
        image = images[order].permute(2, 0, 1)
        image = transformed.pad(image, [padding], padding_mode="reflect") if padding else image
        image = transformed.crop(image, top, left, 32, 32)
        image = transformed.hflip(image) if flip else image
        assert torch.equal(batch, image.permute(1, 2, 0))


def test_normalisation_equals_torchvision_with_the_constants_of_cifar10():
    images = random_images(4)
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    batch = Normalise()(images)
    torch.testing.assert_close(batch, torch.stack([reference(image.numpy()) for image in images]))
    assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)
    assert (MEAN, STD) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def test_learning_rate_worked_examples():
    decay = {0: 0.01, 9: 0.1, 10: 0.1, 40: 0.075, 55: 0.05, 100: 0.0}
    for warmup, rates in {10: decay, 0: {0: 0.1}, 100: {99: 0.1}, 2.5: {2: 0.1}}.items():  # in steps, of 100
        assert {step: module.learning_rate_at(step, 100, warmup, 0.1) for step in rates} == pytest.approx(rates)


@pytest.mark.parametrize(("momentum", "decay_gates"), [(0.9, True), (0.0, True), (0.9, False)])
def test_updates_equal_nesterov_momentum_and_weight_decay_by_hand(make_trainer, dataset, momentum, decay_gates):
    settings = {"momentum": momentum, "weight_decay": 0.01, "decay_gates": decay_gates}
    trainer = make_trainer(learning_rate=0.05, epochs=2, **settings)
    model = copy.deepcopy(trainer.model)
    velocities = [torch.zeros_like(parameter) for parameter in model.parameters()]
    plan, losses = plan_epoch(trainer.config, 0, 96), []
    padded, labels = pad(torch.from_numpy(dataset.train_images), 4), torch.from_numpy(dataset.train_labels).long()
    for step, rate in enumerate([0.05 / 3, 0.1 / 3, 0.05]):
        images = Normalise()(crop_and_flip(padded, *plan.step(step)))
        loss = functional.cross_entropy(model(images), labels[plan.order[step]])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        losses.append(loss.item())
        with torch.no_grad():
            for (name, parameter), gradient, velocity in zip(
                model.named_parameters(), gradients, velocities, strict=True
            ):
                decays = decay_gates or ".gate." not in name  # if so, every parameter: batch norms and gates, too
                decayed = gradient + 0.01 * decays * parameter
                velocity.mul_(momentum).add_(decayed)
                parameter -= rate * (decayed + momentum * velocity)
    row = trainer.train_epoch()
    assert row["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert row["learning_rate"] == pytest.approx(0.05)
    for (name, mine), expected in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_loss_falls_and_the_rows_tell_epochs_images_and_learning_rates(make_trainer):
    easy = {"architecture": "resnet18", "crop_padding": 0, "horizontal_flip": False}
    trainer = make_trainer(images=100, epochs=8, learning_rate=0.05, **easy)
    rows = [trainer.train_epoch() for _ in range(8)]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] > rows[0]["train_accuracy"]
    assert rows[0]["images_per_second"] * rows[0]["train_seconds"] == pytest.approx(96)
    cosines = [math.cos(math.pi * step / 21) for step in range(2, 21, 3)]  # at the last of three steps an epoch
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.05, *(0.025 * (1 + each) for each in cosines)])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_nearly_alike_and_predicts_in_fp32(make_trainer, dataset, precision):
    exact, other = (make_trainer(images=32, precision=name, epochs=1) for name in ("fp32", precision))
    np.testing.assert_array_equal(other.predict(dataset.test_images), exact.predict(dataset.test_images))
    losses = [trainer.train_epoch()["train_loss"] for trainer in (exact, other)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
    assert other.predict(dataset.test_images).dtype == np.float32


def test_fp16_that_overflows_at_first_leaves_the_network_as_it_was(make_trainer):
    trainer = make_trainer(images=64, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train_epoch()
    assert trainer.scaler.get_scale() == 2.0**58
    assert all(torch.equal(one, other) for one, other in zip(trainer.model.parameters(), before, strict=True))


def test_what_cannot_be_trained_is_told_in_one_line(make_trainer):
    with pytest.raises(StudyError, match="batch_size = 32 is larger than the 31 training images"):
        make_trainer(images=31)
    trainer = make_trainer()
    trainer.model.fc.bias.data[0] = math.nan
    with pytest.raises(DivergedError, match="the training loss is nan in epoch 1: .*learning_rate"):
        trainer.train_epoch()


GPUS = [((9, 0), "cc", "bf16", True, True), ((8, 0), None, "bf16", False, True)]
GPUS += [((7, 5), "cc", "fp16", True, False)]  # the loss scaling of fp16 asks the host
GPUS += [((6, 1), "cc", "fp32", False, True)]  # Triton does not serve Pascal


@pytest.mark.parametrize(("capability", "compiler", "precision", "compiled", "graph"), GPUS)
def test_a_device_is_used_as_it_works_best(capability, compiler, precision, compiled, graph, monkeypatch):
    for bf16, best in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        assert (module.choose_device(), module.choose_precision(CPU)) == (CPU, best)
        assert module.choose_speedups(CPU, best) == Speedups(True, True, False, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    gpu = module.choose_device()
    assert (gpu.type, module.choose_precision(gpu)) == ("cuda", precision)
    assert module.choose_speedups(gpu, precision) == Speedups(True, graph, compiled, graph)


def test_steps_are_called_three_times_then_captured_once_and_replayed(monkeypatch):
    cuda, calls = MagicMock(), []
    monkeypatch.setattr(module.torch, "cuda", cuda)
    cuda.stream.return_value.__enter__.side_effect = lambda: calls.append("side stream")
    cuda.graph.return_value.__enter__.side_effect = lambda: calls.append("capture")
    cuda.CUDAGraph.return_value.replay.side_effect = lambda: calls.append("replay")
    replayed = module.Replayed(lambda: calls.append("step"))
    for _ in range(6):
        replayed()
    assert calls == ["side stream", "step"] * 3 + ["capture", "step"] + ["replay"] * 3


def on_fake_gpu(module):
    """The module with all its tensors on a GPU that only pretends to compute."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, value in [item for item in tensors.items() if item[1] is not None]:
                fake = torch.empty(value.shape, dtype=value.dtype, device="cuda:0")
                fake = fake.contiguous(memory_format=torch.channels_last) if fake.dim() == 4 else fake
                tensors[name] = torch.nn.Parameter(fake) if tensors is part._parameters else fake
    module.to = lambda *arguments, **how: module
    return module


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_and_update_on_a_gpu_never_wait_for_the_host(dataset, monkeypatch, architecture):
    sgd, scaled, fused = torch.optim.SGD, MagicMock(), MagicMock()

    def fake_sgd(parameters, lr, **how):  # the real one asks for the value of the rate
        optimizer = sgd(parameters, lr=0.1, **how)
        optimizer.param_groups[0]["lr"] = lr
        return optimizer

    monkeypatch.setattr(torch.optim, "SGD", fake_sgd)
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
    monkeypatch.setattr(torch, "_fused_sgd_", fused)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.amp.autocast_mode, "is_available", lambda *_: True, raising=False)
    config = tiny_config(architecture=architecture, reduction=2)
    with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
        monkeypatch.setattr(module, "Normalise", lambda: on_fake_gpu(Normalise()))
        arrays, gpu = (dataset.train_images, dataset.train_labels), torch.device("cuda:0")
        trainer = Trainer(config, on_fake_gpu(build_model(config, 10)), *arrays, gpu, "bf16", Speedups())
        parameters = list(trainer.model.parameters())
        scaled.backward = lambda: [setattr(each, "grad", torch.empty_like(each)) for each in parameters]
        trainer.scaler.scale = lambda loss: scaled
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        trainer._step()
        assert all(call.kwargs["lr"].device == gpu for call in fused.call_args_list) and fused.call_count
        for parameter, momentum in zip(fused.call_args.args[0], fused.call_args.args[2], strict=True):
            assert parameter.stride() == momentum.stride()
        with pytest.raises(fake_tensor.DataDependentOutputException):  # as anything that waits would raise
            trainer.loss_sum.item()
