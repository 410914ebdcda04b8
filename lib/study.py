"""Study files: from YAML to a checked list of runs, with the settings that the tuning has found."""

import datetime
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lib.files import ROOT, STUDIES, StudyError, run_folder, shown, suggestion
from lib.runs import read_summary

SEPARATOR = "__"  # between an arm and its variant


class Checked(BaseModel):
    """Values that are checked when they are read and never change; unknown names are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class RunConfig(Checked):
    """Everything that defines one training run."""

    arm: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")  # name in folders, tables and figures
    seed: int = Field(ge=0, le=9999)  # same initial weights, batches and crops for every arm
    architecture: str  # a name in lib.train.models.ARCHITECTURES
    dataset: Literal["cifar10", "digits"] = "cifar10"
    width: float = Field(1.0, ge=1 / 64, le=16)  # multiplies the stage widths 64, 128, 256, 512
    reduction: int = Field(16, ge=1, le=512)  # r of the SE gate: C → C/r → C
    epochs: int = Field(8, ge=1, le=10_000)
    batch_size: int = Field(128, ge=2, le=50_000)
    learning_rate: float = Field(0.1, ge=1e-8, le=100)  # at the end of the warm-up
    momentum: float = Field(0.9, ge=0, lt=1)  # Nesterov
    weight_decay: float = Field(5e-4, ge=0, le=1)  # on every parameter: weights, batch norms and gates alike
    warmup_epochs: float = Field(0.5, ge=0)
    crop_padding: int = Field(4, ge=0, le=31)  # pixels, reflected
    horizontal_flip: bool = True
    validation_images: int = Field(0, ge=0)  # held out of the training images; such a run never sees the test images
    lesion_images: int = Field(500, ge=2, le=10_000)  # test images on which gates are lesioned
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # auto takes what the device does well

    @model_validator(mode="after")
    def _warmup_fits(self):
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs:g} is longer than epochs = {self.epochs}")
        return self

    def to_dict(self):
        """Plain values, in the order of the fields."""
        return self.model_dump()

    def differences(self, stored):
        """How stored settings differ from these, one text each; settings newer than the run count as their defaults."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        now, then = self.to_dict(), {**defaults, **stored}
        names = [*now, *(name for name in then if name not in now)]
        return [f"{n} {then.get(n)!r} there, {now.get(n)!r} here" for n in names if now.get(n) != then.get(n)]


def _as_seeds(value):
    return tuple(range(value) if type(value) is int else value)


def _not_identity(settings):
    if {"arm", "seed"} & set(settings):
        raise ValueError("arm and seed are set by the stages and the tuning, not by settings")
    return settings


Settings = Annotated[dict[str, object], BeforeValidator(lambda value: value or {}), AfterValidator(_not_identity)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: tuple(value)), Field(min_length=1)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_as_seeds), Field(min_length=1)]


class Stage(Checked):
    """One part of a study: every arm with every seed, once for each variant: label → settings, "" is the arm itself."""

    name: str
    arms: Names
    seeds: Seeds
    variants: dict[str, Settings] = Field({"": {}}, min_length=1)


