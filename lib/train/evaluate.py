"""What a trained network is asked before it is thrown away: test images, its gates, and lesions of its gates.

The test images are read here, after the last epoch, and nothing about a run is chosen by them.
"""

import hashlib
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from lib.data import CLASSES, split_indices
from lib.runs import stored_logits
from lib.train.models import build_model
from lib.train.trainer import DivergedError, Speedups, Trainer

FIXED_IMAGES = 4


class Evaluation(NamedTuple):
    """What is asked of a network: scores for the summary, test logits (N, classes), labels (N,), gates and lesions.

    gates: {block: float32 (N, C)}; gates and lesions are None for a network without gates. A run of the tuning is asked
    for scores alone.
    """

    scores: dict
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None
    gates: dict | None = None
    lesions: pd.DataFrame | None = None


def evaluate(trainer, dataset):
    """Evaluation of a trained network on the test images, or on the images that a run of the tuning has held out.

    Raises DivergedError for logits that are not finite.
    """
    config = trainer.config
    if config.validation_images:
        _, held_out = split_indices(dataset.train_labels, config.validation_images)
        logits, labels = trainer.predict(dataset.train_images[held_out]), dataset.train_labels[held_out]
        return Evaluation({f"val_{name}": value for name, value in score(logits, labels).items()})
    labels = dataset.test_labels
    logits, gates = predict_with_gates(trainer, dataset.test_images)
    # scores come from the logits as they are stored, so that anyone gets the same numbers from the file
    scores = {f"test_{name}": value for name, value in score(stored_logits(logits), labels).items()}
    scores["logits_sha256"] = hashlib.sha256(logits.tobytes()).hexdigest()
    if not gates:
        return Evaluation(scores, logits, labels)
    return Evaluation(scores, logits, labels, gates, pd.DataFrame(lesions(trainer, dataset)))


def score(logits, labels):
    """Accuracy (fraction) and mean negative log-likelihood (nats) of logits (N, classes), labels integers (N,)."""
    if not np.isfinite(logits).all():
        raise DivergedError("the logits are not finite: try a lower learning_rate")
    loss = functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels).long())
    return {"accuracy": float((logits.argmax(1) == labels).mean()), "loss": loss.item()}


def gated_blocks(model):
    """The gates of a network by block, {"block1": module, …} from 1; empty for a network without computed gates."""
    blocks = enumerate(model.blocks, start=1)
    return {f"block{number}": block.gate for number, block in blocks if hasattr(block.gate, "gate")}


def predict_with_gates(trainer, images, replaced=None):
    """Logits (N, classes) and gates {block: float32 (N, C)}; replaced: of these blocks, the gates to use instead."""
    used, replaced = {}, replaced or {}

    def hook(block, module, inputs, output):
        (x,), parts = inputs, used.setdefault(block, [])
        if block in replaced:
            passed = sum(map(len, parts))  # images, since the network sees them part by part
            gates = torch.tensor(replaced[block][passed : passed + len(x)], device=x.device, dtype=x.dtype)
            output = x * gates[:, :, None, None]
        else:
            gates = module.gate(x)
        parts.append(gates.float().cpu())
        return output

    with ExitStack() as stack:
        modules = gated_blocks(trainer.model)
        for block in replaced or modules:
            stack.enter_context(modules[block].register_forward_hook(partial(hook, block)))
        logits = trainer.predict(images)
    return logits, {block: torch.cat(parts).numpy() for block, parts in used.items()}


