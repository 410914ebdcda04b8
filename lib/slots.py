"""How many runs this machine takes at a time, and what of its GPUs and CPU cores each of them gets."""

import os

from lib import estimate
from lib.errors import StudyError

MOST_RUNS_PER_GPU = 4
WORTH_ANOTHER = 1.05  # times the runs an hour that one more run at a time must bring


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


def thread_limits(threads):
    """Environment variables that keep a run to so many CPU threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


def slot_environments(jobs, gpus):
    """Environment variables of each of `jobs` concurrent runs: a GPU in turn, an equal share of the CPU threads."""
    limits = thread_limits(max(1, cpu_cores() // jobs))
    return [limits | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}) for slot in range(jobs)]


def choose_slots(config, gpus, jobs=None):
    """The slots for runs like this one, as slot_environments gives them, and the seconds of a unit of work in one.

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
            slowest = min(estimate.work_per_second(config, slots[::devices]))  # those on the first device
        except StudyError:
            if best is None:
                raise
            break  # so many do not fit into its memory
        rate = candidate / (estimate.NOTEBOOK_SECONDS + estimate.work(config) / slowest)
        if rate < WORTH_ANOTHER * best_rate:
            break
        best, best_rate = (slots, 1 / slowest), rate
    return best
