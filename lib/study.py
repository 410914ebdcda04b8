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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _study(path.stem, content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{shown(path)} is not valid YAML: {' '.join(str(error).split())}") from None
    except StudyError as error:
        raise StudyError(f"{shown(path)}: {error}") from None


def _study(name, content):
    _check_mapping("the file", content)
    for key in KEYS ^ set(content):
        problem = "lacks the entry" if key in KEYS else "has an unknown entry"
        raise StudyError(f"{problem} {key!r}")
    for key in ("primary", "recipe", "arms"):
        _check_mapping(key, content[key])
    runs = {}
    for stage in content["stages"]:
        for config in _stage_runs(stage, content["recipe"], content["arms"]):
            runs.setdefault((config.arm, config.seed), config)
    primary = content["primary"]
    for role in ("arm", "baseline"):
        if primary.get(role) not in content["arms"]:
            raise StudyError(f"primary.{role} must name one of the arms, not {primary.get(role)!r}")
    return Study(name, content["title"], primary["arm"], primary["baseline"], tuple(runs.values()))


def _stage_runs(stage, recipe, arms):
    _check_mapping("a stage", stage)
    if set(stage) != {"name", "arms", "seeds"}:
        raise StudyError(f"a stage needs name, arms and seeds, not {sorted(stage)}")
    for arm in stage["arms"]:
        if arm not in arms:
            raise StudyError(f"stage {stage['name']!r} names the arm {arm!r}{suggestion(arm, list(arms))}")
    # Arms are interleaved within a seed, so that a drift of the machine hits all of them alike.
    for seed in range(stage["seeds"]) if isinstance(stage["seeds"], int) else stage["seeds"]:
        for arm in stage["arms"]:
            settings = {"architecture": arm, **recipe, **(arms[arm] or {})}
            yield RunConfig.from_dict({"arm": arm, "seed": seed, **settings})


def _check_mapping(what, value):
    if not isinstance(value, dict):
        raise StudyError(f"{what} must be a mapping of names to values, not {value!r}")