def lesions(trainer, dataset):
    """Accuracy and loss (nats) of the network with its gates disturbed, on the first `lesion_images` test images.

    Rows lesion, block, accuracy, loss. Lesions: none (block none); mean, the gate's mean over as many training images;
    shuffled, the gates of another image, for all blocks and lesions the same other image. Each is made in one block at
    a time and in all at once (block all).
    """
    chosen = slice(trainer.config.lesion_images)
    _, training_gates = predict_with_gates(trainer, dataset.train_images[chosen])
    images, labels = dataset.test_images[chosen], dataset.test_labels[chosen]
    logits, gates = predict_with_gates(trainer, images)
    rows = [{"lesion": "none", "block": "none", **score(logits, labels)}]
    others = derangement(len(images))
    disturbed = {
        "mean": {block: np.broadcast_to(training_gates[block].mean(0), gates[block].shape) for block in gates},
        "shuffled": {block: gates[block][others] for block in gates},
    }
    for lesion, replacements in disturbed.items():
        one_at_a_time = {block: {block: replacement} for block, replacement in replacements.items()}
        for block, replaced in (one_at_a_time | {"all": replacements}).items():
            logits, _ = predict_with_gates(trainer, images, replaced)
            rows.append({"lesion": lesion, "block": block, **score(logits, labels)})
    return rows


def derangement(n):
    """A permutation (n,) of range(n) without fixed points, the same each time: one random cycle through all, n ≥ 2."""
    cycle = np.random.default_rng(0).permutation(n)
    permutation = np.empty(n, int)
    permutation[cycle] = np.roll(cycle, 1)
    return permutation


def gate_statistics(gates, labels, permutations=20):
    """How the gates float32 (N, C) of one block vary over channels, images and classes; labels: integers (N,).

    mean; sd_channels: SD over channels of the mean over images; sd_images: mean over channels of the SD over images
    (both population SDs); share_below_0.1 and share_above_0.9 of all gates; eta_squared: sum of squares between classes
    over the total one, each summed over channels, with mean (_null) and 95th percentile (_null_95) of the same under
    random permutations of the labels. The three are None for gates that do not vary over images.
    """
    gates = np.asarray(gates, float)
    deviations = gates - gates.mean(0)  # exactly 0 for a constant gate: float64 holds a sum of equal float32 values
    observed, null, null_95 = None, None, None
    if deviations.any():
        rng = np.random.default_rng(0)
        observed = _eta_squared(deviations, labels)
        shuffled = [_eta_squared(deviations, rng.permutation(labels)) for _ in range(permutations)]
        null, null_95 = float(np.mean(shuffled)), float(np.quantile(shuffled, 0.95))
    return {
        "mean": float(gates.mean()),
        "sd_channels": float(gates.mean(0).std()),
        "sd_images": float(np.sqrt((deviations**2).mean(0)).mean()),
        "share_below_0.1": float((gates < 0.1).mean()),
        "share_above_0.9": float((gates > 0.9).mean()),
        "eta_squared": observed,
        "eta_squared_null": null,
        "eta_squared_null_95": null_95,
    }


def _eta_squared(deviations, labels):
    """Share of the sum of squares of deviations (N, C) from the mean of each channel that lies between classes."""
    members = (labels == np.unique(labels)[:, None]).astype(float)
    sums, counts = members @ deviations, members.sum(1, keepdims=True)
    return float((sums**2 / counts).sum() / (deviations**2).sum())


def fixed_answers(config):
    """Logits of four fixed images, 4 lists of floats each: `untrained`, and `after_one_step` of training.

    They tell whether today's code still builds and trains the network of a finished run: the step covers crops, loss
    and optimizer too. Computed on the CPU in float32, from the seed of the config, with six digits kept.
    """
    images = np.random.default_rng(0).integers(0, 256, (FIXED_IMAGES, 32, 32, 3), dtype=np.uint8)
    # a small learning rate, so that rounding is not magnified
    changes = {"batch_size": FIXED_IMAGES, "epochs": 1, "warmup_epochs": 0.0, "learning_rate": 0.01}
    config = config.model_copy(update=changes)
    model = build_model(config, len(CLASSES[config.dataset]))
    trainer = Trainer(config, model, images, np.arange(FIXED_IMAGES), torch.device("cpu"), "fp32", Speedups())
    answers = {"untrained": trainer.predict(images)}
    trainer.train_epoch()
    answers["after_one_step"] = trainer.predict(images)
    return {moment: [[float(f"{value:.6g}") for value in row] for row in logits] for moment, logits in answers.items()}
