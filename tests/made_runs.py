"""Complete run folders with made-up results whose truth is known, so that tests of the analysis need no training."""

from unittest import mock

import numpy as np
import pandas as pd

from lib.analyse.statistics import nll
from lib.files import run_folder, write_json, write_table
from lib.runs import config_hash, save_arrays, stored_logits
from lib.study import load_study

BLOCKS = tuple(f"block{number}" for number in range(1, 9))
LABELS = np.arange(1000) % 10
ENVIRONMENT = {"packages": {"torch": "2.14.1"}, "device": "cpu", "device_name": "AMD EPYC", "precision": "bf16"}
ENVIRONMENT |= {"threads": 1, "training_code": "c0de", "commit": "0" * 40, "uncommitted_changes": False}
SMALL_STUDY = """title: A study with few runs and the names of the study paper
primary: {arm: se_resnet18, baseline: resnet18}
recipe: {dataset: digits}
arms: {resnet18: {}, se_resnet18: {}, static_gate_resnet18: {}}
stages:
  - {name: primary, arms: [resnet18, se_resnet18], seeds: 6}
  - name: narrow
    arms: [resnet18, se_resnet18, static_gate_resnet18]
    seeds: 8
    variants: {quarter_width: {width: 0.25, reduction: 4}}
"""


def small_study(folder, more=""):
    """The study `small` from a file in this folder; more: lines at the end of the file."""
    (folder / "small.yaml").write_text(SMALL_STUDY + more)
    return load_study(folder / "small.yaml")


def make_study(study, gains_pp=None, only=lambda config: True, labels=LABELS, environment=lambda config: {}):
    """Write the folder of each run of a study for which only(config) holds, as a real run leaves it.

    gains_pp: {label of an arm, such as se_resnet18__quarter_width: its true gain in points}, by default none;
    labels: integers (N,) of the test images; environment(config): what environment.json holds instead of ENVIRONMENT.
    """
    with mock.patch("os.fsync"):  # nothing here must survive a power cut
        for config in filter(only, (*study.runs, *study.awaiting)):
            gain_pp = (gains_pp or {}).get(config.arm, 0.0)
            make_run(run_folder(study.name, config.arm, config.seed), config, gain_pp, labels, environment(config))


def make_run(folder, config, gain_pp=0.0, labels=LABELS, environment=None):
    """Write one run folder; its expected accuracy follows from width and epochs, plus gain_pp."""
    rng = np.random.default_rng([config.seed, *config.arm.encode()])
    accuracy = 0.91 + 0.02 * np.log2(config.width) + 0.015 * np.log2(config.epochs / 8) + gain_pp / 100
    environment = ENVIRONMENT | (environment or {})
    if config.validation_images:
        scores = {"val_accuracy": 0.85, "val_loss": 0.45}  # all cells tie, so the recipe's own stays
    else:
        logits = stored_logits(make_logits(rng, labels, accuracy + rng.normal(0, 0.001)))
        save_arrays(folder / "test_logits.npz", logits=logits, labels=labels.astype(np.uint8))
        scores = {"test_accuracy": float((logits.argmax(1) == labels).mean()), "test_loss": nll(logits, labels)}
        if any(gate in config.architecture for gate in ("se_", "static")):
            make_gates(folder, rng)
    write_table(folder / "metrics.csv", make_metrics(rng, config, accuracy))
    write_json(folder / "config.json", config.model_dump())
    write_json(folder / "environment.json", environment)
    size = {"parameters": round(11_173_962 * config.width**2) + ("se_" in config.architecture) * 87_040}
    size |= {"multiply_adds": round(556_000_000 * config.width**2), "train_seconds": 10.0 * config.epochs}
    origin = {"data_fingerprint": "f" * 64, "data_source": config.dataset, "logits_sha256": "0" * 64}
    times = {"finished_utc": f"2026-01-01T00:00:{config.seed % 60:02d}+00:00"}
    machine = {name: environment[name] for name in ("device", "precision")} | {"fixed_answers": {}}
    identity = {"config_hash": config_hash(config.model_dump())}
    write_json(folder / "summary.json", identity | origin | scores | size | times | machine)


def make_logits(rng, labels, accuracy):
    """Logits float32 (N, 10): the same images are easy and hard in every run, those between are right by chance."""
    place = (np.arange(len(labels)) * 0.6180339887 % 1 - accuracy) / 0.04
    right = np.where(np.abs(place) < 0.5, rng.random(len(labels)) < 0.5, place < 0)
    answers = np.where(right, labels, (labels + rng.integers(1, 10, len(labels))) % 10)
    logits = rng.normal(size=(len(labels), 10)).astype(np.float32)
    logits[np.arange(len(labels)), answers] += np.where(right, 8, 5)
    return logits


def make_metrics(rng, config, accuracy):
    """The table of metrics.csv: a row an epoch."""
    epochs = np.arange(1, config.epochs + 1)
    progress = epochs / config.epochs
    table = pd.DataFrame({"epoch": epochs, "train_seconds": 10.0, "images_per_second": 5000.0})
    table["learning_rate"] = config.learning_rate * (1 + np.cos(np.pi * progress)) / 2
    table["train_loss"] = 2.0 - 1.7 * progress + rng.normal(0, 0.01, len(epochs))
    return table.assign(train_accuracy=accuracy - 0.5 * (1 - progress))


def make_gates(folder, rng):
    """gates.csv and lesions.csv of a network with gates."""
    spread = rng.normal(0.05, 0.005, len(BLOCKS))
    gates = pd.DataFrame({"block": BLOCKS, "mean": 0.5, "sd_channels": spread, "sd_images": spread / 2})
    gates[["share_below_0.1", "share_above_0.9"]] = 0.0
    gates["eta_squared"] = np.linspace(0.05, 0.7, len(BLOCKS)) + rng.normal(0, 0.01, len(BLOCKS))
    write_table(folder / "gates.csv", gates.assign(eta_squared_null=0.001, eta_squared_null_95=0.002))
    lesions = [("none", "none", 0.9)]
    lesions += [(lesion, block, 0.88) for lesion in ("mean", "shuffled") for block in (*BLOCKS, "all")]
    table = pd.DataFrame(lesions, columns=["lesion", "block", "accuracy"])
    table["accuracy"] -= rng.integers(0, 10, len(table)) / 500
    write_table(folder / "lesions.csv", table.assign(loss=2 * (1 - table["accuracy"])))
