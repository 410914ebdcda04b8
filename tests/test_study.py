import copy
import itertools
import re

import pytest
import yaml
from made_runs import make_run

from lib.files import StudyError, read_json, run_folder, write_json
from lib.study import load_study
from lib.train.models import ARCHITECTURES

BOTH = ["resnet18", "se_resnet18"]
PLAIN = {
    "title": "Two arms",
    "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
    "recipe": {"dataset": "digits", "width": 0.125, "epochs": 2, "warmup_epochs": 1.0},
    "arms": {"resnet18": {}, "se_resnet18": {"reduction": 4}, "wide": {"architecture": "wide_resnet18"}},
    "stages": [
        {"name": "primary", "arms": BOTH, "seeds": 2},
        {"name": "others", "arms": ["wide", "resnet18"], "seeds": [1, 4]},
        {"name": "length", "arms": BOTH, "seeds": 1, "variants": {"short": {"epochs": 1, "learning_rate": 0.4}}},
    ],
}
GRID = {"learning_rate": [0.05, 0.1, 0.2]}
TUNED = {**PLAIN, "tuning": {"arms": BOTH, "seeds": [7, 8], "validation_images": 100, "grid": GRID}}


def changed(content, *keys, value):
    content = copy.deepcopy(content)
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return content


@pytest.fixture
def write(tmp_path):
    def write(content, name="mine.yaml"):
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def refusal(name):
    with pytest.raises(StudyError) as caught:
        load_study(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pairs(configs):
    return [(config.arm, config.seed) for config in configs]


def test_every_study_can_be_trained_and_paper_is_the_preregistered_one():
    for study in map(load_study, ("laptop", "paper", "replication", "smoke")):
        assert {config.architecture for config in (*study.runs, *study.awaiting)} <= set(ARCHITECTURES)
    study = load_study("paper")
    cells = [(run.architecture, run.learning_rate, run.seed, run.validation_images) for run in study.runs]
    assert sorted(cells) == list(itertools.product(BOTH, (0.05, 0.1, 0.2, 0.4), (1000, 1001), (5000,)))
    assert pairs(study.awaiting)[:20] == [(arm, seed) for seed in range(10) for arm in BOTH]
    assert max(config.seed for config in study.awaiting) < 1000 and study.planned_pairs == 10
    assert all(config.reduction == 16 * config.width for config in (*study.runs, *study.awaiting))


def test_the_runs_come_stage_by_stage_and_once_and_a_stop_ends_the_primary_comparison(write):
    study = load_study(write(PLAIN))
    assert (study.name, study.title, study.arm, study.baseline) == ("mine", "Two arms", "se_resnet18", "resnet18")
    primary, others = [(arm, seed) for seed in (0, 1) for arm in BOTH], [("wide", 1), ("wide", 4), ("resnet18", 4)]
    assert pairs(study.runs) == [*primary, *others, ("resnet18__short", 0), ("se_resnet18__short", 0)]
    settings = [(config.architecture, config.reduction, config.epochs) for config in study.runs]
    assert settings[3:5] == [("se_resnet18", 4, 2), ("wide_resnet18", 16, 2)] and settings[-2] == ("resnet18", 16, 1)
    stop = {"date": "2026-01-31", "primary_pairs": 8}
    stopped = load_study(write(changed(changed(PLAIN, "stages", 0, "seeds", value=10), "stop", value=stop)))
    assert (study.planned_pairs, stopped.planned_pairs, len(stopped.runs)) == (2, 8, 24)


def test_names_and_paths_of_study_files(monkeypatch, tmp_path, write):
    monkeypatch.chdir(tmp_path)  # paths count from the repository's root all the same
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_study("lib/studies/smoke.yaml").runs == load_study("smoke").runs
    assert [load_study(write(PLAIN, name)).name for name in ("001.yaml", "mine.yml")] == ["001", "mine"]
    assert load_study("~/001.yaml").runs == load_study("~/mine.yml").runs
    with pytest.raises(StudyError, match="-r study NAME"):
        load_study(1)  # what papermill makes of -p study 001
    for name in ("smok", "smoke.yml", "lib/studies/smok.yaml", "nowhere/smoke.yaml"):
        assert name in refusal(name) and "'smoke'" in refusal(name)
    monkeypatch.setattr("lib.study.STUDIES", tmp_path)
    assert load_study("mine").runs == load_study("001").runs


WRONG = {  # what the line names: the keys of an entry, and its wrong value
    "'stage'.*'stages'": (["stage"], []),
    "'stages.0.seed'.*'seeds'": (["stages", 0, "seed"], 2),
    "'widht'.*'width'": (["arms", "resnet18", "widht"], 0.5),
    "'resnet81'.*'resnet18'": (["stages", 0, "arms"], ["resnet81", "se_resnet18"]),
    "warmup_epochs = 3.*epochs = 2": (["recipe", "warmup_epochs"], 3),
    "seeds = '0-9'.*list": (["stages", 0, "seeds"], "0-9"),
    "stages.0.seeds: 1 stands twice": (["stages", 0, "seeds"], [1, 1]),
    "recipe: seed": (["recipe", "seed"], 1),
    "2018.*string": (["arms", 2018], {"architecture": "resnet18"}),
    "a/b.*pattern": (["stages", 2, "variants"], {"a/b": {}}),
    "primary.*resnet18 with resnet18": (["primary", "arm"], "resnet18"),
    "primary.*se_resnet18 with resnet18": (["stages", 0, "arms"], ["resnet18"]),
    "tuning.*primary": (["tuning", "arms"], ["resnet18"]),
    "one data set": (["arms", "wide", "dataset"], "cifar10"),
    "resnet18__short seed 0": (["stages", 1], {"name": "b", "arms": BOTH, "seeds": 1, "variants": {"short": {}}}),
    "title": ([], ""),  # the whole text
    "line 2": ([], "title: a\n\tb: 1"),
    "'title' stands twice.*line 3": ([], "title: One\narms: {}\ntitle: Two"),
    "stop.primary_pairs = 3 .*2": (["stop"], {"date": "2026-01-31", "primary_pairs": 3}),
}


@pytest.mark.parametrize("named", WRONG)
def test_what_is_wrong_is_named_with_the_file(write, named):
    keys, value = WRONG[named]
    assert re.search(rf"mine\.yaml: .*{named}", refusal(write(changed(TUNED, *keys, value=value) if keys else value)))


def places(content):  # the keys that lead to every entry
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield from ([key, *rest] for rest in ([], *(places(value) if isinstance(value, dict | list) else ())))


@pytest.mark.parametrize("value", [None, True, -1.5, "text", [[]], {3: 3}], ids=repr)
def test_a_value_of_another_type_is_one_line_or_fits(write, value):
    for keys in places(TUNED):
        path = write(changed(TUNED, *keys, value=value))
        try:
            load_study(path)
        except StudyError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize(("written", "rate"), [("1e-1", 0.1), ("5E-2", 0.05), ("2.5e-1", 0.25), ("1", 1.0)])
def test_numbers_and_names_in_yaml_are_taken_as_they_look(write, written, rate):
    text = yaml.safe_dump(changed(PLAIN, "recipe", "learning_rate", value="RATE")).replace("RATE", written)
    study = load_study(write(re.sub(r"\bresnet18", "'2018'", text)))
    assert (study.baseline, study.run("2018", 0).learning_rate) == ("2018", rate)


def tune(path, accuracies):
    """The study after its tuning: {arm: validation accuracies, cells × seeds}; None stands for a run that diverged."""
    study = load_study(path)
    for config in study.runs:
        row = accuracies[config.architecture][GRID["learning_rate"].index(config.learning_rate)]
        accuracy, folder = row[study.tuning.seeds.index(config.seed)], run_folder(study.name, config.arm, config.seed)
        make_run(folder, config)
        scores = {"val_accuracy": accuracy or 0.0, "val_loss": accuracy and 1.0}
        write_json(folder / "summary.json", read_json(folder / "summary.json") | scores)
    return load_study(path)


LOW_WINS = [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]]
CASES = [  # accuracies, the recipe's rate, winner; with two variances of 0.0002 the margin is √(0.0004 / 3) = 0.01155
    (LOW_WINS[::-1], 0.1, 0.2),
    ([[0.89, 0.91], [0.8885, 0.8885], [0.80, 0.82]], 0.1, 0.1),
    ([[0.89, 0.91], [0.8884, 0.8884], [0.80, 0.82]], 0.1, 0.05),
    ([[0.9, 0.9], [0.9, 0.9], [0.7, 0.7]], 0.1, 0.1),
    ([[0.5, 0.5], [None, None], [None, None]], 0.1, 0.05),
    ([[0.10, 0.95], [0.5, 0.5], [0.55, 0.55]], 0.3, 0.2),  # the best seed is not the best mean
]


