"""What benchmark.ipynb measures inside one process: contenders timed in turn, ceilings, agreement, growth."""

import dataclasses
import re
import sys
import time

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib.baselines import EverydayLoop, ResidentLoop, Stopwatch
from lib.devices import DTYPES, device_name
from lib.estimate import random_images, rehearsal_trainer
from lib.models import build_model
from lib.paths import outputs_folder
from lib.speedups import Speedups, choose_speedups
from lib.training import Trainer

SLOW = Speedups(channels_last=False, fused_optimizer=False)
# largest relative difference of a loss in the first steps from fp32's, of which bf16 keeps 8 bits and fp16 11
LOSS_TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 2e-2}


def benchmark_folder(device):
    """outputs/benchmark/<device>/, named after the processor or GPU."""
    return outputs_folder("benchmark") / re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def our_contenders(config, steps, device, precision, with_compile=True):
    """{name: function that trains `steps` steps and returns their seconds}: our step, and with one thing changed.

    with_compile: also compile where that is not chosen, which takes a minute.
    """
    chosen = choose_speedups(device, precision)
    gated = dataclasses.replace(config, architecture="se_resnet18")
    without_fused = dataclasses.replace(chosen, fused_optimizer=False, cuda_graph=False)
    trainers = {
        "ours": (config, precision, chosen),
        "ours, SE": (gated, precision, chosen),
        "without channels-last": (config, precision, dataclasses.replace(chosen, channels_last=False)),
        "without fused optimizer": (config, precision, without_fused),  # which the graph needs
    }
    if precision != "fp32":
        trainers["without half precision"] = (config, "fp32", choose_speedups(device, "fp32"))
    if chosen.cuda_graph:
        trainers["without CUDA graph"] = (config, precision, dataclasses.replace(chosen, cuda_graph=False))
    if chosen.compiled:
        eager = dataclasses.replace(chosen, compiled=False)
        trainers["without torch.compile"] = (config, precision, eager)
        trainers["without torch.compile, SE"] = (gated, precision, eager)
    elif with_compile:
        compiled = dataclasses.replace(chosen, compiled=True)
        trainers["with torch.compile"] = (config, precision, compiled)
        trainers["with torch.compile, SE"] = (gated, precision, compiled)
    return {name: _epoch(rehearsal_trainer(one, steps, device, *how)) for name, (one, *how) in trainers.items()}


def other_contenders(config, steps, device, precision, workers):
    """The same for the loops of lib.baselines."""
    config = dataclasses.replace(config, learning_rate=1e-6)
    images, labels = random_images(max(steps, 4) * config.batch_size)
    gated = dataclasses.replace(config, architecture="se_resnet18")

    def loop(kind, config, *how):
        contender = kind(config, build_model(config, 10), images, labels, device, *how)
        return lambda: contender.run(steps)

    return {
        "everyday": loop(EverydayLoop, config, workers),
        "everyday, SE": loop(EverydayLoop, gated, workers),
        f"everyday in {precision}": loop(EverydayLoop, config, workers, precision),
        "resident": loop(ResidentLoop, config, precision),
    }


def _epoch(trainer):
    return lambda: trainer.train_epoch()["train_seconds"]


def interleave(contenders, rounds, seconds_to_warm_up=0.5):
    """One row for each measurement: round, contender, seconds. All contenders take turns, back and forth.

    So a slower minute of the machine hits all of them. Each is warmed up first: compiled, captured, allocated.
    """
    with tqdm(total=len(contenders) * (rounds + 1), file=sys.stdout, mininterval=5) as bar:
        for name, run in contenders.items():
            bar.set_postfix_str(f"warm-up: {name}", refresh=False)
            run()  # the first may compile, which is no warm-up
            spent = 0
            while spent < seconds_to_warm_up:
                spent += run()
            bar.update()
        rows = []
        for turn in range(rounds):
            for name in list(contenders)[:: -1 if turn % 2 else 1]:
                bar.set_postfix_str(name, refresh=False)
                rows.append({"round": turn, "contender": name, "seconds": contenders[name]()})
                bar.update()
    return pd.DataFrame(rows)


def summarise(times, images, baseline):
    """One row for each contender: median images/s with quartiles, and median ratio of speed to the baseline's.

    times: from `interleave`; images: trained in one measurement. Ratios are taken within each round.
    """
    rates = images / times.pivot(index="round", columns="contender", values="seconds")[times["contender"].unique()]
    ratios = rates.div(rates[baseline], axis=0)
    columns = {"images_per_second": rates, f"times_{baseline}": ratios}
    table = {}
    for name, values in columns.items():
        table |= {name: values.median(), f"{name}_q1": values.quantile(0.25), f"{name}_q3": values.quantile(0.75)}
    return pd.DataFrame(table)


def step_time_ratio(times, contender, baseline):
    """Median and quartiles, over rounds, of how many times the baseline's time the contender takes."""
    seconds = times.pivot(index="round", columns="contender", values="seconds")
    ratio = seconds[contender] / seconds[baseline]
    return {"median": ratio.median(), "q1": ratio.quantile(0.25), "q3": ratio.quantile(0.75)}


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
    """Largest relative difference of the losses of our first steps from an eager fp32 reference in plain layout."""
    losses = []
    for each, speedups in (("fp32", SLOW), (precision, None)):
        images, labels = random_images(config.batch_size)
        trainer = Trainer(config, build_model(config, 10), images, labels, device, each, speedups)
        losses.append(np.array([trainer.train_epoch()["train_loss"] for _ in range(steps)]))
    return float(np.max(np.abs(losses[1] / losses[0] - 1)))


def operation_shares(trainer, top=12):
    """Share of time of the longest operations in one epoch, by torch.profiler: on the device, where it is a GPU."""
    from torch.profiler import ProfilerActivity, profile

    kind = trainer.device.type
    activity = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA}[kind]
    with profile(activities=[activity]) as seen:
        trainer.train_epoch()
    column = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    spent = pd.Series({event.key: getattr(event, column) for event in seen.key_averages()})
    return (spent / spent.sum()).nlargest(top)


def scaling(measure, sizes):
    """Seconds of measure(size) for each size, and how they compare with growing linearly from the first."""
    seconds = []
    for size in sizes:
        started = time.perf_counter()
        measure(size)
        seconds.append(time.perf_counter() - started)
    table = pd.DataFrame({"size": sizes, "seconds": seconds})
    table["per_size_relative_to_first"] = (table["seconds"] / table["size"]) / (seconds[0] / sizes[0])
    return table
