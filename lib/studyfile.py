"""Study files: YAML with named arms, a tuning grid and stages, checked entry by entry."""

import dataclasses
from pathlib import Path

import yaml

from lib.config import suggestion
from lib.errors import StudyError
from lib.paths import STUDIES, shown

REQUIRED = {"title", "primary", "recipe", "arms", "stages"}
OPTIONAL = {"tuning"}
WINNERS = ("own", "other")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a study: every arm with every seed, once for each variant (label → settings; "" is the arm itself).

    winner: `own`, or `other` for arms that take each other's winner of the tuning.
    """

    name: str
    arms: tuple
    seeds: tuple
    variants: dict
    winner: str


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The same small grid for each of `arms`, judged on images held out of the training images.

    settings: what all of its runs have that the recipe has not, such as a smaller width.
    """

    arms: tuple
    seeds: tuple
    validation_images: int
    grid: dict  # setting → values
    settings: dict


@dataclasses.dataclass(frozen=True)
class StudyFile:
    """The checked content of a study file."""

    path: Path
    title: str
    arm: str
    baseline: str
    recipe: dict
    arms: dict  # name → settings that differ from the recipe
    tuning: Tuning | None
    stages: tuple

    @property
    def name(self):
        """Of the study and its folder in outputs/."""
        return self.path.stem


def study_names():
    """Names of the study files in lib/studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def read_study_file(name):
    """Read lib/studies/<name>.yaml, or the file itself where `name` ends in .yaml.

    Raises StudyError, naming the file and the entry, for anything that is not a valid study file.
    """
    path = Path(name) if str(name).endswith(".yaml") else STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise StudyError(f"unknown study {str(name)!r}{suggestion(name, study_names())}")
    try:
        return _checked(path, yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise StudyError(f"{shown(path)} is not valid YAML: {' '.join(str(error).split())}") from None
    except StudyError as error:
        raise StudyError(f"{shown(path)}: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not silently its last value."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _checked(path, content):
    check_mapping("the file", content)
    for key in sorted((REQUIRED ^ set(content)) - OPTIONAL, key=str):
        problem = "lacks the entry" if key in REQUIRED else "has an unknown entry"
        raise StudyError(f"{problem} {key!r}")
    check(isinstance(content["title"], str), f"title must be text, not {content['title']!r}")
    for key in ("primary", "recipe", "arms"):
        check_mapping(key, content[key])
    stages = content["stages"]
    check(isinstance(stages, list) and stages, f"stages must be a list of stages, not {stages!r}")
    arms = {arm: overrides or {} for arm, overrides in content["arms"].items()}
    for arm, overrides in arms.items():
        check(isinstance(arm, str), f"the name of an arm must be text, not {arm!r}")
        check_mapping(f"arm {arm!r}", overrides)
    for settings in (content["recipe"], *arms.values()):
        _check_own_settings(settings)
    tuning = _tuning(content["tuning"], arms) if "tuning" in content else None
    stages = tuple(_stage(stage, arms, tuning) for stage in stages)
    pair = [content["primary"].get("arm"), content["primary"].get("baseline")]
    used = [arm for stage in stages for arm in stage.arms]
    for role, arm in zip(("arm", "baseline"), pair, strict=True):
        check(arm in used, f"primary.{role} must name an arm that has runs, not {arm!r}")
    check(pair[0] != pair[1], f"primary compares {pair[0]} with itself")
    check(not tuning or set(pair) <= set(tuning.arms), "tuning: arms must name both arms of the primary comparison")
    return StudyFile(path, content["title"], *pair, content["recipe"], arms, tuning, stages)


def _stage(stage, arms, tuning):
    check_mapping("a stage", stage)
    missing, unknown = {"name", "arms", "seeds"} - set(stage), set(stage) - {f.name for f in dataclasses.fields(Stage)}
    check(not missing, f"a stage needs name, arms and seeds, not {sorted(map(str, stage))}")
    check(not unknown, f"stage {stage['name']!r} has an unknown entry {min(map(str, unknown), default='')!r}")
    what = f"stage {stage['name']!r}"
    names, seeds = _names(what, stage["arms"], arms), _seeds(what, stage["seeds"])
    variants, winner = stage.get("variants", {"": {}}), stage.get("winner", "own")
    check_mapping(f"{what}: variants", variants)
    check(variants, f"{what}: variants must name at least one")
    for label, settings in variants.items():
        check(isinstance(label, str), f"{what}: the name of a variant must be text, not {label!r}")
        check_mapping(f"{what}: variant {label!r}", settings)
        _check_own_settings(settings)
    check(winner in WINNERS, f"{what}: winner must be one of {', '.join(WINNERS)}, not {winner!r}")
    if winner == "other":
        check(tuning, f"{what} takes the other arm's winner, but the file has no tuning")
        check(sorted(names) == sorted(tuning.arms) and len(names) == 2, f"{what} needs both tuned arms")
    return Stage(stage["name"], names, seeds, variants, winner)


def _tuning(tuning, arms):
    check_mapping("tuning", tuning)
    tuning = {"settings": {}, **tuning}
    keys = {field.name for field in dataclasses.fields(Tuning)}
    check(set(tuning) == keys, f"tuning needs {', '.join(sorted(keys))}, not {sorted(map(str, tuning))}")
    check_mapping("tuning: grid", tuning["grid"])
    check_mapping("tuning: settings", tuning["settings"])
    for settings in (tuning["grid"], tuning["settings"]):
        _check_own_settings(settings)
    check("validation_images" not in tuning["grid"], "tuning: validation_images are the same in all cells of the grid")
    for setting, values in tuning["grid"].items():
        numbers = isinstance(values, list) and values and all(isinstance(value, int | float) for value in values)
        check(numbers, f"tuning: {setting} must be a list of numbers, not {values!r}")
        check(len(set(values)) == len(values), f"tuning: {setting} lists a value twice: {values!r}")
    held_out = tuning["validation_images"]
    check(type(held_out) is int and held_out > 0, f"tuning: validation_images must be above 0, not {held_out!r}")
    names, seeds = _names("tuning", tuning["arms"], arms), _seeds("tuning", tuning["seeds"])
    return Tuning(names, seeds, held_out, tuning["grid"], tuning["settings"])


def _check_own_settings(settings):
    check(not {"arm", "seed"} & set(settings), "arm and seed are set by the stages and the tuning, not by settings")


def _names(what, names, arms):
    check(isinstance(names, list) and names, f"{what}: arms must be a list of names")
    for arm in names:
        check(arm in list(arms), f"{what} names the arm {arm!r}{suggestion(arm, list(arms))}")
    return tuple(names)


def _seeds(what, seeds):
    listed = list(range(seeds)) if type(seeds) is int else seeds
    whole = isinstance(listed, list) and listed and all(type(seed) is int for seed in listed)
    check(whole, f"{what}: seeds must be a number of seeds or a list of them, not {seeds!r}")
    return tuple(listed)


def check(condition, problem):
    """Raise StudyError with `problem` unless the condition holds."""
    if not condition:
        raise StudyError(problem)


def check_mapping(what, value):
    """Raise StudyError unless `value` is a mapping."""
    check(isinstance(value, dict), f"{what} must be a mapping of names to values, not {value!r}")
