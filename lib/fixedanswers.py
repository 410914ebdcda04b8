"""What a network answers to four fixed images, so that a later change of its code is noticed beside finished runs."""

import dataclasses

import numpy as np
import torch

from lib.models import build_model
from lib.speedups import Speedups
from lib.training import Trainer

IMAGES = 4
LEARNING_RATE = 0.01  # of the one step; small, so that rounding is not magnified


def fixed_answers(config, classes):
    """Logits of four fixed images, 4 lists of `classes` floats each: `untrained`, and `after_one_step` of training.

    Computed on the CPU in float32 whatever the run uses, from the seed of the config, with six digits kept. The step
    trains on the four images, so that it covers crops, loss and optimizer too.
    """
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(IMAGES)
    config = dataclasses.replace(
        config, batch_size=IMAGES, epochs=1, warmup_epochs=0, learning_rate=LEARNING_RATE, validation_images=0
    )
    model = build_model(config, classes)
    trainer = Trainer(config, model, images, labels, torch.device("cpu"), "fp32", Speedups())
    answers = {"untrained": trainer.predict(images)}
    trainer.train_epoch()
    answers["after_one_step"] = trainer.predict(images)
    return {moment: [[float(f"{value:.6g}") for value in row] for row in logits] for moment, logits in answers.items()}
