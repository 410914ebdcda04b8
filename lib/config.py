"""Everything that defines one run, checked when it is made and hashed into its folder."""

import dataclasses
import difflib
import hashlib
import json
import math
import re

from lib.errors import StudyError

SEPARATOR = "__"  # in the label of runs, between an arm and its variant
STAGE_WIDTHS = (64, 128, 256, 512)  # channels of ResNet-18's four stages
DATASETS = ("cifar10", "digits")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")

# field: (smallest, largest) accepted value
RANGES = {
    "seed": (0, 9999),
    "width": (1 / 64, 16),
    "reduction": (1, 512),
    "epochs": (1, 10_000),
    "batch_size": (2, 50_000),
    "learning_rate": (1e-8, 100),
    "momentum": (0, 0.999),
    "weight_decay": (0, 1),
    "warmup_epochs": (0, 10_000),
    "crop_padding": (0, 31),
    "validation_images": (0, 49_000),
    "lesion_images": (2, 10_000),
}
CHOICES = {"dataset": DATASETS, "precision": PRECISIONS}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run. Raises StudyError for a wrong type, range or choice, naming what is accepted."""

    arm: str  # name in folders, tables and figures
    seed: int  # same initial weights, batches and crops for every arm
    architecture: str  # a name in lib.models.ARCHITECTURES
    dataset: str = "cifar10"
    width: float = 1.0  # multiplies the stage widths 64, 128, 256, 512
    reduction: int = 16  # r of the SE gate: C → C/r → C
    epochs: int = 8
    batch_size: int = 128
    learning_rate: float = 0.1  # at the end of the warm-up
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on every parameter: weights, batch norms and gates alike
    warmup_epochs: float = 0.5
    crop_padding: int = 4  # pixels, reflected
    horizontal_flip: bool = True
    validation_images: int = 0  # held out of the training images, stratified; such a run never sees the test images
    lesion_images: int = 500  # test images on which gates are lesioned
    precision: str = "auto"  # auto takes what the device does well

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _checked_type(field.name, getattr(self, field.name), field.type)
            object.__setattr__(self, field.name, value)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.arm):
            raise StudyError(f"arm {self.arm!r} cannot name a folder: take letters, digits and _ . - only")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise StudyError(f"{name} = {getattr(self, name)} is out of range: take {low:g} to {high:g}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise StudyError(f"unknown {name} {getattr(self, name)!r}: take one of {', '.join(choices)}")
        if self.warmup_epochs > self.epochs:
            raise StudyError(f"warmup_epochs = {self.warmup_epochs:g} is longer than epochs = {self.epochs}")

    @classmethod
    def from_dict(cls, values):
        """Config from a mapping; raises StudyError for a name that is not a setting."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise StudyError(f"unknown setting {name!r}{suggestion(name, known)}")
        return cls(**values)

    def to_dict(self):
        """Plain values, in the order of the fields."""
        return dataclasses.asdict(self)


def config_hash(values):
    """First 16 hex digits of the SHA-256 of a run's settings, a mapping of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def scaled(widths, width):
    """Stage widths times the width multiplier, rounded, at least 1."""
    return tuple(max(1, round(channels * width)) for channels in widths)


def suggestion(name, known):
    """The end of an error line: the nearest accepted name, or all of them."""
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(name), known, n=1)
    return f": did you mean {near[0]!r}?" if near else f": take one of {', '.join(sorted(known))}"


def _checked_type(name, value, wanted):
    if wanted is float and type(value) is int and abs(value) < 2**53:
        value = float(value)  # YAML and papermill write 1 for 1.0
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise StudyError(f"{name} = {value!r} is not a valid {wanted.__name__}")
    return value
