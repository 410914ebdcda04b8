"""For benchmark.ipynb: our training step with and without its speed-ups, what it computes, and how long it takes."""

import dataclasses
import re
import time

import numpy as np
import pandas as pd
import torch
from torchvision.datasets import CIFAR10

from lib.files import outputs_folder
from lib.train.models import build_model
from lib.train.run import device_name
from lib.train.trainer import DTYPES, PLAIN, Trainer, choose_speedups, true_float32

# what each contender "without …" lacks, those first that need no compilation of their own
SPEEDUPS = {
    "torch.compile": {"compiled": False},
    "CUDA graph": {"cuda_graph": False},
    "fused optimizer": {"fused_optimizer": False, "cuda_graph": False},  # without which no graph can be captured
    "channels-last": {"channels_last": False},
}
HARMLESS = {"learning_rate": 1e-6}  # too low to diverge on labels that mean nothing


def benchmark_folder(device):
    """outputs/benchmark/<machine>/, named after the processor or GPU."""
    return outputs_folder("benchmark") / re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def contenders(config, steps, device, precision):
    """{name: function that trains `steps` of our steps and returns their seconds}; config: of the plain network."""

    def ours(config, precision, speedups):
        trainer = random_trainer(config, steps, device, precision, speedups)
        return lambda: trainer.train_epoch()["train_seconds"]

    config, chosen = config.model_copy(update=HARMLESS), choose_speedups(device, precision)
    gated = config.model_copy(update={"architecture": "se_resnet18"})
    functions = {"ours": ours(config, precision, chosen), "ours, SE": ours(gated, precision, chosen)}
    for name, changes in SPEEDUPS.items():
        if (rest := dataclasses.replace(chosen, **changes)) != chosen:
            functions[f"without {name}"] = ours(config, precision, rest)
    if precision != "fp32":
        functions["without half precision"] = ours(config, "fp32", choose_speedups(device, "fp32"))
    return functions


def random_images(count):
    """Images uint8 (count, 32, 32, 3) and labels int64 (count,) that mean nothing."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, count)


def random_trainer(config, steps, device, precision, speedups=None):
    """A Trainer whose epoch is `steps` steps on random images; speedups: by default what pays on the device."""
    images, labels = random_images(steps * config.batch_size)
    return Trainer(config, build_model(config, 10), images, labels, device, precision, speedups)


class RandomCIFAR10(CIFAR10):
    """torchvision's CIFAR-10 with random images instead of the files."""

    def __init__(self, count, transform):
        self.data, self.targets = random_images(count)
        self.transform, self.target_transform = transform, None

    def __reduce__(self):  # each worker makes the images itself, which is faster than sending them
        return type(self), (len(self.data), self.transform)


def now(device):
    """The time in seconds, once the device has done all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(contenders, rounds):
    """Yield the seconds so far, a row for each round and a column for each contender, after every measurement.

    All take turns, back and forth, so that a slower minute of the machine hits all of them.
    """
    times = {}
    for turn in range(rounds):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            for _ in range(1 if turn else 3):  # two more at first, to compile, capture and allocate
                seconds = contenders[name]()
            times.setdefault(name, []).append(seconds)
            yield pd.DataFrame({name: pd.Series(column) for name, column in times.items()})


def summarise(times, images, baseline):
    """One row for each contender: images/s and how many times the baseline's, medians with quartiles.

    times: from `measure`; images: trained in one measurement. Ratios are taken within each round.
    """
    columns = {"images_per_second": images / times, f"times_{baseline}": times.rdiv(times[baseline], axis=0)}
    ends = {"": 0.5, "_q1": 0.25, "_q3": 0.75}
    return pd.DataFrame({f"{name}{end}": rate.quantile(q) for name, rate in columns.items() for end, q in ends.items()})


def time_ratio(times, contender, baseline):
    """Median and quartiles, over rounds, of how many times the baseline's time the contender takes."""
    ratio = times[contender] / times[baseline]
    return {name: ratio.quantile(q) for name, q in {"median": 0.5, "q1": 0.25, "q3": 0.75}.items()}


def loss_gap(config, device, precision, steps=8):
    """Largest relative difference of our losses from those of eager fp32 steps in plain layout."""
    with true_float32():
        expected = random_trainer(config, steps, device, "fp32", PLAIN).first_losses(config.seed, steps)
    losses = random_trainer(config, steps, device, precision).first_losses(config.seed, steps)
    return float(np.max(np.abs(losses / expected - 1)))


def matmul_rate(device, precision):
    """Floating-point operations a second of the fastest of ten large matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=DTYPES[precision])
    return 2 * size**3 / _fastest(lambda: torch.mm(matrix, matrix), device)


def copy_rate(device):
    """Bytes a second, read and written, of the fastest of ten large copies within the memory of the device."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**27, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), device)


def _fastest(work, device):
    """Seconds of the fastest of ten calls."""
    seconds = []
    for _ in range(10):
        started = now(device)
        work()
        seconds.append(now(device) - started)
    return min(seconds)