@pytest.mark.parametrize(("table", "rate", "winner"), CASES)
def test_the_best_mean_wins_but_the_recipe_stays_within_the_margin(write, table, rate, winner):
    path = write(changed(TUNED, "recipe", "learning_rate", value=rate))
    study = tune(path, {"resnet18": table, "se_resnet18": LOW_WINS})
    assert study.winners == {"resnet18": {"learning_rate": winner}, "se_resnet18": {"learning_rate": 0.05}}
    rates = {config.arm: config.learning_rate for config in study.runs if not config.validation_images}
    shorts = {"resnet18__short": 0.4, "se_resnet18__short": 0.4}
    assert rates == {"resnet18": winner, "wide": winner, "se_resnet18": 0.05, **shorts}


def test_arms_wait_for_the_whole_tuning(write):
    path = write(TUNED)
    study = load_study(path)
    assert pairs(study.awaiting) == pairs(load_study(write(PLAIN, "plain.yaml")).runs)
    tune(path, dict.fromkeys(BOTH, LOW_WINS))
    last = study.runs[-1]
    (run_folder("mine", last.arm, last.seed) / "summary.json").unlink()
    study = load_study(path)
    assert (len(study.tuning_scores), len(study.runs), study.winners) == (11, 12, None)
    assert study.run(last.arm, last.seed) == last
    with pytest.raises(StudyError, match=r"wide waits .*run_all\.sh --study mine"):
        study.run("wide", 1)
    changed_tuning = changed(TUNED, "tuning", "settings", value={"width": 0.25})
    assert "width 0.125 there, 0.25 here" in refusal(write(changed_tuning))  # of the runs that are there


def test_one_run_of_a_study_and_trials_that_never_count(write):
    study = load_study(write(PLAIN))
    with pytest.raises(StudyError, match="'mine' .*'se_resnet81'.*'se_resnet18'.*a new one goes into arms"):
        study.run("se_resnet81", 0)
    with pytest.raises(StudyError, match=r"'mine' .*seed 7 for wide.*\[1, 4\].*add it"):
        study.run("wide", 7)
    assert study.run("wide", 1, {}) == study.run("wide", 1)
    trial = study.run("wide", 1, {"epochs": 3, "horizontal_flip": False})
    assert (trial.epochs, trial.horizontal_flip, trial.seed, trial.architecture) == (3, False, 1, "wide_resnet18")
    assert trial.arm.startswith("wide__") and "epochs_3" in trial.arm and trial not in study.runs
    assert study.run("wide", 1, {"epochs": 2}).arm != "wide"  # even with the settings that it has anyway
    wrong = {"seed is set by": {"seed": 7}, "settings: .*'epcohs'.*'epochs'": {"epcohs": 3}, "mapping": '{"epochs": 1}'}
    for told, settings in wrong.items():
        with pytest.raises(StudyError, match=told):
            study.run("wide", 1, settings)
