import pytest
import torch

from lib import probes
from lib.estimate import rehearsal_trainer
from lib.training import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_our_steps_stay_close_to_the_reference(precision, make_config):
    assert probes.loss_gap(make_config(epochs=8), CPU, precision) < probes.LOSS_TOLERANCE[precision]


def test_a_step_that_computes_something_else_is_found(make_config, monkeypatch):
    class Wrong(Trainer):
        def _loss(self, order, top, left, flip):
            return super()._loss(order.flip(0) if self.speedups != probes.SLOW else order, top, left, 1 - flip)

    monkeypatch.setattr(probes, "Trainer", Wrong)
    assert probes.loss_gap(make_config(epochs=8), CPU, "fp32") > probes.LOSS_TOLERANCE["fp32"]


def test_operations_are_shares_of_the_time_with_convolutions_among_the_longest(make_config):
    shares = probes.operation_shares(rehearsal_trainer(make_config(), 2, CPU, "fp32"))
    assert 0.3 < shares.sum() <= 1
    assert any("convolution" in name for name in shares.index)


def test_the_fastest_of_the_counted_repeats_is_taken(monkeypatch):
    durations = iter([0.1, 0.1, 5, 3, 4])

    class FakeWatch:
        def __init__(self, device):
            self.seconds = next(durations)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(probes, "Stopwatch", FakeWatch)
    assert probes.fastest(lambda: None, CPU, repeats=3) == 3
