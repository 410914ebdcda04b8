import time

import pytest
import torch

from lib import probes
from lib.estimate import rehearsal_trainer
from lib.models import build_model
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


class Sleeper(torch.nn.Module):
    """Takes 20 ms for a batch, but the first takes 300, and notes how each came."""

    def __init__(self):
        super().__init__()
        self.conv, self.seen = torch.nn.Conv2d(3, 8, 3), []

    def forward(self, images):
        layouts = [each.is_contiguous(memory_format=torch.channels_last) for each in (images, self.conv.weight)]
        modes = (self.training, torch.is_grad_enabled(), torch.get_num_threads())
        self.seen.append((images.shape, images.dtype, *layouts, *modes))
        time.sleep(0.3 if len(self.seen) == 1 else 0.02)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_latency_is_that_of_one_pass_as_in_use(batch_size, training):
    threads = torch.get_num_threads()
    model = Sleeper().train(training)
    try:
        torch.set_num_threads(2)
        seconds = probes.latency(model, CPU, batch_size)
    finally:
        torch.set_num_threads(threads)
    assert 0.02 <= seconds < 0.1
    assert set(model.seen) == {((batch_size, 3, 32, 32), torch.float32, True, True, False, False, 2)}
    assert model.training is training


def test_latency_of_a_network_grows_with_the_batch_and_leaves_its_values(make_config):
    model = build_model(make_config(), 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert probes.latency(model, CPU, 512) > 4 * probes.latency(model, CPU, 1) > 0
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
