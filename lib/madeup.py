"""Complete run folders with made-up results of a known truth: to time the analysis, and to test that it finds it."""

import numpy as np
import pandas as pd

from lib.config import config_hash
from lib.runs import save_arrays, save_logits, write_json, write_table

TOSS_UP = 0.02  # share of the images that a run gets right by chance; the others are right or wrong in every run
BLOCKS = tuple(f"block{number}" for number in range(1, 9))


def make_up_run(folder, config, accuracy=0.9, images=10_000):
    """Write a run folder as a real run of the config leaves it, whose expected test accuracy is `accuracy`."""
    generator = np.random.default_rng([config.seed, *config.arm.encode()])
    labels = np.arange(images) % 10
    logits = _logits(generator, labels, accuracy)
    epochs = np.arange(1, config.epochs + 1)
    metrics = {"epoch": epochs, "train_loss": 2 / epochs, "train_accuracy": 1 - 0.6 / epochs, "train_seconds": 1.0}
    write_table(folder / "metrics.csv", pd.DataFrame(metrics))
    save_logits(folder / "test_logits.npz", logits, labels)
    write_table(folder / "corruptions.csv", _corruptions(generator, accuracy))
    if "se_" in config.architecture or "static" in config.architecture:
        _write_gates(folder, generator, accuracy)
    write_json(folder / "config.json", config.to_dict())
    environment = {"device_name": "none", "device": "cpu", "packages": {"torch": "none"}, "commit": None}
    write_json(folder / "environment.json", environment | {"uncommitted_changes": False, "precision": "fp32"})
    summary = {
        "config_hash": config_hash(config.to_dict()),
        "data_source": config.dataset,
        "data_fingerprint": "0" * 64,
        "precision": "fp32",
        "test_accuracy": float((logits.argmax(1) == labels).mean()),
        "test_loss": 1 - accuracy + generator.normal(0, 0.001),
        "test_ece": 0.02,
        "corruption_accuracy": accuracy - 0.2,
        "lossless_accuracy": None,
        "parameters": 1,
        "multiply_adds": 1,
        "train_seconds": 1.0,
        "finished_utc": "2026-01-01T00:00:00+00:00",
    }
    write_json(folder / "summary.json", summary)


def _logits(generator, labels, accuracy):
    """The first images are right, the last wrong, and those around the border by chance, in every run anew."""
    images = len(labels)
    place = (np.arange(images) - accuracy * images) / (TOSS_UP * images)
    right = np.where(np.abs(place) < 0.5, generator.random(images) < 0.5, place < 0)
    logits = generator.normal(size=(images, 10))
    logits[np.arange(images), labels] += np.where(right, 8, -8)
    return logits


def _corruptions(generator, accuracy):
    from lib.corruptions import CORRUPTIONS, SEVERITIES

    rows = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    table = pd.DataFrame(rows, columns=["corruption", "severity"])
    table["accuracy"] = accuracy - 0.05 * table["severity"] + generator.normal(0, 0.005, len(table))
    return table.assign(loss=2 * (1 - table["accuracy"]))


def _write_gates(folder, generator, accuracy):
    spread = generator.normal(0.05, 0.005, len(BLOCKS))
    gates = pd.DataFrame({"block": BLOCKS, "mean": 0.5, "sd_channels": spread, "sd_images": spread / 2})
    gates[["share_below_0.1", "share_above_0.9"]] = 0.0
    gates["eta_squared"] = np.linspace(0.05, 0.7, len(BLOCKS)) + generator.normal(0, 0.01, len(BLOCKS))
    write_table(folder / "gates.csv", gates.assign(eta_squared_null=0.001, eta_squared_null_95=0.002))
    save_arrays(folder / "gates.npz", **{block: np.full((10, 8), 0.5, np.float16) for block in BLOCKS})
    lesions = [("none", "none", accuracy)]
    for intervention, loss in (("mean", 0.01), ("shuffled", 0.03)):
        lesions += [(intervention, block, accuracy - loss) for block in (*BLOCKS, "all")]
    table = pd.DataFrame(lesions, columns=["intervention", "block", "accuracy"])
    write_table(folder / "interventions.csv", table.assign(loss=1 - table["accuracy"]))