class Tuning(Checked):
    """The same small grid for each of `arms`, judged on images held out of the training images.

    settings: what all of its runs have that the recipe has not, such as a smaller width.
    """

    arms: Names
    seeds: Seeds
    validation_images: int = Field(gt=0)
    grid: dict[str, list[int | float]]
    settings: Settings = {}

    @property
    def cells(self):
        """Every combination of the grid's values: a list of {setting: value}."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


class Stop(Checked):
    """The decision, made public before the primary difference is computed, that fewer pairs than planned are made."""

    date: datetime.date
    primary_pairs: int = Field(ge=2)


class Primary(Checked):
    """The comparison that the study is about: arm − baseline."""

    arm: str
    baseline: str


class StudyFile(Checked):
    """The content of a study file."""

    title: str
    primary: Primary
    recipe: Settings
    arms: dict[str, Settings]
    tuning: Tuning | None = None
    stages: list[Stage] = Field(min_length=1)
    stop: Stop | None = None

    @model_validator(mode="after")
    def _names_fit(self):
        used = [arm for stage in self.stages for arm in stage.arms]
        pair = [self.primary.arm, self.primary.baseline]
        for arm in [*used, *pair, *(self.tuning.arms if self.tuning else ())]:
            if arm not in self.arms:
                raise ValueError(f"unknown arm {arm!r}{suggestion(arm, self.arms)}")
        if pair[0] == pair[1] or not set(pair) <= set(used):
            raise ValueError(f"primary must compare two arms that have runs, not {pair[0]} with {pair[1]}")
        if self.tuning and not set(pair) <= set(self.tuning.arms):
            raise ValueError("tuning must name both arms of the primary comparison")
        return self


@dataclass(frozen=True)
class Study:
    """A checked study: `runs` holds one RunConfig for each run, the tuning first, then stage by stage.

    awaiting: runs whose settings the tuning has not found yet, with the recipe's settings for now.
    """

    name: str
    title: str
    arm: str  # the primary comparison: arm − baseline
    baseline: str
    runs: tuple
    awaiting: tuple
    stages: tuple
    stop: Stop | None
    tuning: Tuning | None
    tuning_scores: pd.DataFrame | None  # a row a finished run: tuned, the grid's settings, seed, val_accuracy, val_loss
    winners: dict | None  # arm → settings, when the tuning is complete

    @property
    def planned_pairs(self):
        """Number of primary pairs that must be finished before their difference is computed."""
        if self.stop:
            return self.stop.primary_pairs
        return next(len(s.seeds) for s in self.stages if {self.arm, self.baseline} <= set(s.arms) and "" in s.variants)

    def run(self, arm, seed, settings=None):
        """The config of one run; raises StudyError when the study has no such arm or seed, or not yet.

        settings: {name: value} to try out; such a run has a name of its own and never counts in the study.
        """
        everything = (*self.runs, *self.awaiting)
        arms = list(dict.fromkeys(config.arm for config in everything))
        if arm not in arms:
            raise StudyError(f"study {self.name!r} has no arm {arm!r}{suggestion(arm, arms)}")
        seeds = sorted(config.seed for config in everything if config.arm == arm)
        if seed not in seeds:
            raise StudyError(f"study {self.name!r} has no seed {seed!r} for {arm}, only {seeds}: add it to its file")
        for config in self.runs:
            if (config.arm, config.seed) == (arm, seed):
                return _trial(config, settings) if settings else config
        raise StudyError(f"{arm} waits for the tuning of study {self.name!r}: ./run_all.sh --study {self.name}")


def _trial(config, settings):
    name = label(config.arm, "_".join(["trial", *(f"{setting}_{value}" for setting, value in settings.items())]))
    try:
        return RunConfig.model_validate(config.to_dict() | settings | {"arm": name})
    except ValidationError as error:
        raise StudyError(f"settings: {_first_problem(error)}") from None


def label(arm, variant=""):
    """What the runs of an arm in a variant are called: in folders, tables and figures."""
    return f"{arm}{SEPARATOR}{variant}" if variant else arm


def study_names():
    """Names of the study files in lib/studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(name):
    """The study lib/studies/<name>.yaml, or that of a path to a .yaml file, which counts from the repository's root.

    What the tuning has found is read from the finished runs in outputs/. Raises StudyError, naming file and entry, for
    anything that is not a valid study, and as read_summary does.
    """
    path = ROOT / name if Path(name).suffix in (".yaml", ".yml") else STUDIES / f"{name}.yaml"
    if not path.is_file():
        missing = f"there is no file {shown(path)}" if Path(name).suffix else f"unknown study {str(name)!r}"
        raise StudyError(f"{missing}{suggestion(name, study_names())}")
    try:
        file = StudyFile.model_validate(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys))
        trials = dict(_tuning_configs(file)) if file.tuning else {}
        staged = _staged(file, {})
    except ValidationError as error:
        raise StudyError(f"{shown(path)}: {_first_problem(error)}") from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise StudyError(f"{shown(path)} is not a valid study: {' '.join(str(error).split())}") from None
    scores = _tuning_scores(path.stem, trials) if trials else None
    winners = _winners(file, scores) if trials and len(scores) == len(trials) else None
    waits = trials and winners is None
    return Study(
        path.stem,
        file.title,
        file.primary.arm,
        file.primary.baseline,
        runs=(*trials.values(), *(() if waits else _staged(file, winners or {}))),
        awaiting=staged if waits else (),
        stages=tuple(file.stages),
        stop=file.stop,
        tuning=file.tuning,
        tuning_scores=scores,
        winners=winners,
    )


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not silently its last value."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _first_problem(error):
    """The first of pydantic's findings in one line, with the entry and the value that it is about."""
    problem = error.errors()[0]
    place, value = ".".join(map(str, problem["loc"])), problem["input"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        model = {model.__name__: model for model in (RunConfig, Stage, Tuning, Stop, Primary)}.get(
            error.title, StudyFile
        )
        return f"unknown entry {place!r}{suggestion(problem['loc'][-1], model.model_fields)}"
    if isinstance(value, str) and "number" in message and _is_number(value):
        return f"{place}: YAML takes {value} for text; write a point and a sign, as in 1.0e-1"
    if problem["type"] in ("missing", "value_error"):
        return f"{place}: {message}" if place else message
    return f"{place} = {value!r}: {message[0].lower()}{message[1:]}"


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _staged(file, winners):
    """The runs of all stages; one that stands in two stages is made once, in the first."""
    runs = {}
    for stage in file.stages:
        # arms take turns within a seed, so that a drift of the machine hits all alike
        for seed, (variant, settings), arm in itertools.product(stage.seeds, stage.variants.items(), stage.arms):
            found = winners.get(arm, winners.get(file.primary.baseline, {}))
            config = _config(file, arm, label(arm, variant), seed, found | settings)
            if runs.setdefault((config.arm, seed), config) != config:
                raise ValueError(f"two stages name {config.arm} seed {seed} with different settings")
    if len({config.dataset for config in runs.values()}) > 1:
        raise ValueError("all arms must share one data set")
    return tuple(runs.values())


def _tuning_configs(file):
    """((tuned arm, index of the cell, seed), RunConfig) of each run of the tuning, arms taking turns."""
    tuning = file.tuning
    for seed, (index, cell), arm in itertools.product(tuning.seeds, enumerate(tuning.cells), tuning.arms):
        name = SEPARATOR.join(["tuning", arm, *(f"{setting}_{value:g}" for setting, value in cell.items())])
        settings = tuning.settings | cell | {"validation_images": tuning.validation_images}
        yield (arm, index, seed), _config(file, arm, name, seed, settings)


def _config(file, arm, name, seed, settings):
    recipe = {"architecture": arm, **file.recipe, **file.arms[arm], **settings}
    return RunConfig.model_validate({"arm": name, "seed": seed, **recipe})


def _tuning_scores(study_name, trials):
    rows = []
    for (arm, cell, seed), config in trials.items():
        summary = read_summary(run_folder(study_name, config.arm, seed), config)
        if summary:
            scores = {name: summary[name] for name in ("val_accuracy", "val_loss")}
            rows.append({"tuned": arm, "cell": cell, "seed": seed, **config.to_dict(), **scores})
    return pd.DataFrame(rows, columns=None if rows else ["tuned", "cell", "seed", "val_accuracy", "val_loss"])


def _winners(file, scores):
    """{arm: winning cell} by mean validation accuracy.

    The recipe's own cell stays unless it is beaten by more than the standard error of the difference of two means, from
    the spread between seeds, pooled over the arm's cells.
    """
    cells, winners = file.tuning.cells, {}
    recipe = _config(file, file.primary.baseline, "recipe", 0, {}).to_dict()
    default = {setting: recipe[setting] for setting in file.tuning.grid}
    for arm in file.tuning.arms:
        accuracy = scores[scores["tuned"] == arm].pivot(index="cell", columns="seed", values="val_accuracy")
        means, seeds = accuracy.mean(axis=1), accuracy.shape[1]
        best = int(means.idxmax())
        margin = np.sqrt(accuracy.var(axis=1, ddof=1).mean() * 2 / seeds) if seeds > 1 else 0.0
        if default in cells and means[best] - means[cells.index(default)] <= margin:
            best = cells.index(default)
        winners[arm] = cells[best]
    return winners
