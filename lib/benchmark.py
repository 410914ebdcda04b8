"""What benchmark.ipynb measures: contenders timed in turn, how time grows, and how that compares with the targets."""

import dataclasses
import functools
import re
import sys
import time

import numpy as np
import pandas as pd
import torch
from torchvision.ops import SqueezeExcitation
from tqdm import tqdm

from lib.baselines import EverydayLoop, ResidentLoop
from lib.devices import device_name
from lib.estimate import random_images, rehearsal_trainer
from lib.models import STAGE_WIDTHS, ResNet, SEGate, build_model, initialise, scaled
from lib.paths import outputs_folder
from lib.speedups import choose_speedups


def benchmark_folder(device):
    """outputs/benchmark/<device>/, named after the processor or GPU."""
    return outputs_folder("benchmark") / re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")


def our_contenders(config, steps, device, precision, with_compile=True):
    """{name: function that trains `steps` steps and returns their seconds}: our step, and with one thing changed.

    with_compile: also compile where that is not chosen, which takes a minute.
    """
    # networks of one kind share their compiled code, which must be that of fixed sizes, as in a run
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
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
    trainers["with plain averages, SE"] = (gated, precision, chosen, _with_plain_averages(gated))
    return {name: one_epoch(rehearsal_trainer(one, steps, device, *how)) for name, (one, *how) in trainers.items()}


class PlainAverages(SEGate):
    """The gate as it is usually written."""

    def averages(self, x):
        return x.mean((2, 3))


def _with_plain_averages(config):
    make_gate = functools.partial(PlainAverages, reduction=config.reduction)
    return initialise(ResNet(scaled(STAGE_WIDTHS, config.width), 10, make_gate), config.seed)


def other_contenders(config, steps, device, precision, workers):
    """The same for the loops of lib.baselines, the gates being torchvision's."""
    config = dataclasses.replace(config, learning_rate=1e-6)
    images, labels = random_images(4 * steps * config.batch_size)  # on a GPU, about what an epoch of CIFAR-10 has
    gated = build_model(config, 10)
    for block in gated.blocks:
        channels = block.bn2.num_features
        block.gate = SqueezeExcitation(channels, channels // config.reduction)

    def loop(kind, model, *how):
        contender = kind(config, model, images, labels, device, *how)
        return lambda: contender.run(steps)

    return {
        "everyday": loop(EverydayLoop, build_model(config, 10), workers),
        "everyday, SE": loop(EverydayLoop, gated, workers),
        f"everyday in {precision}": loop(EverydayLoop, build_model(config, 10), workers, precision),
        "resident": loop(ResidentLoop, build_model(config, 10), precision),
    }


def one_epoch(trainer):
    """A contender of a Trainer: trains its epoch and returns the seconds."""
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
    """One row for each contender: images/s and how many times the baseline's, medians with quartiles.

    times: from `interleave`; images: trained in one measurement, a number or a Series by contender. Ratios are taken
    within each round.
    """
    seconds = times.pivot(index="round", columns="contender", values="seconds")[times["contender"].unique()]
    rates = seconds.rdiv(images)
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


def scaling(measure, sizes, repeats=3):
    """Median seconds of measure(size) for each size, in turn, and how each size's share compares with the first's."""
    seconds = np.empty((repeats, len(sizes)))
    for repeat, position in np.ndindex(seconds.shape):
        started = time.perf_counter()
        measure(sizes[position])
        seconds[repeat, position] = time.perf_counter() - started
    table = pd.DataFrame({"size": sizes, "seconds": np.median(seconds, axis=0)})
    table["seconds_per_unit"] = table["seconds"] / table["size"]
    table["relative_to_first"] = table["seconds_per_unit"] / table["seconds_per_unit"][0]
    return table


def compare_with_targets(results):
    """One row for each target that applies to the device: what, its target as text, measured, and whether it is met.

    results: the content of a benchmark's results.json, as far as it is measured.
    """
    gpu = results["environment"]["device"] == "cuda"
    rows = [(f"speed: {name}", ratio["median"], 10 if gpu else 2) for name, ratio in results["speed_ratio"].items()]
    if gpu:
        rows[-1] = (*rows[-1][:2], 1.3)  # the fast recipe is harder to beat than the everyday one
    else:
        rows.pop()  # and meant for GPUs
    rows.append(("share of the matrix-product rate", results["share_of_matmul"]["ours"], 0.35 if gpu else 0.5))
    if gpu and results["whole_run"]:
        share = results["whole_run"]["train_seconds"] / results["whole_run"]["wall_seconds"]
        rows.append(("share of training in a whole run", share, 0.8))
    rows.append(("step time with SE / without", results["se_step_time_ratio"]["ours"]["median"], -1.05))
    rows.append(
        (f"seconds to analyse {results['analysis']['finished_runs']} runs", results["analysis"]["seconds"], -60)
    )
    return [
        {
            "what": what,
            "target": f"at least {bound:g}" if bound > 0 else f"at most {-bound:g}",
            "measured": measured,
            "met": bool(measured >= bound if bound > 0 else measured <= -bound),
        }
        for what, measured, bound in rows
    ]
