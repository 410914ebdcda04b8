"""What is ahead: the missing runs, and the time that they will take on this machine."""

from lib import estimate
from lib.data import cifar10_is_here
from lib.launch import missing_runs
from lib.paths import data_folder, shown
from lib.slots import choose_slots


def announce(runs, jobs, gpus):
    """Print how long the runs will take here; returns the slots and the expected seconds of a unit of work in one.

    jobs, gpus: as in choose_slots, which measures for some seconds.
    """
    print("measuring how fast this machine trains …", flush=True)
    slots, seconds = choose_slots(runs[0], gpus, jobs)
    total = seconds * sum(map(estimate.work, runs)) + estimate.NOTEBOOK_SECONDS * len(runs)
    where = f"{len(gpus)} GPU{'s'[: len(gpus) > 1]}" if gpus else "the CPU"
    print(f"{len(runs)} runs to do, {len(slots)} at a time on {where}: about {_duration(total / len(slots))}")
    return slots, seconds


def announce_jobs(runs, jobs):
    """Print how many jobs SLURM will get; how fast they are is known where they run, not here."""
    print(f"{len(runs)} runs to do as SLURM jobs, {f'{jobs} at a time' if jobs else 'as many at a time as it allows'}")


def dry_run(study, options, gpus):
    """Print the missing runs of a study and what is ahead, writing nothing."""
    missing = missing_runs(study)
    for config in missing:
        print(f"{config.arm}  seed {config.seed}")
    for config in study.awaiting:
        print(f"{config.arm}  seed {config.seed}  (with the settings that the tuning finds)")
    if not missing:
        print(f"all {len(study.runs)} runs of {study.name} are complete")
        return
    if missing[0].dataset == "cifar10" and not cifar10_is_here():
        print(f"CIFAR-10 is not in {shown(data_folder())}/ yet: it would be downloaded first")
    runs = [*missing, *study.awaiting]
    if options.engine == "slurm":
        announce_jobs(runs, options.jobs)
    else:
        announce(runs, options.jobs, gpus)


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
