"""Train missing runs one after another in one process, for a GPU on which a run takes less time than its start.

Each architecture is compiled and captured once, and then trained seed after seed. Needs no Jupyter.
"""

import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, redirect_stdout

import numpy as np

from lib.data import load_dataset
from lib.files import STUDIES, StudyError, outputs_folder, read_json, run_folder
from lib.launch.pool import StudyProgress, visible_gpus, work
from lib.train.evaluate import evaluate
from lib.train.run import Run
from lib.train.trainer import PLAIN, StepError, gpu_faults_in_words, ladder, make_trainer, seat, true_float32

MARGIN = 1.15  # runs that are this much slower than the slowest so far still finish before the deadline
LAST_RUNG = 3  # of the ladder
TOLERANCE = 0.01  # relative, of the first eight losses on another device
# and of the first four in fp32: weights that differ by 1e-7 move the fourth loss by 0.04 %, but the eighth by 0.28 %
EARLY, EARLY_TOLERANCE = 4, 0.001


def run_sequence(study, configs, deadline=None):
    """Train the configs in order; returns how many of them failed, and how many the deadline kept from starting.

    deadline: on the clock time.monotonic(); runs of equal seed and length start only if all of them fit. Raises
    StudyError, before an arm is trained, where its first steps have other losses than in <study>.losses.json.
    """
    if not visible_gpus():
        print("there is no GPU here, so the CPU trains", file=sys.stderr)
    os.environ["STUDY_HEADLESS"] = "1"
    log = outputs_folder(study.name) / "logs" / "sequence.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(stack.enter_context(log.open("a", encoding="utf-8"))))
        progress = stack.enter_context(closing(StudyProgress(study, configs)))
        dataset, pace, left = load_dataset(configs[0].dataset), 0, 0
        sequence = _Sequence(study, dataset, progress, deadline)
        stack.callback(sequence.settle)
        for _, group in itertools.groupby(configs, lambda config: (config.seed, config.epochs, config.width)):
            group = list(group)
            sequence.release(configs[configs.index(group[0]) :])
            if deadline is not None and time.monotonic() + MARGIN * pace * sum(map(work, group)) > deadline:
                left += len(group)
                continue
            sequence.check(group)
            for config in group:
                trainer, started = sequence.trainer(config), time.monotonic()
                if sequence.train(config, trainer):
                    pace = max(pace, (time.monotonic() - started) / work(config))
    return progress.failed, left


class _Sequence:
    """The trainers so far, one a seat, and the run whose files are written while the next one trains."""

    def __init__(self, study, dataset, progress, deadline):
        self.study, self.dataset, self.progress, self.deadline = study, dataset, progress, deadline
        self.trainers, self.writer, self.written = {}, ThreadPoolExecutor(1), None

    def trainer(self, config):
        """The trainer of this seat; where its step does not work, the process starts anew with fewer speed-ups."""
        if seat(config) not in self.trainers:
            self.settle()
            rung = int(os.environ.get("STUDY_RUNG", 0))
            try:
                trainer = make_trainer(config, self.dataset, lambda *how: ladder(*how)[rung : rung + 1])
            except StepError:  # a capture that failed can leave the GPU in a state in which nothing else works
                if rung == LAST_RUNG:
                    raise
                sys.stdout.flush()  # the log says why
                os.environ |= {"STUDY_RUNG": str(rung + 1), "STUDY_DEADLINE": str(self.deadline or "")}
                os.execv(sys.executable, sys.orig_argv)
            self.trainers[seat(config)] = trainer
        return self.trainers[seat(config)]

    def release(self, configs):
        """Free the memory of trainers that none of the configs needs."""
        needed = set(map(seat, configs))
        self.trainers = {each: trainer for each, trainer in self.trainers.items() if each in needed}

    def train(self, config, trainer):
        """Train and evaluate one run, and begin to write its files; returns whether that went well."""
        submitted = False
        try:
            with ExitStack() as stack:
                run = Run(config, run_folder(self.study.name, config.arm, config.seed))
                stack.enter_context(run.training(self.dataset, trainer))
                while trainer.epoch < config.epochs:
                    run.save(trainer.train_epoch())
                    self.progress.show([config])
                evaluation = evaluate(trainer, self.dataset)
                self.settle()
                self.written = config, self.writer.submit(run.finish, evaluation), stack.pop_all()
                submitted = True
            if not submitted:  # a run of the tuning that has diverged
                self.progress.settle(config)
            return True
        except StudyError as error:
            self.progress.settle(config, str(error))
            return False

    def settle(self):
        """Wait until the files of the last run are written."""
        if self.written:
            (config, writing, training), self.written, problem = self.written, None, None
            try:
                with training:
                    writing.result()
            except StudyError as error:
                problem = str(error)
            self.progress.settle(config, problem)

    def check(self, configs):
        """Raise StudyError unless the first steps have the losses of the reference: plain in fp32, fast, restarted."""
        needed = set(map(seat, configs)) - set(self.trainers)
        expected = read_json(STUDIES / f"{self.study.name}.losses.json") or {}
        for config in self.study.runs:
            if expected.get(config.arm, {}).get("seed") == config.seed and seat(config) in needed:
                plain, fast = plain_trainer(config, self.dataset), self.trainer(config)
                for name, trainer in (("plain", plain), ("fast", fast), ("restarted", fast)):
                    with gpu_faults_in_words(), true_float32():
                        gaps = np.abs(trainer.first_losses(config.seed) / expected[config.arm]["losses"] - 1)
                    early, gap = gaps[:EARLY].max(), gaps.max()
                    told = f"{gap:.3%} from a CPU's, the first {EARLY} by {early:.3%}"
                    print(f"{config.arm}: losses of the {name} step differ by {told}", file=sys.stderr)
                    if not (gap <= TOLERANCE and (early <= EARLY_TOLERANCE or trainer.precision != "fp32")):
                        raise StudyError(f"the {name} step of {config.arm} has other losses than a CPU's: not trained")


def plain_trainer(config, dataset):
    """A trainer in fp32 without speed-ups."""
    return make_trainer(config.model_copy(update={"precision": "fp32"}), dataset, lambda *_: [PLAIN])
