"""The golden record: what tiny runs and lists of runs were when the study was frozen; nothing may change them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.data import load_dataset
from lib.runs import config_hash
from lib.study import RunConfig, load_study
from lib.train.evaluate import fixed_answers
from lib.train.models import build_model, parameter_count
from lib.train.run import device_name
from lib.train.trainer import Trainer

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def this_machine():
    """What decides the last bits of a float32 result on a CPU."""
    capability, bf16 = torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_bf16_supported()
    return f"{torch.__version__} {capability} {device_name(torch.device('cpu'))} bf16={bf16}"


@pytest.mark.parametrize("name", GOLDEN["study_runs"])
def test_a_study_has_the_same_runs_with_the_same_settings(name):
    study = load_study(name)
    runs = [[config.arm, config.seed, config_hash(config.model_dump())] for config in (*study.runs, *study.awaiting)]
    found = {"runs": len(runs), "sha256": hashlib.sha256(json.dumps(runs).encode()).hexdigest()}
    assert found == GOLDEN["study_runs"][name]


@pytest.mark.parametrize("architecture", GOLDEN["runs"])
def test_a_tiny_run_gives_the_same_logits(architecture):
    golden = GOLDEN["runs"][architecture]
    settings = {"dataset": "digits", "width": 0.125, "reduction": 2, "epochs": 2, "batch_size": 64, "precision": "fp32"}
    config = RunConfig(arm=architecture, seed=3, architecture=architecture, **settings)
    torch.set_num_threads(1)  # sums in another order would differ in the last bits
    digits = load_dataset("digits")
    model = build_model(config, 10)
    trainer = Trainer(config, model, digits.train_images[:640], digits.train_labels[:640], torch.device("cpu"), "fp32")
    for _ in range(2):
        row = trainer.train_epoch()
    logits = trainer.predict(digits.test_images[:100])
    assert parameter_count(model) == golden["parameters"]
    if this_machine() == GOLDEN["machine"]:
        assert hashlib.sha256(logits.tobytes()).hexdigest() == golden["logits_sha256"]
    np.testing.assert_allclose(row["train_loss"], golden["train_loss"], rtol=0.02)
    np.testing.assert_allclose(logits[0], golden["first_logits"], atol=0.2)
    answers = fixed_answers(config)
    for moment, values in golden["fixed_answers"].items():
        np.testing.assert_allclose(answers[moment], values, atol=1e-3)
