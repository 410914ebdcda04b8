"""One run and its folder: what is finished, training that can be stopped and go on, and the summary written last."""

import contextlib
import copy
import dataclasses
import datetime
import hashlib
import io
import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.files import StudyError, atomic_write, git, lock, outputs_folder, read_json, shown, write_json, write_table
from lib.runs import config_hash, read_summary, save_arrays, stored_logits
from lib.train.evaluate import fixed_answers, gate_statistics
from lib.train.models import multiply_adds, parameter_count
from lib.train.progress import RunProgress
from lib.train.trainer import DivergedError, gpu_faults_in_words, make_trainer

CHECKPOINT_SECONDS = 20  # training time between checkpoints, so that saving stays a small share of it
ANSWER_TOLERANCE = 0.002  # of the largest answer; processors of two makers differ by a tenth of it
TRAINING_CODE = ("augment.py", "trainer.py")  # what both runs of a pair share; the network is told by fixed_answers
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "papermill")


class Interrupted(KeyboardInterrupt):
    """A person has stopped the training: what to do next, in one line."""

    _render_traceback_ = StudyError._render_traceback_


class Run:
    """One run of a study in its folder.

    `summary` is that of a complete run, else None. Raises StudyError where the folder holds a run of other settings.
    """

    def __init__(self, config, folder):
        self.config, self.folder = config, folder
        self.summary = read_summary(folder, config)

    @property
    def stale(self):
        """One line, if the code now builds or trains another network than the one of this complete run; else None."""
        answers = (self.summary or {}).get("fixed_answers")  # a run without them cannot be compared
        if answers and not _agree(answers, fixed_answers(self.config)):
            return f"stale: this run stems from another network than the code's: delete {shown(self.folder)}, run again"

    @contextlib.contextmanager
    def training(self, dataset, trainer=None):
        """A Trainer at the last checkpoint, or at its start, for the body to train, `save` and `finish`.

        trainer: one that has served another run, of settings with an equal `seat`; by default one is made.
        A person who interrupts loses the current epoch only, and gets Interrupted. Raises StudyError when another
        process works on the run and for a checkpoint of other settings or of another network; and DivergedError, except
        for a run of the tuning, which counts as accuracy 0, since settings that diverge cannot win.
        """
        with lock(self.folder, f"{self.config.arm} seed {self.config.seed}"):
            if read_summary(self.folder, self.config):
                raise StudyError(f"{shown(self.folder)} is complete by now: run all cells again to see it")
            self.rows, self._unsaved, self._progress = [], None, RunProgress(self.config)
            self._answers = fixed_answers(self.config)  # a failure here is one of the code, not of this run
            try:
                with gpu_faults_in_words():
                    yield self._start(dataset, trainer)
            except KeyboardInterrupt:
                if self._unsaved:
                    self._save_checkpoint(*self._unsaved)
                raise Interrupted("run this again, and it goes on after the last finished epoch") from None
            except DivergedError as error:
                if not self.config.validation_images:
                    write_json(self.folder / "failure.json", {"reason": str(error)})
                    raise
                self._write_summary({"val_accuracy": 0.0, "val_loss": None, "diverged": str(error)})
            finally:
                self._progress.close()

    def save(self, row):
        """Keep a row of metrics and, when one is due, a checkpoint."""
        self.rows.append(row)
        write_table(self.folder / "metrics.csv", pd.DataFrame(self.rows))
        state = self._trainer.state()
        if row["epoch"] == self.config.epochs or time.perf_counter() - self._saved >= CHECKPOINT_SECONDS:
            self._save_checkpoint(state, self.rows)
        else:
            self._unsaved = copy.deepcopy((state, self.rows))  # the next epoch changes both in place
        self._progress.show(self.rows)

    def finish(self, evaluation):
        """Write all that the run keeps, the summary last; needs no trainer. StudyError where epochs are missing."""
        if len(self.rows) < self.config.epochs:
            raise StudyError(f"{shown(self.folder)} has {len(self.rows)} of {self.config.epochs} epochs: train on")
        if evaluation.logits is not None:
            labels = evaluation.labels.astype(np.uint8)
            save_arrays(self.folder / "test_logits.npz", logits=stored_logits(evaluation.logits), labels=labels)
        if evaluation.gates is not None:
            gates = evaluation.gates.items()
            table = [{"block": block, **gate_statistics(values, evaluation.labels)} for block, values in gates]
            write_table(self.folder / "gates.csv", pd.DataFrame(table))
            write_table(self.folder / "lesions.csv", evaluation.lesions)
        self._write_summary(evaluation.scores)

    def _start(self, dataset, trainer):
        config, self._trainer = self.config, trainer or make_trainer(self.config, dataset)
        if trainer:
            trainer.restart(config)
        self._data = {"data_fingerprint": dataset.fingerprint, "data_source": dataset.source}
        self._machine = {"device": self._trainer.device.type, "precision": self._trainer.precision}
        self._saved = time.perf_counter()
        self._resume()
        model = self._trainer.model
        self._costs = {"parameters": parameter_count(model), "multiply_adds": multiply_adds(model)}
        write_json(self.folder / "config.json", config.model_dump())
        self._write_environment()
        self._progress.show(self.rows)
        return self._trainer

    def _save_checkpoint(self, state, rows):
        content = {"config": self.config.model_dump(), "fingerprint": self._data["data_fingerprint"]}
        content |= {"machine": self._machine, "fixed_answers": self._answers, "rows": rows, "trainer": state}
        buffer = io.BytesIO()  # torch.save itself tells of a full disk in words that nobody understands
        torch.save(content, buffer)
        atomic_write(self.folder / "checkpoint.pt", buffer.getbuffer())
        self._saved, self._unsaved = time.perf_counter(), None

    def _resume(self):
        """Bring trainer and rows to the checkpoint in the folder; leave them at the start where there is none."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self._trainer.device, weights_only=True)
            settings, machine = self.config.differences(state["config"]), state["machine"]
        except Exception:  # noqa: BLE001 a file can be damaged in many ways
            print(f"{shown(path)} is damaged: starting over")
            return
        anew = f"delete {shown(self.folder)} to train anew"
        if settings:
            raise StudyError(f"{shown(path)} has other settings ({'; '.join(settings)}): go back to them, or {anew}")
        if state["fingerprint"] != self._data["data_fingerprint"]:
            raise StudyError(f"{shown(path)} stems from other images: bring those back, or {anew}")
        if not _agree(state["fixed_answers"], self._answers):
            raise StudyError(f"{shown(path)} stems from another network than today's code: go back to it, or {anew}")
        if machine != self._machine:
            there, here = (f"{each['precision']} on {each['device']}" for each in (machine, self._machine))
            raise StudyError(f"{shown(path)} was trained in {there}, which cannot go on in {here}: go back, or {anew}")
        self._trainer.restore(state["trainer"])
        self.rows = state["rows"]

    def _write_environment(self):
        """Write environment.json; a run that goes on elsewhere, or with other code, keeps the earlier records in it."""
        path, environment = self.folder / "environment.json", describe_environment(self._trainer)
        if self.rows and (earlier := read_json(path)):
            history = earlier.pop("earlier", [])
            environment["earlier"] = history + [earlier] * (earlier != environment)
        write_json(path, environment)

    def _write_summary(self, scores):
        self.summary = {"config_hash": config_hash(self.config.model_dump())} | self._data | scores | self._costs
        self.summary["train_seconds"] = sum(row["train_seconds"] for row in self.rows)
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.summary |= self._machine | {"fixed_answers": self._answers, "finished_utc": finished}
        write_json(self.folder / "summary.json", self.summary)
        for left in ("checkpoint.pt", "failure.json"):
            (self.folder / left).unlink(missing_ok=True)


def _agree(answers, others):
    """Whether two sets of fixed answers stem from the same network."""
    pairs = [(np.array(answers[moment]), np.array(other)) for moment, other in others.items()]
    return all(np.allclose(a, b, rtol=0, atol=ANSWER_TOLERANCE * np.abs(a).max()) for a, b in pairs)


def describe_environment(trainer):
    """What a run is trained on, for environment.json: versions, device, threads, code; no host or user names."""
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    told = os.environ.get("STUDY_COMMIT")  # of a copy, whatever history lies beside it
    changes = None if told else git("status", "--porcelain", "--", "lib", "notebooks")
    system, device = f"{platform.system()} {platform.machine()}", trainer.device
    kept = {"python": platform.python_version(), "system": system, "packages": packages}
    kept |= {"device": device.type, "device_name": device_name(device), "precision": trainer.precision}
    kept |= {"speedups": dataclasses.asdict(trainer.speedups), "threads": torch.get_num_threads()}
    kept |= {"cpu_count": os.cpu_count(), "training_code": _training_code(), "commit": told or git("rev-parse", "HEAD")}
    return kept | {"uncommitted_changes": None if changes is None else bool(changes)}


def _training_code():
    """First 16 hex digits of the SHA-256 of the code that trains."""
    digest = hashlib.sha256()
    for name in TRAINING_CODE:
        digest.update((Path(__file__).parent / name).read_text(encoding="utf-8").encode())
    return digest.hexdigest()[:16]


def device_name(device):
    """The name that the GPU or the processor gives itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def benchmark_folder(device):
    """outputs/benchmark/<machine>/, named after the processor or GPU."""
    return outputs_folder("benchmark") / re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
