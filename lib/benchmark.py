"""What benchmark.ipynb measures: our training step beside other people's, and whether it still computes the same."""

import dataclasses
import itertools
import re
import time

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from lib.files import outputs_folder
from lib.train.augment import MEAN, STD, Normalise, crop_and_flip, pad
from lib.train.models import build_model
from lib.train.run import device_name
from lib.train.trainer import DTYPES, Speedups, Trainer, choose_speedups

# what each contender "without …" lacks, those first that need no compilation of their own
SPEEDUPS = {
    "torch.compile": {"compiled": False},
    "CUDA graph": {"cuda_graph": False},
    "fused optimizer": {"fused_optimizer": False, "cuda_graph": False},  # without which no graph can be captured
    "channels-last": {"channels_last": False},
}


def benchmark_folder(device):
    """outputs/benchmark/<machine>/, named after the processor or GPU."""
    return outputs_folder("benchmark") / re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def contenders(config, steps, device, precision, workers):
    """{name: function that trains `steps` steps and returns their seconds}, the most important contenders first.

    config: RunConfig of the plain network; workers: processes of the everyday DataLoader.
    """
    plain = config.model_copy(update={"learning_rate": 1e-6})  # too low to diverge on labels that mean nothing

    def ours(config, precision, speedups):
        trainer = random_trainer(config, steps, device, precision, speedups)
        return lambda: trainer.train_epoch()["train_seconds"]

    chosen = choose_speedups(device, precision)
    functions = {
        "everyday": everyday(plain, steps, device, workers),
        "resident": resident(plain, steps, device, precision),
        "ours": ours(plain, precision, chosen),
        "ours, SE": ours(plain.model_copy(update={"architecture": "se_resnet18"}), precision, chosen),
    }
    for name, changes in SPEEDUPS.items():
        if (rest := dataclasses.replace(chosen, **changes)) != chosen:
            functions[f"without {name}"] = ours(plain, precision, rest)
    if precision != "fp32":
        functions["without half precision"] = ours(plain, "fp32", choose_speedups(device, "fp32"))
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


def everyday(config, steps, device, workers):
    """What most public CIFAR code does: DataLoader workers with torchvision's transforms, then eager fp32 steps."""
    crop = RandomCrop(32, config.crop_padding, padding_mode="reflect")
    transform = Compose([crop, RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])
    images = RandomCIFAR10(4 * steps * config.batch_size, transform)
    # workers forked from a notebook's kernel take five seconds each to end
    how = {"multiprocessing_context": "spawn", "persistent_workers": True, "pin_memory": device.type == "cuda"}
    loader = DataLoader(images, config.batch_size, shuffle=True, num_workers=workers, **how)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # one epoch after another
    model = build_model(config, 10).to(device)
    optimizer = sgd(model, config)

    def train():
        list(itertools.islice(batches, 2 * workers))  # what the workers have prepared does not count
        started = now(device)
        for batch in itertools.islice(batches, steps):
            eager_step(model, optimizer, *(part.to(device, non_blocking=True) for part in batch), torch.float32)
        return now(device) - started

    return train


def resident(config, steps, device, precision):
    """The fast public recipe: images on the device, augmented an epoch at once, then eager half-precision steps."""
    images, labels = (torch.from_numpy(array).to(device) for array in random_images(steps * config.batch_size))
    padded, choices = pad(images, config.crop_padding), 2 * config.crop_padding + 1
    model = build_model(config, 10).to(device, memory_format=torch.channels_last)
    optimizer, normalise, dtype = sgd(model, config), Normalise().to(device), DTYPES[precision]

    def train():
        started = now(device)
        order = torch.randperm(len(images), device=device)
        top, left = torch.randint(choices, (2, len(images)), device=device)
        flip = torch.randint(2, (len(images),), device=device)
        augmented = normalise(crop_and_flip(padded, order, top, left, flip)).to(dtype)
        for batch in zip(augmented.split(config.batch_size), labels[order].split(config.batch_size), strict=True):
            eager_step(model, optimizer, *batch, dtype)
        return now(device) - started

    return train


def sgd(model, config):
    """The optimizer of our runs, set up as torch does it by default."""
    settings = {"lr": config.learning_rate, "momentum": config.momentum, "weight_decay": config.weight_decay}
    return torch.optim.SGD(model.parameters(), **settings, nesterov=True)


def eager_step(model, optimizer, images, labels, dtype):
    """One step, operation by operation: forward, backward, update."""
    optimizer.zero_grad()
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        loss = functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


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
    """Largest relative difference of our losses from those of eager fp32 steps in plain layout, on one batch."""
    # an epoch is a step; the rate lets the loss fall, since one that explodes would magnify rounding
    config = config.model_copy(update={"learning_rate": 0.01, "epochs": steps, "warmup_epochs": 0.0})
    reference = random_trainer(config, 1, device, "fp32", Speedups(channels_last=False, fused_optimizer=False))
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):  # TF32 is no float32
        expected = np.array([reference.train_epoch()["train_loss"] for _ in range(steps)])
    trainer = random_trainer(config, 1, device, precision)
    losses = np.array([trainer.train_epoch()["train_loss"] for _ in range(steps)])
    return float(np.max(np.abs(losses / expected - 1)))


def matmul_rate(device, precision):
    """Floating-point operations a second of the fastest of ten large matrix products."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=DTYPES[precision])
    seconds = []
    for _ in range(10):
        started = now(device)
        torch.mm(matrix, matrix)
        seconds.append(now(device) - started)
    return 2 * size**3 / min(seconds)
