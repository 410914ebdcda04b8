"""What a trained network is asked before it is thrown away: test images, corrupted copies, original bytes, gates.

The test images are read here, once a run and after the last epoch, and nowhere else.
"""

import hashlib

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from lib.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from lib.errors import DivergedError
from lib.gates import class_mean_gates, gate_statistics, interventions, predict_with_gates, record_gates
from lib.lossless import load_lossless_test
from lib.runs import save_arrays, save_logits, write_table
from lib.statistics import score

CALIBRATION_BINS = 15


def evaluate_on_held_out(trainer, images, labels):
    """Accuracy and loss on images held out of the training images: {val_accuracy, val_loss}.

    Raises DivergedError for logits that are not finite.
    """
    logits = trainer.predict(images)
    _check_finite("validation", logits)
    return {f"val_{name}": value for name, value in score(logits, labels).items()}


def evaluate_on_test(trainer, dataset, folder):
    """Write all that the analysis needs of a trained network into its run folder; returns its scores for the summary.

    test_logits.npz, corruptions.csv and, where they apply, lossless_logits.npz, gates.csv, gates.npz and
    interventions.csv. Raises DivergedError for logits that are not finite.
    """
    images, labels = dataset.test_images, dataset.test_labels
    probed = slice(trainer.config.probe_images)
    logits, gates = predict_with_gates(trainer.model, trainer.predict, images)
    scores = _save_predictions(logits, labels, folder / "test_logits.npz")
    corrupted = corruption_scores(trainer.predict, images[probed], labels[probed])
    write_table(folder / "corruptions.csv", corrupted)
    scores["corruption_accuracy"] = float(corrupted["accuracy"].mean())
    scores["lossless_accuracy"] = _evaluate_lossless(trainer, dataset, folder)
    if gates:
        _save_gates(gates, labels, len(dataset.classes), folder)
        training = record_gates(trainer.model, trainer.predict, dataset.train_images[probed])
        mean_gates = {block: values.mean(0) for block, values in training.items()}
        lesions = interventions(trainer.model, trainer.predict, images[probed], labels[probed], mean_gates)
        write_table(folder / "interventions.csv", pd.DataFrame(lesions))
    return scores


def _save_predictions(logits, labels, path):
    with np.errstate(over="ignore"):
        stored = logits.astype(np.float16)
    _check_finite("test", stored)
    save_logits(path, stored, labels)
    # Scores come from the logits as they are stored, so that anyone gets the same numbers from the file.
    probabilities = torch.from_numpy(stored).double().softmax(1)
    targets = torch.from_numpy(labels.astype(np.int64))
    error = multiclass_calibration_error(probabilities, targets, stored.shape[1], n_bins=CALIBRATION_BINS)
    scores = {f"test_{name}": value for name, value in score(stored, labels).items()}
    return scores | {"test_ece": float(error), "logits_sha256": hashlib.sha256(logits.tobytes()).hexdigest()}


def _check_finite(part, logits):
    if not np.isfinite(logits).all():
        raise DivergedError(f"the {part} logits are not finite: the run has failed; try a lower learning_rate")


def corruption_scores(predict, images, labels):
    """One row for each corruption and severity: accuracy (fraction) and loss (nats) on the same corrupted images."""
    rows = []
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            scores = score(predict(corrupt(images, name, severity)), labels)
            rows.append({"corruption": name, "severity": severity, **scores})
    return pd.DataFrame(rows)


def _evaluate_lossless(trainer, dataset, folder):
    """Accuracy on those test images whose original bytes are here beside a JPEG copy; None where they are not."""
    lossless = load_lossless_test(dataset)
    if lossless is None:
        return None
    logits = trainer.predict(lossless.images)
    save_logits(folder / "lossless_logits.npz", logits, lossless.labels, indices=lossless.indices)
    return score(logits.astype(np.float16), lossless.labels)["accuracy"]


def _save_gates(gates, labels, classes, folder):
    """Statistics of the gates {block: (N, C)} over all test images, a row a block, and their means for each class."""
    rows = [{"block": block, **gate_statistics(values, labels)} for block, values in gates.items()]
    write_table(folder / "gates.csv", pd.DataFrame(rows))
    means = {block: class_mean_gates(values, labels, classes).astype(np.float16) for block, values in gates.items()}
    save_arrays(folder / "gates.npz", **means)
