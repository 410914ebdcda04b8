"""Write lib/studies/<study>.losses.json, which a campaign on a GPU checks its steps against: .ci/reference.py STUDY

To be run on a CPU with .venv/bin/python, whenever a training step is to change.
"""

import sys

from lib.data import load_dataset
from lib.files import write_json
from lib.launch.sequence import STUDIES, plain_trainer
from lib.study import load_study
from lib.train.trainer import seat


def write_reference(study):
    """Compute the losses of the first steps for the first run of each seat."""
    firsts = {seat(config): config for config in reversed(study.runs)}.values()
    trainers = {config.arm: plain_trainer(config, load_dataset(config.dataset)) for config in firsts}
    losses = {arm: (each.config.seed, each.first_losses(each.config.seed)) for arm, each in trainers.items()}
    reference = {arm: {"seed": seed, "losses": list(values)} for arm, (seed, values) in losses.items()}
    write_json(STUDIES / f"{study.name}.losses.json", reference)


if __name__ == "__main__":
    write_reference(load_study(sys.argv[1]))
