"""What a trained network is asked before it is thrown away: test images, its gates, and what they do to the answers.

The test images are read here, once a run and after the last epoch, and nowhere else.
"""

import hashlib

import numpy as np
import pandas as pd

from lib.errors import DivergedError
from lib.gates import class_mean_gates, gate_statistics, lesions, predict_with_gates, record_gates
from lib.runs import save_arrays, save_logits, stored_logits, write_table
from lib.statistics import score


def evaluate_on_held_out(trainer, images, labels):
    """Accuracy and loss on images held out of the training images: {val_accuracy, val_loss}.

    Raises DivergedError for logits that are not finite.
    """
    logits = trainer.predict(images)
    _check_finite("validation", logits)
    return {f"val_{name}": value for name, value in score(logits, labels).items()}


def evaluate_on_test(trainer, dataset, folder):
    """Write all that the analysis needs of a trained network into its run folder; returns its scores for the summary.

    test_logits.npz and, for a network with gates, gates.csv, gates.npz and lesions.csv. Raises DivergedError for logits
    that are not finite.
    """
    images, labels = dataset.test_images, dataset.test_labels
    logits, gates = predict_with_gates(trainer.model, trainer.predict, images)
    scores = _save_predictions(logits, labels, folder / "test_logits.npz")
    if gates:
        _save_gates(gates, labels, len(dataset.classes), folder)
        chosen = slice(trainer.config.lesion_images)
        training = record_gates(trainer.model, trainer.predict, dataset.train_images[chosen])
        mean_gates = {block: values.mean(0) for block, values in training.items()}
        table = lesions(trainer.model, trainer.predict, images[chosen], labels[chosen], mean_gates)
        write_table(folder / "lesions.csv", pd.DataFrame(table))
    return scores


def _save_predictions(logits, labels, path):
    stored = stored_logits(logits)
    _check_finite("test", stored)
    save_logits(path, logits, labels)
    # Scores come from the logits as they are stored, so that anyone gets the same numbers from the file.
    scores = {f"test_{name}": value for name, value in score(stored, labels).items()}
    return scores | {"logits_sha256": hashlib.sha256(logits.tobytes()).hexdigest()}


def _check_finite(part, logits):
    if not np.isfinite(logits).all():
        raise DivergedError(f"the {part} logits are not finite: the run has failed; try a lower learning_rate")


def _save_gates(gates, labels, classes, folder):
    """Statistics of the gates {block: (N, C)} over all test images, a row a block, and their means for each class."""
    rows = [{"block": block, **gate_statistics(values, labels)} for block, values in gates.items()]
    write_table(folder / "gates.csv", pd.DataFrame(rows))
    means = {block: class_mean_gates(values, labels, classes).astype(np.float16) for block, values in gates.items()}
    save_arrays(folder / "gates.npz", **means)
