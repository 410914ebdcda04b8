"""What bounds a training step here, and whether it still computes what a plain one does."""

import dataclasses
import os

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from lib.baselines import Stopwatch
from lib.devices import DTYPES
from lib.estimate import random_images
from lib.models import build_model
from lib.speedups import Speedups
from lib.training import Trainer

SLOW = Speedups(channels_last=False, fused_optimizer=False)
# largest relative difference of a loss in the first steps from the reference's; half precision rounds each value to
# 1/256 (bf16) or 1/2048 (fp16) of itself
LOSS_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 1e-2}


def matmul_rate(device, precision):
    """FLOP/s of the fastest of a few square matrix products on random numbers."""
    sizes = (4096, 8192) if device.type == "cuda" else (1024, 2048)
    return max(2 * size**3 / _matmul_seconds(size, device, DTYPES[precision]) for size in sizes)


def _matmul_seconds(size, device, dtype):
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return fastest(lambda: one @ other, device)


def copy_rate(device):
    """Bytes/s, read and written, of copying 256 MiB on the device."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / fastest(lambda: target.copy_(source), device)


def fastest(operation, device, repeats=10):
    """Seconds of the fastest of `repeats` executions, the first two not counted."""
    seconds = []
    for _ in range(repeats + 2):
        with Stopwatch(device) as watch:
            operation()
        seconds.append(watch.seconds)
    return min(seconds[2:])


def loss_gap(config, device, precision, steps=8):
    """Largest relative difference of our losses from an eager fp32 reference's in plain layout, on one batch.

    At a learning rate that lets the loss fall: where it explodes, rounding alone would drive the two apart.
    """
    config = dataclasses.replace(config, learning_rate=0.01, warmup_epochs=0)
    losses = []
    for each, speedups in (("fp32", SLOW), (precision, None)):
        images, labels = random_images(config.batch_size)
        trainer = Trainer(config, build_model(config, 10), images, labels, device, each, speedups)
        losses.append(np.array([trainer.train_epoch()["train_loss"] for _ in range(steps)]))
    return float(np.max(np.abs(losses[1] / losses[0] - 1)))


def operation_shares(trainer):
    """Share of time of each operation in one epoch, longest first, by torch.profiler; on a GPU, of the GPU's time."""
    os.environ["KINETO_LOG_LEVEL"] = "5"  # or the profiler writes where it starts and stops
    kind = trainer.device.type
    activity = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA}[kind]
    with profile(activities=[activity]) as seen:
        trainer.train_epoch()
    column = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    spent = pd.Series({event.key: getattr(event, column) for event in seen.key_averages()})
    return (spent / spent.sum()).sort_values(ascending=False)


def latency(model, device, batch_size):
    """Median seconds of one forward pass of `batch_size` random 32×32 images: fp32, channels-last, no gradients.

    The model is moved to the device, classifies as after training, with as many threads as torch has now, and keeps
    its mode. Timed by torch.utils.benchmark, which waits for the device.
    """
    training = model.training
    model.to(device, memory_format=torch.channels_last).eval()
    images = torch.randn(batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    timer = Timer("model(images)", globals={"model": model, "images": images}, num_threads=torch.get_num_threads())
    with torch.no_grad():
        measured = timer.blocked_autorange()
    model.train(training)
    return measured.median
