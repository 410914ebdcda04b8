"""Train the missing runs of a study on this machine, several at a time, each as one execution of train.ipynb."""

import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

from tqdm import tqdm

from lib.data import load_dataset
from lib.files import StudyError, read_json, run_folder, shown
from lib.launch.notebook import run_process
from lib.runs import diverged_runs, finished_runs, read_summary

POLL_SECONDS = 0.5
LINE_SECONDS = 60  # between lines where there is no terminal for a bar
NOTEBOOK_SECONDS = 20  # start, images, test and saving around the training of a run
MARGIN = 1.25  # a run that is this much slower than expected still finishes in the time budget
TRAINING_IMAGES = {"cifar10": 50_000, "digits": 1297}


def visible_gpus():
    """What CUDA_VISIBLE_DEVICES would say for each GPU, one string each; StudyError for one too old for torch."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    supported = [int(name.removeprefix("sm_")) for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    for index in range(count):
        major, minor = torch.cuda.get_device_capability(index)
        if 10 * major + minor < min(supported, default=0):
            name = torch.cuda.get_device_name(index)
            raise StudyError(f"{name} is too old for this torch: the first lines of environment.yml name one for it")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def slots(gpus, jobs=None):
    """Environment variables of each of the runs at a time: a GPU in turn, and an equal share of the CPU threads.

    jobs: how many, by default one on each GPU, or two on a CPU, since each needs about 2 GB of memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = jobs or len(gpus) or min(2, cores)
    limits = {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    return [limits | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}) for slot in range(jobs)]


def missing_runs(study):
    """Configs of the runs that are not complete and have not diverged either, in the order of the study."""
    done = {config for config, _, _ in (*finished_runs(study), *diverged_runs(study))}
    return [config for config in study.runs if config not in done]


def check_trainable(study, configs):
    """Build each network and fetch the images; StudyError where that fails or does not fit finished runs."""
    import torch

    from lib.train.models import build_model
    from lib.train.run import Run

    with torch.device("meta"):
        for config in {config.arm: config for config in configs}.values():
            build_model(config, 10)
    finished, arms = finished_runs(study), {config.arm for config in configs}
    asked = [run[:2] for run in finished if run[0].arm in arms]  # the first and the last of each arm
    ends = [{config.arm: (config, folder) for config, folder in each} for each in (asked[::-1], asked)]
    for config, folder in dict.fromkeys((*ends[0].values(), *ends[1].values())):
        if stale := Run(config, folder).stale:
            raise StudyError(stale)
    dataset = load_dataset(configs[0].dataset)
    for _, folder, summary in finished[:1]:
        if summary["data_fingerprint"] != dataset.fingerprint:
            other = f"{shown(folder)} was trained on other images ({summary['data_source']}) than those that are here"
            raise StudyError(f"{other}: bring the same ones, or set STUDY_OUTPUTS to an empty folder")


