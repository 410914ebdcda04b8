"""Run the missing runs of a study as SLURM jobs: one job array through submitit, watched until all of it has ended.

What the user of a cluster chooses comes from sbatch's own variables (SBATCH_PARTITION, SBATCH_TIMELIMIT, …), which go
before what is set here. All nodes must share the folders of images and results, and the locks of files in them.
"""

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import time

from lib.devices import choose_device, resolve_precision
from lib.errors import StudyError
from lib.launch import EpochBar, check_comparable, start_run
from lib.paths import ROOT, data_folder, outputs_folder, run_folder
from lib.runs import lock
from lib.slots import thread_limits, visible_gpus

POLL_SECONDS = 5
VISIBLE_SECONDS = 60  # that a file of another node may take to be seen here
FORGOTTEN = "no longer known to SLURM"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", FORGOTTEN}


def check_slurm():
    """Raise StudyError where no jobs can be submitted."""
    if not shutil.which("sbatch"):
        raise StudyError("--engine slurm needs sbatch, which is not here: log in to a machine of the cluster")
    if importlib.util.find_spec("submitit") is None:
        raise StudyError("--engine slurm needs submitit: .venv/bin/python -m pip install -e '.[slurm]'")


def partition_has_gpus():
    """Whether the partition that SBATCH_PARTITION names, else the default one, has GPUs; StudyError without answer."""
    chosen = os.environ.get("SBATCH_PARTITION")
    lines = _ask("sinfo", "--noheader", "--format=%P|%G", *(["--partition", chosen] if chosen else []))
    if lines is None:
        raise StudyError("SLURM does not answer: sinfo says why")
    found = [line.split("|") for line in lines]
    return any("gpu" in resources for partition, resources in found if chosen or partition.endswith("*"))


def run_jobs(study, study_name, configs, jobs=None):
    """Run the configs as jobs, at most `jobs` at once; returns the error lines of the runs that are not complete then.

    A job that fails or is cancelled does not stop the others; Ctrl-C cancels all. Raises StudyError where jobs of an
    earlier command for this study are still queued, and where SLURM does not take new ones.
    """
    _refuse_queued(study)
    active = dict(zip(configs, _submit(study, study_name, configs, jobs), strict=True))
    queue, ended = {}, {}
    with contextlib.closing(EpochBar(study, configs)) as bar:
        try:
            while active:
                answer = _queue()
                if answer is not None:
                    queue = {config: _entry(answer, job) for config, job in active.items()}
                    for config in [config for config in ended if queue.get(config, ("",))[0] not in ENDED]:
                        del ended[config]  # it was only missing from one answer
                for config in [config for config, (state, *_) in queue.items() if state in ENDED]:
                    seconds = time.monotonic() - ended.setdefault(config, time.monotonic())
                    if seconds >= VISIBLE_SECONDS or not _looks_lost(study, config, queue[config][0]):
                        bar.settle(config, _error(study, config, active.pop(config), queue.pop(config)[0]))
                _show(bar, queue, answered=answer is not None)
                time.sleep(POLL_SECONDS if active else 0)
        finally:
            _cancel(active.values())
    return bar.failures


def execute(study, study_name, config, folders):
    """Execute one run inside its job, as a slot of the launcher does; raises StudyError when it fails.

    folders: the environment variables that name the folders of images and results.
    """
    os.environ.update(folders)
    visible_gpus()  # names one that is too old
    check_comparable(study, config, resolve_precision(config, choose_device()))
    with lock(run_folder(study.name, config.arm, config.seed), f"{config.arm} seed {config.seed}"):
        pass  # where another process holds it, the log and the notebook are that one's
    start_run(study, study_name, config, thread_limits(os.environ["SLURM_CPUS_ON_NODE"])).wait()


def _submit(study, study_name, configs, jobs):
    import submitit

    outputs = outputs_folder(study.name)
    os.environ.pop("SBATCH_COMMENT", None)  # it would go before our comment
    folders = {"STUDY_DATA": str(data_folder()), "STUDY_OUTPUTS": str(outputs.parent)}
    try:
        executor = submitit.SlurmExecutor(outputs / "logs" / "slurm")
        executor.update_parameters(
            job_name=study.name,
            comment=str(outputs),  # by which a later command knows the jobs
            array_parallelism=jobs or len(configs),
            gres="gpu:1" if partition_has_gpus() else None,
            time=None,  # submitit would say five minutes
            wckey=None,
            use_srun=False,  # a step of its own would get one of the job's CPUs
            additional_parameters={"chdir": ROOT},
        )
        calls = [functools.partial(execute, study, study_name, config, folders) for config in configs]
        submitted = executor.submit_array(calls)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"SLURM does not take the jobs: {reason}") from None
    print(f"submitted as SLURM job {submitted[0].job_id.split('_')[0]}", flush=True)
    return submitted


def _refuse_queued(study):
    queue = _queue()
    if queue is None:
        raise StudyError("SLURM does not answer: squeue says why")
    ours = str(outputs_folder(study.name))
    ids = sorted({job.split("_")[0] for job, (state, _, mark) in queue.items() if mark == ours and state not in ENDED})
    if ids:
        raise StudyError(
            f"jobs of an earlier command for study {study.name!r} are still in the queue: wait for their end, or "
            f"scancel {' '.join(ids)}"
        )


def _queue():
    """(state, reason for waiting, comment) of each job of this user by its id, or None where SLURM does not answer."""
    # squeue knows ended jobs for some minutes; sacct would know them longer, but only on clusters with accounting
    lines = _ask("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%r|%k")
    return None if lines is None else {job: tuple(rest) for job, *rest in (line.split("|", 3) for line in lines)}


def _entry(queue, job):
    # an array of which no job has started leaves the queue as one
    return queue.get(job.job_id) or queue.get(job.job_id.split("_")[0], (FORGOTTEN, "", ""))


def _ask(*command):
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="surrogateescape")
    return None if done.returncode else done.stdout.splitlines()


def _summary(study, config):
    return run_folder(study.name, config.arm, config.seed) / "summary.json"


def _looks_lost(study, config, state):
    """Whether a run may be complete although its summary is not here, or not yet."""
    return state in ("COMPLETED", FORGOTTEN) and not _summary(study, config).exists()


def _error(study, config, job, state):
    """Why the run of an ended job is not complete, in one line; None where it is."""
    if state == "FAILED":
        lines = ((job.stderr() or "").strip() or f"no error in {job.paths.stderr}").splitlines()
        return lines[-1].removeprefix(f"{StudyError.__module__}.{StudyError.__name__}: ")
    if not _summary(study, config).exists():
        return f"SLURM job {job.job_id} ended before the run was complete ({state})"


def _show(bar, queue, answered):
    reasons = [reason for state, reason, _ in queue.values() if state == "PENDING"]
    notes = [f"{len(reasons)} pending ({', '.join(sorted(set(reasons)))})"] if reasons else []
    notes += [] if answered else ["SLURM does not answer"]
    bar.show([config for config, (state, *_) in queue.items() if state != "PENDING"], ", ".join(notes))


def _cancel(jobs):
    if jobs:
        subprocess.run(["scancel", *(job.job_id for job in jobs)])
        print(f"cancelled {len(jobs)} SLURM jobs", file=sys.stderr)
