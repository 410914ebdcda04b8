"""How long runs will take here, measured by training steps on random images."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

STEPS = 2
MEASURED_SECONDS = 2  # at least, after the warm-up
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1297}


def images_to_train(config):
    """Images that a run processes in all its epochs."""
    return config.epochs * config.train_fraction * (TRAINING_IMAGES[config.dataset] - config.validation_images)


def seconds_per_image(config):
    """Training time of one image where a run has the device to itself; measuring takes a few seconds.

    Done in a fresh process, so that the caller holds no memory of the device.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, config).result()


def _measure(config):
    import numpy as np

    from lib.devices import choose_device, resolve_precision
    from lib.models import build_model
    from lib.training import Trainer

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (STEPS * config.batch_size, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, len(images))
    device = choose_device()
    precision = resolve_precision(config, device)
    config = dataclasses.replace(config, learning_rate=1e-6)  # random labels must not make the loss diverge
    trainer = Trainer(config, build_model(config, 10), images, labels, device, precision)
    trainer.train_epoch()  # warm-up
    epochs = seconds = 0
    while seconds < MEASURED_SECONDS:
        seconds += trainer.train_epoch()["train_seconds"]
        epochs += 1
    return seconds / (epochs * len(images))
