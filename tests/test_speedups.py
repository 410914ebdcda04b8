import shutil

import pytest
import torch

from lib import speedups
from lib.models import build_model
from lib.speedups import Replayed, Speedups, choose_speedups
from lib.training import Trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", True), ("fp16", False)])
def test_a_cpu_neither_compiles_nor_captures(precision, fused):
    assert choose_speedups(CPU, precision) == Speedups(fused_optimizer=fused)


@pytest.mark.parametrize(
    ("capability", "compiler", "precision", "compiled", "graph"),
    [
        ((9, 0), "cc", "bf16", True, True),
        ((7, 5), "cc", "fp16", True, False),  # the loss scaling of fp16 asks the host
        ((6, 1), "cc", "fp32", False, True),  # Triton does not serve Pascal
        ((9, 0), None, "bf16", False, True),
    ],
)
def test_what_a_gpu_does(capability, compiler, precision, compiled, graph, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    chosen = choose_speedups(GPU, precision)
    assert (chosen.compiled, chosen.cuda_graph, chosen.channels_last) == (compiled, graph, True)
    assert chosen.fused_optimizer == graph


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@pytest.mark.parametrize(
    "changed",
    [
        Speedups(channels_last=False),
        Speedups(fused_optimizer=False),
        pytest.param(Speedups(compiled=True), marks=needs_compiler),
    ],
    ids=["channels_last", "fused_optimizer", "compiled"],
)
def test_no_speedup_changes_the_first_losses_weights_or_statistics(changed, make_config, dataset):
    plain = Speedups(channels_last=False, fused_optimizer=False)
    trainers, losses = [], []
    for each in (plain, changed):
        config = make_config(learning_rate=0.01, warmup_epochs=0)
        model = build_model(config, 10)
        images = (dataset.train_images[:32], dataset.train_labels[:32])
        trainers.append(Trainer(config, model, *images, CPU, "fp32", each))
        losses.append([trainers[-1].train_epoch()["train_loss"] for _ in range(3)])  # a step each
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for (name, expected), mine in zip(
        trainers[0].model.state_dict().items(), trainers[1].model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_steps_are_called_three_times_then_captured_once_and_replayed(monkeypatch):
    calls, inside = [], []

    class FakeGraph:
        def replay(self):
            calls.append("replay")

    class FakeContext:
        def __init__(self, what):
            self.what = what

        def __enter__(self):
            inside.append(self.what)

        def __exit__(self, *_):
            inside.pop()

    class FakeStream:
        def wait_stream(self, other):
            assert other is not self

    current = FakeStream()
    for name, fake in {
        "Stream": FakeStream,
        "CUDAGraph": FakeGraph,
        "current_stream": lambda: current,
        "stream": lambda stream: FakeContext("side stream"),
        "graph": lambda graph: FakeContext("capture"),
    }.items():
        monkeypatch.setattr(speedups.torch.cuda, name, fake)
    replayed = Replayed(lambda: calls.append(inside[-1]))
    for _ in range(6):
        replayed()
    assert calls == ["side stream"] * 3 + ["capture"] + ["replay"] * 3
