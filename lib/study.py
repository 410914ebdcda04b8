"""Study files: from YAML to a checked list of runs, with the settings that the tuning has found."""

import datetime
import itertools
import re
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
    decay_gates: bool = True  # else on all but the gates
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

    def differences(self, stored):
        """How stored settings differ from these, one text each; settings newer than the run count as their defaults."""
        defaults = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        now, then = self.model_dump(), {**defaults, **stored}
        return [f"{n} {then.get(n)!r} there, {now.get(n)!r} here" for n in now | then if now.get(n) != then.get(n)]


def _settings_only(settings):
    if taken := {"arm", "seed", "validation_images"} & set(settings):
        raise ValueError(f"{min(taken)} is set by the stages and the tuning, not by settings")
    return settings


def _unique(values):
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} stands twice")
    return values


Settings = Annotated[dict[str, object], AfterValidator(_settings_only)]
Names = Annotated[list[str], Field(min_length=1), AfterValidator(_unique)]
Counted = BeforeValidator(lambda value: list(range(value)) if type(value) is int else value)  # 3 means 0, 1, 2
Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_unique), Counted]
Values = Annotated[list[object], Field(min_length=1), AfterValidator(_unique)]


class Stage(Checked):
    """One part of a study: every arm with every seed, once for each variant: label → settings, "" is the arm itself."""

    name: str
    arms: Names
    seeds: Seeds
    variants: dict[str, Settings] = Field({"": {}}, min_length=1)


class Tuning(Checked):
    """The same small grid for each of `arms`, judged on images held out of the training images."""

    arms: Names
    seeds: Seeds
    validation_images: int = Field(gt=0)
    grid: Annotated[dict[str, Values], Field(min_length=1), AfterValidator(_settings_only)]
    settings: Settings = {}  # what all of its runs have that the recipe has not, such as a smaller width

    @property
    def cells(self):
        """Every combination of the grid's values: a list of {setting: value}."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


class Stop(Checked):
    """The decision, made public before the primary difference is computed, that fewer pairs than planned are made."""

    date: datetime.date = Field(strict=False)
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
    arms: dict[str, Settings] = Field(min_length=1)
    tuning: Tuning | None = None
    stages: list[Stage] = Field(min_length=1)
    stop: Stop | None = None

    @property
    def primary_stage(self):
        """The first stage with both primary arms as they are, which says what the comparison waits for, or None."""
        pair = {self.primary.arm, self.primary.baseline}
        return next((each for each in self.stages if pair <= {*each.arms} and "" in each.variants), None)

    @model_validator(mode="after")
    def _parts_fit(self):
        pair = [self.primary.arm, self.primary.baseline]
        tuned = self.tuning.arms if self.tuning else pair
        for arm in [*pair, *tuned, *(arm for stage in self.stages for arm in stage.arms)]:
            if arm not in self.arms:
                raise ValueError(f"unknown arm {arm!r}{suggestion(arm, self.arms)}")
        if pair[0] == pair[1] or not self.primary_stage:
            raise ValueError(f"primary must compare two arms that share a stage, not {pair[0]} with {pair[1]}")
        if not set(pair) <= set(tuned):
            raise ValueError("tuning must name both arms of the primary comparison")
        if self.stop and self.stop.primary_pairs > len(self.primary_stage.seeds):
            planned = f"{len(self.primary_stage.seeds)} planned"
            raise ValueError(f"stop.primary_pairs = {self.stop.primary_pairs} is more than {planned}")
        _unique([stage.name for stage in self.stages])
        return self


class Study(StudyFile):
    """A study file with what follows from it and from the runs that are finished."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    arm: str  # the primary comparison: arm − baseline
    baseline: str
    planned_pairs: int  # of the primary comparison that must be finished before its difference is computed
    runs: tuple  # one RunConfig for each run whose settings are known, the tuning first, then stage by stage
    awaiting: tuple  # runs whose settings the tuning has not found yet, with the recipe's settings for now
    tuning_scores: pd.DataFrame | None  # a row a finished run: its settings, tuned (the arm), cell, scores
    winners: dict | None  # arm → settings, when the tuning is complete

    def run(self, arm, seed, settings=None):
        """The config of one run; raises StudyError when the study has no such arm or seed, or not yet.

        settings: {name: value} to try out; such a run has a name of its own and never counts in the study.
        """
        everything = (*self.runs, *self.awaiting)
        of_arm = {config.seed: config for config in everything if config.arm == arm}
        if not of_arm:
            known = suggestion(arm, {config.arm for config in everything})
            raise StudyError(f"study {self.name!r} has no arm {arm!r}{known} (a new one goes into arms and a stage)")
        if seed not in of_arm:
            has = f"study {self.name!r} has no seed {seed!r} for {arm}, only {sorted(of_arm)}"
            raise StudyError(f"{has}: add it to the seeds of a stage in the study file")
        if (config := of_arm[seed]) in self.awaiting:
            raise StudyError(f"{arm} waits for the tuning of study {self.name!r}: ./run_all.sh --study {self.name}")
        if not isinstance(settings or {}, dict):
            example = "{epochs: 1}"
            raise StudyError(f"settings must be a mapping such as {example}; with papermill: -y 'settings: {example}'")
        if not settings:
            return config
        try:
            tried = RunConfig.model_validate(config.model_dump() | _settings_only(settings)).model_dump()
            variant = "_".join(["trial", *(f"{setting}_{tried[setting]}" for setting in settings)])
            return RunConfig.model_validate(tried | {"arm": label(arm, variant)})
        except ValueError as error:
            raise StudyError(f"settings: {_problem(error)}") from None


