"""What the gates of a trained network do: how they vary, how much of it between classes, and what the logits owe them.

Everywhere, `predict(images)` runs `model` in evaluation mode over uint8 images (N, 32, 32, 3), in order and in parts of
any size, and returns logits float32 (N, classes), as Trainer.predict does. A network is left as it was found.
"""

from contextlib import ExitStack

import numpy as np
import torch

from lib.statistics import score


def gated_blocks(model):
    """The gates of a network by block, {"block1": module, …} from 1; empty for a network without computed gates."""
    blocks = enumerate(model.blocks, start=1)
    return {f"block{number}": block.gate for number, block in blocks if hasattr(block.gate, "gate")}


def record_gates(model, predict, images):
    """Gates of all images in every gated block, {block: float32 (N, C)}."""
    return predict_with_gates(model, predict, images)[1]


@torch.no_grad()
def predict_with_gates(model, predict, images):
    """Logits (N, classes) of the network as it is, and its gates {block: float32 (N, C)}."""
    parts = {}
    with ExitStack() as hooks:
        for block, module in gated_blocks(model).items():
            parts[block] = []
            hooks.enter_context(module.register_forward_hook(_recorder(parts[block])))
        logits = predict(images)
    return logits, {block: torch.cat(gates).numpy() for block, gates in parts.items()}


def _recorder(parts):
    """Forward hook that appends the gates of each part of the images to `parts`."""

    def hook(module, inputs, output):
        parts.append(module.gate(inputs[0]).float().cpu())

    return hook


@torch.no_grad()
def lesioned(model, predict, images, replacements):
    """Logits float32 (N, classes) with the gates of some blocks replaced by others, {block: (N, C)}, row by image.

    Raises ValueError unless there is one row of gates an image.
    """
    for block, gates in replacements.items():
        if len(gates) != len(images):
            raise ValueError(f"{block}: {len(gates)} rows of gates for {len(images)} images")
    modules = gated_blocks(model)
    with ExitStack() as hooks:
        for block, gates in replacements.items():
            hooks.enter_context(modules[block].register_forward_hook(_replacer(gates)))
        return predict(images)


def _replacer(gates):
    """Forward hook that scales the module's input by `gates` (N, C); it counts the images that have passed."""
    passed = 0

    def hook(module, inputs, output):
        nonlocal passed
        (x,) = inputs
        part = torch.tensor(gates[passed : passed + len(x)], device=x.device, dtype=x.dtype)
        passed += len(x)
        return x * part[:, :, None, None]

    return hook


def lesions(model, predict, images, labels, mean_gates):
    """Test accuracy and loss of the network with its gates disturbed: rows lesion, block, accuracy, loss (nats).

    Lesions: none (block none); mean, the gate's mean over training images, mean_gates {block: (C,)}; shuffled,
    the gates of another image, for all blocks and lesions the same other image. Each is made in one block at a
    time and in all at once (block all). labels: integers (N,). A network without gates has the row of none only.
    """
    logits, gates = predict_with_gates(model, predict, images)
    rows = [{"lesion": "none", "block": "none", **score(logits, labels)}]
    if not gates:
        return rows
    others = derangement(len(images))
    disturbed = {
        "mean": {block: np.broadcast_to(mean_gates[block], gates[block].shape) for block in gates},
        "shuffled": {block: gates[block][others] for block in gates},
    }
    for lesion, replacements in disturbed.items():
        one_at_a_time = {block: {block: replacement} for block, replacement in replacements.items()}
        for block, chosen in (one_at_a_time | {"all": replacements}).items():
            logits = lesioned(model, predict, images, chosen)
            rows.append({"lesion": lesion, "block": block, **score(logits, labels)})
    return rows


def derangement(n):
    """A permutation (n,) of range(n) without fixed points, the same each time: one random cycle through all.

    Raises ValueError for fewer than two.
    """
    if n < 2:
        raise ValueError(f"a permutation of {n} cannot be without fixed points")
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
    present, labels = np.unique(labels, return_inverse=True)
    sums, counts = _class_sums(deviations, labels, len(present))
    return float((sums**2 / counts).sum() / (deviations**2).sum())


def class_mean_gates(gates, labels, classes):
    """Mean gate of each class, float32 (classes, C), of gates (N, C), labels (N,); NaN for a class without images."""
    sums, counts = _class_sums(gates, labels, classes)
    with np.errstate(invalid="ignore"):
        return (sums / counts).astype(np.float32)


def _class_sums(values, labels, classes):
    """Sums float64 (classes, C) of values (N, C) over the images of each class, and their numbers (classes, 1)."""
    members = (labels == np.arange(classes)[:, None]).astype(float)
    return members @ values, members.sum(1, keepdims=True)
