"""Run the missing runs of a study, several at a time, each as one papermill execution of train.ipynb."""

import os
import sys
import time

from tqdm import tqdm

from lib import estimate
from lib.errors import StudyError
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS, outputs_folder, run_folder, shown
from lib.runs import finished_runs

POLL_SECONDS = 0.5
NOTEBOOK_SECONDS = 20  # start, images, test and saving around the training
MOST_RUNS_PER_GPU = 4
WORTH_ANOTHER = 1.05  # times the runs an hour that one more run at a time must bring
MARGIN = 1.25  # a run that is this much slower than expected still finishes in the time budget


def missing_runs(study):
    """Configs of the runs that are not complete, in the order of the study."""
    finished = {(config.arm, config.seed) for config, _, _ in finished_runs(study)}
    return [config for config in study.runs if (config.arm, config.seed) not in finished]


def visible_gpus():
    """What CUDA_VISIBLE_DEVICES would say for each GPU, one string each; StudyError for one too old for torch."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    for index in range(count):
        major, minor = torch.cuda.get_device_capability(index)
        supported = [int(name.removeprefix("sm_")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
        if supported and 10 * major + minor < min(supported):
            raise StudyError(
                f"{torch.cuda.get_device_name(index)} is too old for torch {torch.__version__}: put torch==2.7.1 and "
                "torchvision==0.22.1 into environment.yml, or set CUDA_VISIBLE_DEVICES= to use the CPU"
            )
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def cpu_cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def slot_environments(jobs, gpus):
    """Environment variables of each of `jobs` concurrent runs: a GPU in turn, an equal share of the CPU threads."""
    threads = str(max(1, cpu_cores() // jobs))
    shares = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return [shares | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}) for slot in range(jobs)]


def choose_slots(config, gpus, jobs=None):
    """The slots for runs like this one, as slot_environments gives them, and the seconds of training an image in one.

    jobs: runs at a time; by default two on a CPU, and on each GPU as many as finish the most runs an hour, measured on
    the first one. More than two on a CPU would need more memory, about 2 GB each, than many laptops have to spare.
    """
    devices = max(1, len(gpus))
    most = len(gpus) * MOST_RUNS_PER_GPU or min(2, cpu_cores())
    candidates = [jobs] if jobs else range(devices, most + 1, devices) if gpus else [most]
    best, best_rate = None, 0
    for candidate in candidates:
        slots = slot_environments(candidate, gpus)
        try:
            slowest = min(estimate.images_per_second(config, slots[::devices]))  # those on the first device
        except StudyError:
            if best is None:
                raise
            break  # so many do not fit into its memory
        rate = candidate / (NOTEBOOK_SECONDS + estimate.images_to_train(config) / slowest)
        if rate < WORTH_ANOTHER * best_rate:
            break
        best, best_rate = (slots, 1 / slowest), rate
    return best


def start_run(study, study_name, config, environment):
    """Start train.ipynb for one run; returns its NotebookProcess."""
    folder = run_folder(study.name, config.arm, config.seed)
    log = outputs_folder(study.name) / "logs" / f"{config.arm}-seed-{config.seed:02d}.log"
    parameters = {"study": study_name, "arm": config.arm, "seed": config.seed}
    return NotebookProcess(NOTEBOOKS / "train.ipynb", folder / "notebook.ipynb", log, parameters, environment)


class Queue:
    """The missing runs of a study on a number of slots.

    study_name: what the notebook's parameter `study` gets. seconds_per_image: the expected time of training in a slot,
    then that of the slowest run that has started and finished here. seconds_left: how long work may take, or None.
    """

    def __init__(self, study, study_name, configs, slots, seconds_per_image, seconds_left=None):
        self.study, self.study_name, self.waiting = study, study_name, list(configs)
        self.free, self.running = list(slots), {}
        self.seconds_per_image, self.measured = seconds_per_image, []
        self.deadline = None if seconds_left is None else time.monotonic() + seconds_left
        self.failures, self.not_started = [], []

    def work(self):
        """Run everything, with a progress bar over epochs; returns the error lines of the runs that failed.

        A run that fails does not stop the others. Ctrl-C stops all of them at their last checkpoints. The configs that
        the time limit kept from starting are left in `not_started`.
        """
        total = sum(config.epochs for config in self.waiting)
        seconds = 1 if sys.stderr.isatty() else 60  # between redraws: a log is no terminal
        with tqdm(total=total, unit="epoch", mininterval=seconds, dynamic_ncols=True) as bar:
            self.bar, self.settled_epochs = bar, 0
            try:
                while self.waiting or self.running:
                    self._start_what_fits()
                    self._show_progress()
                    time.sleep(POLL_SECONDS)
                    self._collect()
            finally:
                for process, *_ in self.running.values():
                    process.stop()
        return self.failures

    def _start_what_fits(self):
        while self.waiting and self.free:
            if self.deadline is not None and time.monotonic() + self._seconds(self.waiting[0]) > self.deadline:
                self.not_started, self.waiting = self.waiting, []
                return
            config, slot = self.waiting.pop(0), self.free.pop(0)
            try:
                process = start_run(self.study, self.study_name, config, slot)
            except StudyError as error:
                self._settle(config, slot, str(error))
                continue
            fresh = not _epochs_done(self.study, config)
            self.running[config] = (process, slot, time.monotonic(), fresh)

    def _seconds(self, config):
        return NOTEBOOK_SECONDS + MARGIN * self.seconds_per_image * estimate.images_to_train(config)

    def _collect(self):
        for config, (process, slot, started, fresh) in list(self.running.items()):
            if not process.finished():
                continue
            del self.running[config]
            if fresh and not process.failed:
                self.measured.append((time.monotonic() - started) / estimate.images_to_train(config))
                self.seconds_per_image = max(self.measured)
            self._settle(config, slot, process.error() if process.failed else None)

    def _settle(self, config, slot, error):
        self.free.append(slot)
        self.settled_epochs += config.epochs
        if error:
            self.failures.append(f"{config.arm} seed {config.seed}: {error}")
            self.bar.write(f"failed: {self.failures[-1]}")

    def _show_progress(self):
        done = self.settled_epochs + sum(_epochs_done(self.study, config) for config in self.running)
        running = ", ".join(f"{config.arm} seed {config.seed}" for config in self.running)
        self.bar.set_postfix_str(running, refresh=False)
        self.bar.update(done - self.bar.n)


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
