"""How long a run will take here, measured by a few training steps on random images."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

STEPS = 2
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1297}


def images_to_train(config):
    """Images that a run processes in all its epochs."""
    return config.epochs * config.train_fraction * (TRAINING_IMAGES[config.dataset] - config.validation_images)


def run_seconds(config):
    """Estimated training time of one run that has the device to itself; takes a few seconds itself.

    Measured in a fresh process, so that the caller holds no memory of the device.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return images_to_train(config) / pool.submit(_images_per_second, config).result()


def _images_per_second(config):
    import numpy as np

    from lib.devices import choose_device, choose_precision
    from lib.models import build_model
    from lib.training import Trainer

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (STEPS * config.batch_size, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, len(images))
    device = choose_device()
    precision = choose_precision(device) if config.precision == "auto" else config.precision
    trainer = Trainer(config, build_model(config, 10), images, labels, device, precision)
    trainer.train_epoch()  # warm-up
    return trainer.train_epoch()["images_per_second"]
