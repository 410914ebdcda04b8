"""Run the missing runs of a study, several at a time, each as one papermill execution of train.ipynb."""

import contextlib
import sys
import time

from tqdm import tqdm

from lib import estimate
from lib.data import load_dataset
from lib.errors import StudyError
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS, outputs_folder, run_folder, shown
from lib.runs import ORIGIN_KEYS, finished_runs

POLL_SECONDS = 0.5
MARGIN = 1.25  # a run that is this much slower than expected still finishes in the time budget


def missing_runs(study):
    """Configs of the runs that are not complete, in the order of the study."""
    finished = {(config.arm, config.seed) for config, _, _ in finished_runs(study)}
    return [config for config in study.runs if (config.arm, config.seed) not in finished]


def check_comparable(study, config, precision=None):
    """Fetch the images of a run that is to come; raises StudyError where it could not be compared with finished runs.

    precision: that the run will have; left out where only a job that has not started yet can tell.
    """
    dataset = load_dataset(config.dataset)
    for _, _, summary in finished_runs(study)[:1]:
        there = tuple(summary[key] for key in ORIGIN_KEYS)
        here = (dataset.source, dataset.fingerprint, precision or summary["precision"])
        if there != here:
            shapes = ["{} ({:.12}) in {}".format(*origin) for origin in (there, here)]
            raise StudyError(
                f"{shown(outputs_folder(study.name))} has runs on {shapes[0]} and this would add runs on {shapes[1]}: "
                "bring the same images and a like machine, or set STUDY_OUTPUTS to an empty folder"
            )


def start_run(study, study_name, config, environment):
    """Start train.ipynb for one run; returns its NotebookProcess."""
    folder = run_folder(study.name, config.arm, config.seed)
    log = outputs_folder(study.name) / "logs" / f"{config.arm}-seed-{config.seed:02d}.log"
    parameters = {"study": study_name, "arm": config.arm, "seed": config.seed}
    return NotebookProcess(NOTEBOOKS / "train.ipynb", folder / "notebook.ipynb", log, parameters, environment)


class EpochBar:
    """A progress bar over the epochs of runs, and in `failures` an error line of each run that has failed."""

    def __init__(self, study, configs):
        total = sum(config.epochs for config in configs)
        seconds = 1 if sys.stderr.isatty() else 60  # between redraws: a log is no terminal
        # without miniters=0 it would not be redrawn while no epoch ends
        self.bar = tqdm(total=total, unit="epoch", mininterval=seconds, miniters=0, dynamic_ncols=True)
        self.study, self.settled_epochs, self.failures = study, 0, []

    def show(self, running, note=""):
        """Show the epochs that are done by now, which runs are running, and a note behind them."""
        done = self.settled_epochs + sum(_epochs_done(self.study, config) for config in running)
        names = [f"{config.arm} seed {config.seed}" for config in running]
        self.bar.set_postfix_str(", ".join([*names, note] if note else names), refresh=False)
        self.bar.update(done - self.bar.n)

    def settle(self, config, error=None):
        """Count a run as over, failed where there is an error."""
        self.settled_epochs += config.epochs
        if error:
            self.failures.append(f"{config.arm} seed {config.seed}: {error}")
            self.bar.write(f"failed: {self.failures[-1]}")

    def close(self):
        """Leave the bar as it is."""
        self.bar.close()


class Queue:
    """The missing runs of a study on a number of slots.

    study_name: what the notebook's parameter `study` gets. seconds_per_work: the expected time of a unit of work in a slot,
    then that of the slowest run that has started and finished here. seconds_left: how long work may take, or None.
    """

    def __init__(self, study, study_name, configs, slots, seconds_per_work, seconds_left=None):
        self.study, self.study_name, self.waiting = study, study_name, list(configs)
        self.free, self.running = list(slots), {}
        self.seconds_per_work, self.measured = seconds_per_work, []
        self.deadline = None if seconds_left is None else time.monotonic() + seconds_left
        self.not_started = []

    def work(self):
        """Run everything, with a progress bar over epochs; returns the error lines of the runs that failed.

        A run that fails does not stop the others. Ctrl-C stops all of them at their last checkpoints. The configs that
        the time limit kept from starting are left in `not_started`.
        """
        with contextlib.closing(EpochBar(self.study, self.waiting)) as self.bar:
            try:
                while self.waiting or self.running:
                    self._start_what_fits()
                    self.bar.show(self.running)
                    time.sleep(POLL_SECONDS)
                    self._collect()
            finally:
                for process, *_ in self.running.values():
                    process.stop()
        return self.bar.failures

    def _start_what_fits(self):
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            self.not_started += [config for config in self.waiting if self._seconds(config) > left]
            self.waiting = [config for config in self.waiting if self._seconds(config) <= left]
        while self.waiting and self.free:
            config, slot = self.waiting.pop(0), self.free.pop(0)
            try:
                process = start_run(self.study, self.study_name, config, slot)
            except StudyError as error:
                self._settle(config, slot, str(error))
                continue
            fresh = not _epochs_done(self.study, config)
            self.running[config] = (process, slot, time.monotonic(), fresh)

    def _seconds(self, config):
        return estimate.NOTEBOOK_SECONDS + MARGIN * self.seconds_per_work * estimate.work(config)

    def _collect(self):
        for config, (process, slot, started, fresh) in list(self.running.items()):
            if not process.finished():
                continue
            del self.running[config]
            if fresh and not process.failed:
                self.measured.append((time.monotonic() - started) / estimate.work(config))
                self.seconds_per_work = max(self.measured)
            self._settle(config, slot, process.error() if process.failed else None)

    def _settle(self, config, slot, error):
        self.free.append(slot)
        self.bar.settle(config, error)


def _epochs_done(study, config):
    path = run_folder(study.name, config.arm, config.seed) / "metrics.csv"
    try:
        return max(0, len(path.read_text().splitlines()) - 1)
    except OSError:
        return 0


def ensure_notebooks(study, study_name, environment):
    """Path of one executed training notebook of each arm of the study file with a complete run, {arm: path}.

    Where a finished run has lost its notebook, it is executed again, which shows the run without repeating it; an arm
    for which that fails is left out with a line that says so.
    """
    notebooks, arms = {}, {arm for stage in study.stages for arm in stage.arms}
    finished = [(config, folder) for config, folder, _ in finished_runs(study) if config.arm in arms]
    for config, folder in finished:
        if (folder / "notebook.ipynb").exists():
            notebooks.setdefault(config.arm, folder / "notebook.ipynb")
    for config, folder in finished:
        if config.arm not in notebooks:
            try:
                start_run(study, study_name, config, environment).wait()
                notebooks[config.arm] = folder / "notebook.ipynb"
            except StudyError as error:
                print(f"no training notebook of {config.arm} in {shown(folder)}: {error}")
                notebooks[config.arm] = None
    return {arm: path for arm, path in notebooks.items() if path}
