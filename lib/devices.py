"""The device of a run, the precision that it does well, and the record of what a run ran on."""

import ast
import dataclasses
import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

from lib.gitinfo import commit, uncommitted_changes
from lib.paths import ROOT
from lib.speedups import choose_speedups

TRAINING_CODE = ("batches.py", "models.py", "speedups.py", "training.py")  # what decides the weights of a run
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "pillow", "papermill")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device():
    """The first visible GPU, else the CPU; CUDA_VISIBLE_DEVICES decides what is visible."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device):
    """`bf16`, `fp16` or `fp32`, whichever the device computes fast.

    GPU: bf16 from Ampere (8.0), fp16 with loss scaling from Volta (7.0; T4, RTX 2070), fp32 before (Pascal).
    CPU: bf16 where it has the instructions, else fp32.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def resolve_precision(config, device):
    """The precision that a run of this config has on the device."""
    return choose_precision(device) if config.precision == "auto" else config.precision


def device_name(device):
    """The name that the GPU or the processor gives itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_environment(device, precision):
    """What a run ran on, for environment.json: versions, device, threads, code; no host or user names."""
    return {
        "python": platform.python_version(),
        "python_executable": _inside(Path(sys.executable)),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device.type,
        "device_name": device_name(device),
        "precision": precision,
        "speedups": dataclasses.asdict(choose_speedups(device, precision)),
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "training_code": training_code(),
        "commit": commit(ROOT),
        "uncommitted_changes": uncommitted_changes(ROOT),
    }


def training_code():
    """First 16 hex digits of the SHA-256 of the code that trains, without comments and layout."""
    digest = hashlib.sha256()
    for name in TRAINING_CODE:
        source = (Path(__file__).parent / name).read_text(encoding="utf-8")
        digest.update(ast.unparse(ast.parse(source)).encode())
    return digest.hexdigest()[:16]


def _inside(path):
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
