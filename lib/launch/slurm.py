"""Train the missing runs of a study as SLURM jobs: one job array through submitit, watched until all of it has ended.

sbatch's own variables (SBATCH_PARTITION, SBATCH_TIMELIMIT, …) go before what is set here. All nodes must share the
folders of images and results, and the locks of files in them.
"""

import contextlib
import functools
import os
import subprocess
import sys
import time

import submitit

from lib.files import ROOT, StudyError, data_folder, outputs_folder, run_folder
from lib.launch.notebook import run_process
from lib.launch.pool import StudyProgress
from lib.study import load_study

POLL_SECONDS = 5
FORGOTTEN = "no longer known to SLURM"
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT", FORGOTTEN}


def run_jobs(study, name, configs, jobs=None):
    """Run the configs as jobs, at most `jobs` at once; returns how many of them are not complete in the end.

    name: what the notebook's parameter `study` gets. Ctrl-C cancels all jobs. Raises StudyError when those of an
    earlier command are still queued, or SLURM takes no new ones.
    """
    if queued := _queued(study):
        raise StudyError(f"jobs of an earlier command are still queued: wait, or scancel {' '.join(queued)}")
    try:
        active = dict(zip(configs, _submit(study, name, configs, jobs), strict=True))
        with contextlib.closing(StudyProgress(study, configs)) as progress:
            while active:
                time.sleep(POLL_SECONDS)
                with contextlib.suppress(StudyError):  # where SLURM does not answer, it is asked again
                    _look(study, active, progress)
    except BaseException:  # Ctrl-C, which may come before sbatch has told the jobs' number
        if queued := _queued(study):
            subprocess.run(["scancel", *queued])
            print(f"cancelled SLURM job {' '.join(queued)}", file=sys.stderr)
        raise
    return progress.failed


def run_job(name, arm, seed, folders):
    """Execute one run inside its job; raises StudyError when it fails. folders: STUDY_DATA and STUDY_OUTPUTS."""
    os.environ.update(folders)
    study = load_study(name)
    run_process(study, name, study.run(arm, seed), {"OMP_NUM_THREADS": os.environ["SLURM_CPUS_ON_NODE"]}).wait()


def _submit(study, name, configs, jobs):
    outputs = outputs_folder(study.name)
    os.environ.pop("SBATCH_COMMENT", None)  # it would go before our comment
    folders = {"STUDY_DATA": str(data_folder()), "STUDY_OUTPUTS": str(outputs.parent)}
    try:
        executor = submitit.SlurmExecutor(outputs / "logs" / "slurm")
        executor.update_parameters(
            job_name=study.name,
            comment=str(outputs),  # by which a later command knows the jobs
            array_parallelism=jobs or len(configs),
            gres="gpu:1" if _partition_has_gpus() else None,
            time=None,  # submitit would say five minutes
            wckey=None,
            use_srun=False,  # a step of its own would get one of the job's CPUs
            additional_parameters={"chdir": ROOT},
        )
        submitted = executor.submit_array([functools.partial(run_job, name, c.arm, c.seed, folders) for c in configs])
    except (OSError, RuntimeError) as error:  # no sbatch here, or it refuses
        raise StudyError(f"SLURM does not take the jobs: {' '.join(str(error).split())}") from None
    print(f"submitted as SLURM job {submitted[0].job_id.split('_')[0]}", flush=True)
    return submitted


def _look(study, active, progress):
    """Settle the runs whose jobs have ended, which leave `active`, and show the others."""
    queue, working = _queue(), []
    for config, job in list(active.items()):
        # an array of which no job has started leaves the queue as one
        state = (queue.get(job.job_id) or queue.get(job.job_id.split("_")[0]) or (FORGOTTEN,))[0]
        if state in ENDED:
            del active[config]
            progress.settle(config, _error(run_folder(study.name, config.arm, config.seed), job, state))
        elif state != "PENDING":
            working.append(config)
    progress.show(working, f"{len(active) - len(working)} pending")


def _error(folder, job, state):
    """Why the run of an ended job is not complete, in one line; None where it is."""
    if state == "COMPLETED" or (folder / "summary.json").exists():
        return None
    if state == "FAILED" and (lines := (job.stderr() or "").strip().splitlines()):
        return lines[-1].removeprefix(f"{StudyError.__module__}.{StudyError.__name__}: ")
    return f"SLURM job {job.job_id} ended before the run was complete ({state})"


def _partition_has_gpus():
    chosen = os.environ.get("SBATCH_PARTITION")  # else the default one, which sinfo marks with a star
    lines = _ask("sinfo", "--noheader", "--format=%P|%G", *(["--partition", chosen] if chosen else []))
    found = [line.split("|") for line in lines]
    return any("gpu" in resources for partition, resources in found if chosen or partition.endswith("*"))


def _queued(study):
    """Numbers of the study's jobs that have not ended, an array's once."""
    ours = str(outputs_folder(study.name))
    return sorted({job.split("_")[0] for job, (state, mark) in _queue().items() if mark == ours and state not in ENDED})


def _queue():
    """{job id: (state, comment)} of the jobs of this user; StudyError where SLURM does not answer."""
    # squeue knows ended jobs for some minutes; sacct would know them longer, but only on clusters with accounting
    lines = _ask("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i|%T|%k")
    return {job: rest for job, *rest in (line.split("|", 2) for line in lines)}


def _ask(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        raise StudyError(f"SLURM does not answer: {command[0]} says why; is this a machine of the cluster?") from None