def label(arm, variant=""):
    """What the runs of an arm in a variant are called: in folders, tables and figures."""
    return f"{arm}{SEPARATOR}{variant}" if variant else arm


def study_names():
    """Names of the study files in lib/studies."""
    return sorted(path.stem for path in STUDIES.glob("*.y*ml"))


def load_study(name):
    """The study lib/studies/<name>.yaml, or that of a path to a .yaml file, which counts from the repository's root.

    What the tuning has found is read from the finished runs in outputs/. Raises StudyError, naming file and entry, for
    anything that is not a valid study, and as read_summary does.
    """
    if not isinstance(name, str | Path):
        raise StudyError(f"study = {name!r} is no name: with papermill, write -r study NAME instead of -p")
    path = ROOT / Path(name).expanduser() if Path(name).suffix in (".yaml", ".yml") else STUDIES / f"{name}.yaml"
    try:
        path = path if path.is_file() or path.suffix == ".yml" else next(path.parent.glob(f"{path.stem}.yml"), path)
        if not path.is_file():
            raise StudyError(f"there is no study file {shown(path)}{suggestion(path.stem, study_names())}")
        with path.open("rb") as content:
            file = StudyFile.model_validate(yaml.load(content, _Loader) or {})
        trials = dict(_tuning(file)) if file.tuning else {}
        scores = _tuning_scores(path.stem, trials) if trials else None
        winners = _winners(file, scores) if trials and len(scores) == len(trials) else None
        staged = _staged(file, winners or {})
    except (ValueError, yaml.YAMLError, OSError) as error:
        raise StudyError(f"{shown(path)}: {_problem(error)}") from None
    awaiting = staged if trials and winners is None else ()
    follows = {"runs": (*trials, *(() if awaiting else staged)), "awaiting": awaiting}
    follows |= {"tuning_scores": scores, "winners": winners}
    follows["planned_pairs"] = file.stop.primary_pairs if file.stop else len(file.primary_stage.seeds)
    return Study(name=path.stem, **dict(file), **dict(file.primary), **follows)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-1 is a number, and a key that stands twice is an error, not silently its last value."""

    def construct_mapping(self, node, deep=False):
        keys = {}
        for key, _ in node.value:
            if keys.setdefault(str(key.value), key) is not key:
                raise yaml.YAMLError(f"{key.value!r} stands twice, again in line {key.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"(?i)[-+]?[\d.]+e[-+]?\d+$"), None)


def _problem(error):
    """What is wrong, in one line; of pydantic's findings the first, with the entry and the value that it is about."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")  # which tells of a misspelt one
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        models = {"primary": Primary, "tuning": Tuning, "stages": Stage, "stop": Stop}
        known = RunConfig if error.title == "RunConfig" else models.get(problem["loc"][0], StudyFile)
        return f"unknown entry {place!r}{suggestion(problem['loc'][-1], known.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ").split(" or instance of ")[0]
    if problem["type"] in ("missing", "value_error"):
        return f"{place}: {message}" if place else message
    return f"{place or 'its content'} = {problem['input']!r:.60}: {message}"


def _staged(file, winners):
    """The runs of all stages; one that stands in two stages is made once, in the first.

    An arm that was tuned takes what won for it, and every other arm what won for the baseline.
    """
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


def _tuning(file):
    """(RunConfig, what it tries: tuned arm and index of its cell) of each run of the tuning, arms taking turns."""
    tuning = file.tuning
    for seed, (index, cell), arm in itertools.product(tuning.seeds, enumerate(tuning.cells), tuning.arms):
        name = SEPARATOR.join(["tuning", arm, *(f"{setting}_{value}" for setting, value in cell.items())])
        settings = tuning.settings | cell | {"validation_images": tuning.validation_images}
        yield _config(file, arm, name, seed, settings), {"tuned": arm, "cell": index}


def _config(file, arm, name, seed, settings):
    recipe = {"architecture": arm, **file.recipe, **file.arms[arm], **settings}
    return RunConfig.model_validate({"arm": name, "seed": seed, **recipe})


def _tuning_scores(study_name, trials):
    found = {config: read_summary(run_folder(study_name, config.arm, config.seed), config) for config in trials}
    rows = [trials[config] | config.model_dump() | summary for config, summary in found.items() if summary]
    return pd.DataFrame(rows, columns=["tuned", "cell", *RunConfig.model_fields, "val_accuracy", "val_loss"])


def _winners(file, scores):
    """{arm: winning cell} by mean validation accuracy.

    The recipe's own cell stays unless it is beaten by more than the standard error of the difference of two means, from
    the spread between seeds, pooled over the arm's cells.
    """
    cells, winners = file.tuning.cells, {}
    recipe = _config(file, file.primary.baseline, "recipe", 0, {}).model_dump()
    default = {setting: recipe[setting] for setting in file.tuning.grid}
    for arm in file.tuning.arms:
        accuracy = scores[scores["tuned"] == arm].pivot(index="cell", columns="seed", values="val_accuracy")
        means, seeds = accuracy.mean(axis=1), accuracy.shape[1]
        best = int(means.idxmax())
        trained = accuracy[(accuracy > 0).all(axis=1)]  # a diverged run counts as 0 and says nothing about the spread
        margin = np.sqrt(trained.var(axis=1, ddof=1).mean() * 2 / seeds) if seeds > 1 else 0.0
        if default in cells and means[best] - means[cells.index(default)] <= margin:
            best = cells.index(default)
        winners[arm] = cells[best]
    return winners
