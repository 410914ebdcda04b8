"""How fast runs train here, alone and several at once, measured by training steps on random images."""

import dataclasses
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError

import numpy as np
import torch

from lib.devices import choose_device, resolve_precision
from lib.errors import StudyError
from lib.models import build_model
from lib.training import Trainer

STEPS = {"cpu": 2, "cuda": 100}  # in one measurement
MEASURED_SECONDS = 2  # at least, after the warm-up
NOTEBOOK_SECONDS = 20  # start, images, test and saving around the training of a run
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1297}


def work_per_image(config):
    """What training on one image costs, in images of a full-width network.

    Roughly: on two CPU cores quarter width takes a tenth and half width a third of the time of full width.
    """
    return (config.width**2 + 0.23 * config.width) / 1.23


def work(config):
    """What training a run costs, in images of a full-width network."""
    images = TRAINING_IMAGES[config.dataset] - config.validation_images
    return config.epochs * images * work_per_image(config)


def random_images(count):
    """Images uint8 (count, 32, 32, 3) and labels (count,) that mean nothing."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, count)


def rehearsal_trainer(config, steps, device, precision, speedups=None, model=None):
    """A Trainer whose epoch is `steps` steps on random images, at a rate that no labels make diverge.

    model: by default the config's.
    """
    config = dataclasses.replace(config, learning_rate=1e-6)
    images, labels = random_images(steps * config.batch_size)
    return Trainer(config, model or build_model(config, 10), images, labels, device, precision, speedups)


def work_per_second(config, environments):
    """Training speed of each of several runs at once, one for each mapping of environment variables.

    Done in fresh processes that start together, so that the caller holds no memory of the device; takes a few seconds,
    and up to a minute where a network is compiled for the first time. Raises StudyError where they do not fit.
    """
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(len(environments))
    with ProcessPoolExecutor(len(environments), context, initializer=_share, initargs=(start,)) as pool:
        measured = [pool.submit(_measure, config, environment) for environment in environments]
    errors = [each.exception() for each in measured]
    for error in errors:
        if error and not isinstance(error, BrokenBarrierError):
            raise StudyError(f"{len(environments)} at once cannot train: {error}") from error
    return [each.result() for each in measured]


def _share(start):
    global together
    together = start


def _measure(config, environment):
    try:
        return _measured(config, environment)
    except Exception:
        together.abort()  # or the others would wait for this one
        raise


def _measured(config, environment):
    os.environ.update(environment)
    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # torch has read the variable before
    device = choose_device()
    trainer = rehearsal_trainer(config, STEPS[device.type], device, resolve_precision(config, device))
    for _ in range(2):  # compiles, captures and allocates
        trainer.train_epoch()
    together.wait()
    epochs = seconds = 0
    while seconds < MEASURED_SECONDS:
        seconds += trainer.train_epoch()["train_seconds"]
        epochs += 1
    return epochs * trainer.steps_per_epoch * config.batch_size * work_per_image(config) / seconds