class Pool:
    """Runs of a study on a number of slots, as `slots` gives them; name: what the notebook's parameter `study` gets.

    deadline: on the clock time.monotonic(). A run that would not be finished by then gives way to shorter ones.
    """

    def __init__(self, study, name, configs, slots, deadline=None):
        self.study, self.name, self.slots, self.deadline = study, name, slots, deadline
        self.waiting, self.running, self.stopped = list(configs), {}, False
        self.lock, self.progress = threading.Lock(), StudyProgress(study, configs)
        here = "cuda" if "CUDA_VISIBLE_DEVICES" in slots[0] else "cpu"
        known = [pace(*finished) for finished in finished_runs(study) if finished[2].get("device") == here]
        self.pace, self.measured = max(known, default=None), []

    def work(self):
        """Run everything; returns how many runs failed, and how many the deadline kept from starting."""
        with contextlib.closing(self.progress), ThreadPoolExecutor(len(self.slots)) as threads:
            workers = [threads.submit(self._work_in, slot) for slot in self.slots]
            try:
                while wait(workers, POLL_SECONDS).not_done:
                    with self.lock:
                        self.progress.show(list(self.running))
            finally:
                with self.lock:
                    self.stopped = True
                    for process in self.running.values():
                        process.stop()
        for worker in workers:
            worker.result()
        return self.progress.failed, len(self.waiting)

    def _work_in(self, slot):
        while (config := self._next(slot)) is not None:
            error = None
            try:
                self._execute(config, slot)
            except StudyError as failure:
                error = str(failure)
            with self.lock:
                self.running.pop(config, None)
                if not self.stopped:
                    self.progress.settle(config, error)

    def _next(self, slot):
        with self.lock:
            config = next((config for config in self.waiting if self._fits(config, slot)), None)
            if config is not None:
                self.waiting.remove(config)
            return None if self.stopped else config

    def _execute(self, config, slot):
        with self.lock:
            if self.stopped:
                return
            process = self.running[config] = run_process(self.study, self.name, config, slot)
        process.wait()
        folder = run_folder(self.study.name, config.arm, config.seed)
        if (summary := read_summary(folder, config)) is None:
            raise StudyError(f"train.ipynb has ended, but the run in {shown(folder)} is not complete")
        with self.lock:
            self.measured.append(pace(config, folder, summary))
            self.pace = max(self.measured)

    def _fits(self, config, slot):
        """Whether a run would be finished in time; as long as nothing has ever finished, nobody knows."""
        if self.deadline is None or self.pace is None:
            return True
        threads = 1 if "CUDA_VISIBLE_DEVICES" in slot else int(slot["OMP_NUM_THREADS"])
        left = 1 - epochs_done(self.study, config) / config.epochs
        return time.monotonic() + NOTEBOOK_SECONDS + MARGIN * self.pace * work(config) * left / threads <= self.deadline


class StudyProgress:
    """The epochs that are done: a bar on a terminal, else a line now and then; and a line for each run that ends."""

    def __init__(self, study, configs):
        self.bar = tqdm(total=sum(config.epochs for config in configs), unit="epoch", disable=not sys.stderr.isatty())
        self.study, self.settled_epochs, self.failed, self.last_line = study, 0, 0, time.monotonic()

    def show(self, running, note=""):
        """Show the epochs that are done by now, which runs are running, and a note behind them."""
        done = self.settled_epochs + sum(epochs_done(self.study, config) for config in running)
        told = ", ".join([f"{config.arm} seed {config.seed}" for config in running] + [note] * bool(note))
        if self.bar.disable and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            print(f"{done} of {self.bar.total} epochs; {told}", file=sys.stderr, flush=True)
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(done - self.bar.n)

    def settle(self, config, error=None):
        """Count a run as over, failed where there is an error."""
        self.settled_epochs += config.epochs
        self.failed += error is not None
        run = f"{config.arm} seed {config.seed}"
        self.bar.write(f"failed: {run}: {error}" if error else f"done: {run}", file=sys.stderr)

    def close(self):
        """Leave the bar where it is."""
        self.bar.update(self.settled_epochs - self.bar.n)
        self.bar.close()


def epochs_done(study, config):
    """Number of epochs in the metrics that a run has written so far."""
    path = run_folder(study.name, config.arm, config.seed) / "metrics.csv"
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.exists() else 0


def work(config):
    """What training a run costs, in an arbitrary unit: half width takes a third and quarter width a tenth of full."""
    images = TRAINING_IMAGES[config.dataset] - config.validation_images
    return config.epochs * images * (config.width**2 + 0.23 * config.width)


def pace(config, folder, summary):
    """Seconds that a finished run took for a unit of work: on a GPU, or with one thread of a CPU."""
    threads = (read_json(folder / "environment.json") or {}).get("threads", 1) if summary.get("device") == "cpu" else 1
    return summary["train_seconds"] * threads / work(config)
