"""A study: the list of runs that its file describes, with the settings that the tuning has found."""

import dataclasses

import pandas as pd

from lib.config import SEPARATOR, RunConfig, suggestion
from lib.errors import StudyError
from lib.paths import shown
from lib.studyfile import check, read_study_file
from lib.tuning import cell_label, choose_winners, grid_cells, tuning_scores


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked study: `runs` holds one RunConfig for each run, most important first.

    awaiting: runs whose settings the tuning has not found yet, with the recipe's settings for now.
    """

    name: str
    title: str
    arm: str  # the primary comparison: arm − baseline
    baseline: str
    runs: tuple
    awaiting: tuple = ()
    stages: tuple = ()
    tuning: object = None
    tuning_default: dict = None  # the cell of the grid that the recipe stands for
    tuning_scores: pd.DataFrame = None
    winners: dict = None  # arm → settings, when the tuning is complete

    def run(self, arm, seed):
        """The config of one run; raises StudyError when the study has no such arm or seed, or not yet."""
        arms = list(dict.fromkeys(config.arm for config in (*self.runs, *self.awaiting)))
        if arm not in arms:
            raise StudyError(f"study {self.name!r} has no arm {arm!r}{suggestion(arm, arms)}")
        for config in self.runs:
            if (config.arm, config.seed) == (arm, seed):
                return config
        if any((config.arm, config.seed) == (arm, seed) for config in self.awaiting):
            raise StudyError(f"{arm} waits for the tuning of study {self.name!r}: ./run_all.sh --study {self.name}")
        seeds = sorted(config.seed for config in (*self.runs, *self.awaiting) if config.arm == arm)
        raise StudyError(f"study {self.name!r} has no seed {seed!r} for {arm}: take one of {seeds}")


def load_study(name):
    """The study of a study file; what its tuning has found is read from the finished runs in outputs/.

    Raises StudyError as read_study_file does, for settings that are not valid, and as read_summary does.
    """
    file = read_study_file(name)
    try:
        trials = _tuning_configs(file) if file.tuning else {}
        staged = _staged(file, winners=None)
        datasets = sorted({config.dataset for config in staged})
        check(len(datasets) == 1, f"all arms must share one data set, not {datasets}")
    except StudyError as error:
        raise StudyError(f"{shown(file.path)}: {error}") from None
    scores = tuning_scores(file.name, file.tuning, trials) if trials else None
    default = _default_cell(file) if trials else None
    winners = None
    if trials and len(scores) == len(trials):
        winners = choose_winners(file.tuning, scores, default)
        staged = _staged(file, winners)
    waits = trials and winners is None
    return Study(
        file.name,
        file.title,
        file.arm,
        file.baseline,
        runs=(*trials.values(), *(() if waits else staged)),
        awaiting=staged if waits else (),
        stages=file.stages,
        tuning=file.tuning,
        tuning_default=default,
        tuning_scores=scores,
        winners=winners,
    )


def _default_cell(file):
    recipe = _config(file, file.baseline, file.baseline, 0, {}).to_dict()
    return {setting: recipe[setting] for setting in file.tuning.grid}


def _staged(file, winners):
    """The runs of all stages; one that stands in two stages is made once, in the first."""
    runs = {}
    for stage in file.stages:
        for config in _stage_configs(file, stage, winners):
            first = runs.setdefault((config.arm, config.seed), config)
            check(first == config, f"two stages name {config.arm} seed {config.seed} with different settings")
    return tuple(runs.values())


def _tuning_configs(file):
    """{(tuned arm, index of the cell, seed): RunConfig}, interleaved within a seed."""
    return {
        (arm, index, seed): _config(
            file, arm, cell_label(arm, cell), seed, file.tuning.settings | cell | {"validation_images": held_out}
        )
        for seed in file.tuning.seeds
        for index, cell in enumerate(grid_cells(file.tuning))
        for arm in file.tuning.arms
        for held_out in [file.tuning.validation_images]
    }


def _stage_configs(file, stage, winners):
    """The configs of a stage. Arms are interleaved within a seed, so that a drift of the machine hits all alike."""
    for seed in stage.seeds:
        for variant, settings in stage.variants.items():
            for arm in stage.arms:
                label = stage_label(stage, arm, variant)
                found = winner_of(file, arm, winners, stage.winner) if winners else {}
                if winners and stage.winner == "other" and found == winner_of(file, arm, winners, "own"):
                    continue  # both arms win with the same settings: nothing to cross
                yield _config(file, arm, label, seed, found | settings)


def stage_label(stage, arm, variant=""):
    """What the runs of an arm in a stage are called: in folders, tables and figures."""
    crossed = ["other_winner"] if stage.winner == "other" else []
    return SEPARATOR.join([arm, *crossed, *([variant] if variant else [])])


def winner_of(file, arm, winners, which):
    """The tuned settings of an arm: its own, those of the tuned arm with its architecture, else the baseline's.

    which: `own`, or `other` for those of the other tuned arm.
    """
    architecture = _architecture(file, arm)
    same = [tuned for tuned in file.tuning.arms if _architecture(file, tuned) == architecture]
    source = arm if arm in winners else same[0] if same else file.baseline
    if which == "other":
        source = next(tuned for tuned in file.tuning.arms if tuned != source)
    return winners[source]


def _architecture(file, arm):
    return file.arms[arm].get("architecture", file.recipe.get("architecture", arm))


def _config(file, arm, label, seed, settings):
    recipe = {"architecture": arm, **file.recipe, **file.arms[arm], **settings}
    return RunConfig.from_dict({"arm": label, "seed": seed, **recipe})
