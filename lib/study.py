"""Study files: named arms, seeds and overrides in YAML; the list of runs is derived from them."""

import dataclasses
from pathlib import Path

import yaml

from lib.config import RunConfig, suggestion
from lib.errors import StudyError
from lib.paths import STUDIES, shown

KEYS = {"title", "primary", "recipe", "arms", "stages"}


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked study: `runs` holds one RunConfig for each run, most important first."""

    name: str
    title: str
    arm: str  # the primary comparison: arm − baseline
    baseline: str
    runs: tuple

    def run(self, arm, seed):
        """The config of one run; raises StudyError when the study has no such arm or seed."""
        arms = list(dict.fromkeys(config.arm for config in self.runs))
        if arm not in arms:
            raise StudyError(f"study {self.name!r} has no arm {arm!r}{suggestion(arm, arms)}")
        for config in self.runs:
            if (config.arm, config.seed) == (arm, seed):
                return config
        seeds = sorted(config.seed for config in self.runs if config.arm == arm)
        raise StudyError(f"study {self.name!r} has no seed {seed!r} for {arm}: take one of {seeds}")


def study_names():
    """Names of the study files in lib/studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load_study(name):
    """Read lib/studies/<name>.yaml, or the file itself where `name` ends in .yaml.

    Raises StudyError, naming the file and the entry, for anything that is not a valid study.
    """
    path = Path(name) if str(name).endswith(".yaml") else STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise StudyError(f"unknown study {str(name)!r}{suggestion(name, study_names())}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
        return _study(path.stem, content)
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


def _study(name, content):
    _check_mapping("the file", content)
    for key in sorted(KEYS ^ set(content), key=str):
        problem = "lacks the entry" if key in KEYS else "has an unknown entry"
        raise StudyError(f"{problem} {key!r}")
    title, primary, recipe, arms, stages = (content[key] for key in ("title", "primary", "recipe", "arms", "stages"))
    _check(isinstance(title, str), f"title must be text, not {title!r}")
    for key in ("primary", "recipe", "arms"):
        _check_mapping(key, content[key])
    _check(isinstance(stages, list) and stages, f"stages must be a list of stages, not {stages!r}")
    for arm, overrides in arms.items():
        _check_mapping(f"arm {arm!r}", overrides or {})
    runs = {}
    for stage in stages:
        for config in _stage_runs(stage, recipe, arms):
            runs.setdefault((config.arm, config.seed), config)
    used = [config.arm for config in runs.values()]
    pair = [primary.get("arm"), primary.get("baseline")]
    for role, arm in zip(("arm", "baseline"), pair, strict=True):
        _check(arm in used, f"primary.{role} must name an arm that has runs, not {arm!r}")
    _check(pair[0] != pair[1], f"primary compares {pair[0]} with itself")
    datasets = sorted({config.dataset for config in runs.values()})
    _check(len(datasets) == 1, f"all arms must share one data set, not {datasets}")
    return Study(name, title, *pair, tuple(runs.values()))


def _stage_runs(stage, recipe, arms):
    _check_mapping("a stage", stage)
    _check(
        set(stage) == {"name", "arms", "seeds"}, f"a stage needs name, arms and seeds, not {sorted(map(str, stage))}"
    )
    name, seeds = stage["name"], stage["seeds"]
    _check(isinstance(stage["arms"], list) and stage["arms"], f"stage {name!r}: arms must be a list of names")
    for arm in stage["arms"]:
        _check(arm in list(arms), f"stage {name!r} names the arm {arm!r}{suggestion(arm, list(arms))}")
    if type(seeds) is int:
        seeds = list(range(seeds))
    whole = isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)
    _check(whole, f"stage {name!r}: seeds must be a number of seeds or a list of them, not {stage['seeds']!r}")
    # Arms are interleaved within a seed, so that a drift of the machine hits all of them alike.
    for seed in seeds:
        for arm in stage["arms"]:
            settings = {"architecture": arm, **recipe, **(arms[arm] or {})}
            _check(not {"arm", "seed"} & set(settings), "arm and seed are set by the stages, not in recipe or arms")
            yield RunConfig.from_dict({"arm": arm, "seed": seed, **settings})


def _check(condition, problem):
    if not condition:
        raise StudyError(problem)


def _check_mapping(what, value):
    _check(isinstance(value, dict), f"{what} must be a mapping of names to values, not {value!r}")
