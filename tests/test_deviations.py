"""Deviations from the plan, found in constructed run folders and a small git repository."""

import dataclasses
import os
import subprocess
import sys

import pandas as pd
import pytest

from lib import deviations as module
from lib.config import config_hash
from lib.deviations import PREREGISTRATION, TWIN, deviations, planned_and_finished, preregistration_record
from lib.gitinfo import commits, git
from lib.paths import ROOT, run_folder
from lib.runs import finished_runs, write_json
from lib.study import Study
from lib.studyfile import Stage, Tuning
from lib.tuning import cell_label

ARMS = ("resnet18", "se_resnet18")
ENVIRONMENT = {
    "packages": {"torch": "2.14.1"},
    "device": "cuda",
    "device_name": "NVIDIA A100",
    "precision": "fp32",
    "uncommitted_changes": False,
}


def in_repository(folder, *arguments, day=1):
    """Runs git as on a day of May 2026, and returns what it prints."""
    who = {f"GIT_{role}_{what}": "x@y.z" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"2026-05-{day:02d}T12:00:00+02:00")
    variables = os.environ | who | when | {"GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout.strip()


def commit(folder, path, content, day):
    """Commits a file with this content and returns the commit's hash."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content)
    in_repository(folder, "add", path)
    in_repository(folder, "commit", "--quiet", "--message", content, day=day)
    return in_repository(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A repository with one commit of the twin on day 1, in place of this one."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.setattr(module, "ROOT", folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    in_repository(folder, "init", "--quiet")
    commit(folder, TWIN, "a draft", day=1)
    return folder


@pytest.fixture
def registered(checkout):
    """The hash of a commit that adds the preregistration on day 2."""
    return commit(checkout, PREREGISTRATION, "the plan", day=2)


@pytest.fixture
def study(make_config):
    """Primary arms with four seeds, a control with the first two."""
    stages = (
        Stage("primary", ARMS, (0, 1, 2, 3), {"": {}}, "own"),
        Stage("controls", ("wide",), (0, 1), {"": {}}, "own"),
    )
    runs = [make_config(arm=arm, seed=seed) for stage in stages for seed in stage.seeds for arm in stage.arms]
    return Study("paper", "Two arms", "se_resnet18", "resnet18", tuple(runs), stages=stages)


def finish(study, config, day=3, **environment):
    """The complete run folder of a config that finished on a day of May 2026; returns it."""
    folder, part = run_folder(study.name, config.arm, config.seed), "val" if config.validation_images else "test"
    summary = {
        "config_hash": config_hash(config.to_dict()),
        "data_source": "digits",
        "data_fingerprint": "f" * 64,
        "precision": "fp32",
        f"{part}_accuracy": 0.5,
        f"{part}_loss": 1.0,
        "parameters": 1000,
        "train_seconds": 10.0,
        "finished_utc": f"2026-05-{day:02d}T00:00:00+00:00",
    }
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "environment.json", ENVIRONMENT | environment)
    write_json(folder / "summary.json", summary)
    return folder


def finish_all(study, day=3, **environment):
    for config in study.runs:
        finish(study, config, day, **environment)


def as_rehearsal(study):
    return dataclasses.replace(study, name="laptop")


def progress(study):
    return planned_and_finished(study, finished_runs(study)).set_index("stage").T.to_dict("list")


def test_a_study_that_went_as_planned_deviates_in_nothing(study, registered):
    finish_all(study, commit=registered)
    assert deviations(study) == []


def test_what_is_finished_of_each_stage(study):
    for config in [*study.runs[:3], *study.runs[8:]]:
        finish(study, config)
    assert progress(study) == {"primary": [8, 3, False], "controls": [2, 2, True]}


def test_nothing_finished_is_told_by_stage(study):
    assert deviations(study) == ["0 of 10 planned runs are finished; missing: 8 of 8 in primary, 2 of 2 in controls."]


def test_runs_of_the_tuning_come_first_and_those_that_wait_for_it_are_planned(study, make_config):
    tuning = Tuning(ARMS, (1000,), 40, {"learning_rate": [0.1, 0.2]})
    trials = [
        make_config(arm=cell_label(arm, {"learning_rate": rate}), seed=1000, validation_images=40)
        for arm in ARMS
        for rate in tuning.grid["learning_rate"]
    ]
    study = dataclasses.replace(study, runs=tuple(trials), awaiting=study.runs, tuning=tuning)
    for config in trials[:3]:
        finish(study, config)
    assert list(progress(study)) == ["tuning", "primary", "controls"]
    assert progress(study) == {"tuning": [4, 3, False], "primary": [8, 0, False], "controls": [2, 0, False]}


def test_variants_and_winners_of_a_stage_count_under_their_labels(make_config):
    length = Stage("length", ARMS, (0,), {"1_epoch": {}, "4_epochs": {}}, "own")
    crossed = Stage("cross_winner", ARMS, (0,), {"": {}}, "other")
    labels = ["se_resnet18__4_epochs", "resnet18__1_epoch", "resnet18__other_winner"]
    runs = tuple(make_config(arm=label, seed=0) for label in labels)
    study = Study("laptop", "Curves", "se_resnet18", "resnet18", runs, stages=(length, crossed))
    finish(study, runs[2])
    assert progress(study) == {"length": [2, 0, False], "cross_winner": [1, 1, True]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device_name": "Tesla T4"}, "kind of device .*: NVIDIA A100: 7, Tesla T4: 1"),
        ({"packages": {"torch": "2.13.0"}}, "version of torch .*: 2.14.1: 7, 2.13.0: 1"),
        ({"device": "cpu"}, "type of device .*: cuda: 7, cpu: 1"),
        ({"precision": "bf16"}, "precision .*: fp32: 7, bf16: 1"),
        ({"device_name": None}, "kind of device .*: NVIDIA A100: 7, unknown: 1"),
    ],
)
def test_one_run_on_something_else_is_told_of_its_stage_alone(study, changed, said):
    study = as_rehearsal(study)
    finish_all(study, commit="a" * 40)
    finish(study, study.runs[7], **{"commit": "a" * 40, **changed})  # a seed that the controls lack
    (sentence,) = deviations(study)
    what, counts = said.split(" .*: ")
    assert sentence == (
        f"More than one {what} in the comparisons of 1 of 2 stages with finished runs (number of runs of each): "
        f"primary ({counts})."
    )


def test_controls_on_another_device_than_the_arms_they_are_compared_with_are_told(study):
    study = as_rehearsal(study)
    for config in study.runs:
        finish(study, config, commit="a" * 40, device_name="Tesla T4" if config.arm == "wide" else "NVIDIA A100")
    (sentence,) = deviations(study)
    assert "controls (NVIDIA A100: 4, Tesla T4: 2)" in sentence and "primary" not in sentence


def test_a_run_that_began_on_another_device_counts_for_both(study):
    study = as_rehearsal(study)
    finish_all(study, commit="a" * 40)
    began = ENVIRONMENT | {"commit": "b" * 40, "device_name": "Tesla T4", "uncommitted_changes": True}
    finish(study, study.runs[7], commit="a" * 40, earlier=[began])
    mixed, code = deviations(study)
    assert "primary (NVIDIA A100: 8, Tesla T4: 1)" in mixed
    assert code == "1 run came from code with uncommitted changes: se_resnet18 seed 3."


def test_runs_of_uncommitted_or_unknown_code_are_counted_with_three_examples(study):
    study = as_rehearsal(study)
    for number, config in enumerate(study.runs):
        finish(study, config, commit="a" * 40 if number else None, uncommitted_changes=number > 4)
    assert deviations(study) == [
        "5 runs came from code with uncommitted changes: se_resnet18 seed 2, resnet18 seed 3, se_resnet18 seed 3, "
        "and 2 more.",
        "1 run came from code of an unknown commit: resnet18 seed 0.",
    ]


def test_a_run_without_a_record_is_of_unknown_code(study):
    study = as_rehearsal(study)
    finish_all(study, commit="a" * 40)
    (run_folder("laptop", "wide", 1) / "environment.json").unlink()
    assert "1 run came from code of an unknown commit: wide seed 1." in deviations(study)


def test_later_commits_are_fine_and_others_are_not(study, checkout, registered):
    later = commit(checkout, "lib/code.py", "later", day=3)
    beside = in_repository(checkout, "commit-tree", f"{registered}^{{tree}}", "-m", "no parent", day=3)
    before = in_repository(checkout, "rev-parse", f"{registered}^")
    finish_all(study, day=4, commit=later)
    assert deviations(study) == []
    for config, each in zip(study.runs, (before, beside, "a" * 40), strict=False):
        finish(study, config, day=4, commit=each)
    assert deviations(study) == [
        f"3 runs came from code that is not known to be the commit of the preregistration ({registered[:7]}) or a "
        "descendant of it: resnet18 seed 0, se_resnet18 seed 0, resnet18 seed 1."
    ]


def test_runs_that_finished_before_the_commit_are_told(study, registered):
    finish_all(study, commit=registered)
    finish(study, study.runs[0], day=2, commit=registered)  # ten hours before
    assert deviations(study) == [
        f"1 run finished before the commit of the preregistration ({registered[:7]}), 2026-05-02 10:00 UTC, or at an "
        "unknown time: resnet18 seed 0."
    ]
    assert preregistration_record(study)["older"] is False


def test_a_run_that_does_not_say_when_it_finished_is_told(study, registered):
    finish_all(study, commit=registered)
    path = run_folder("paper", "wide", 0) / "summary.json"
    path.write_text(path.read_text().replace("finished_utc", "finished"))
    (sentence,) = deviations(study)
    assert sentence.endswith("or at an unknown time: wide seed 0.")


@pytest.mark.parametrize("path", [PREREGISTRATION, TWIN])
def test_a_change_after_the_first_run_is_told_and_one_before_is_not(study, checkout, registered, path):
    better = commit(checkout, path, "better", day=3)
    finish_all(study, day=5, commit=better)
    finish(study, study.runs[0], day=4, commit=better)
    assert deviations(study) == [] and preregistration_record(study)["commit"] == better[:7]
    change = commit(checkout, path, "too late", day=4)
    assert deviations(study) == [
        f"1 commit changed {PREREGISTRATION} or {TWIN} after the first run, 2026-05-04 00:00 UTC: "
        f"{change[:7]} of 2026-05-04 10:00 UTC."
    ]


def test_code_older_than_the_plan_in_force_is_told(study, checkout, registered):
    better = commit(checkout, TWIN, "better", day=3)
    finish_all(study, day=5, commit=better)
    finish(study, study.runs[0], day=4, commit=registered)
    (sentence,) = deviations(study)
    assert sentence.startswith("1 run came from code that is not known to be") and better[:7] in sentence


def test_a_change_that_is_not_committed_is_told(study, checkout, registered):
    finish_all(study, commit=registered)
    (checkout / TWIN).write_text("changed")
    assert deviations(study) == [f"There are uncommitted changes to {PREREGISTRATION} or {TWIN}."]


def test_a_preregistration_that_was_taken_away_and_put_back_counts_from_its_first_day(study, checkout, registered):
    in_repository(checkout, "rm", "--quiet", PREREGISTRATION)
    in_repository(checkout, "commit", "--quiet", "--message", "away", day=4)
    commit(checkout, PREREGISTRATION, "another plan", day=5)
    finish_all(study, commit=registered)
    assert preregistration_record(study)["commit"] == registered[:7]
    (sentence,) = deviations(study)
    assert sentence.startswith("2 commits changed")


def test_the_record_of_a_preregistered_study(study, registered):
    finish_all(study, day=6, commit=registered)
    finish(study, study.runs[4], day=5, commit=registered)
    assert preregistration_record(study) == {
        "commit": registered[:7],
        "date": "2026-05-02T10:00:00+00:00",
        "first_run_finished": "2026-05-05T00:00:00+00:00",
        "older": True,
        "unknown_because": None,
    }


def test_the_record_before_the_first_run(study, registered):
    record = preregistration_record(study)
    assert (record["commit"], record["first_run_finished"], record["older"]) == (registered[:7], None, None)
    assert record["unknown_because"] == "no finished run with a date"


def test_the_record_of_a_rehearsal_knows_no_preregistration(study, registered):
    study = as_rehearsal(study)
    finish_all(study, day=1, commit=registered)
    assert preregistration_record(study) == {
        "commit": None,
        "date": None,
        "first_run_finished": "2026-05-01T00:00:00+00:00",
        "older": None,
        "unknown_because": "rehearsal, not preregistered",
    }
    assert deviations(study) == []  # though the runs are older than the preregistration


def assert_unknown(study, reason):
    record = preregistration_record(study)
    assert (record["commit"], record["date"], record["older"]) == (None, None, None)
    assert reason in record["unknown_because"]
    assert deviations(study) == [
        f"Whether the runs of paper are newer than their preregistration is unknown: {record['unknown_because']}."
    ]


def test_a_file_that_is_not_committed_is_no_preregistration(study, checkout):
    (checkout / PREREGISTRATION).parent.mkdir()
    (checkout / PREREGISTRATION).write_text("the plan")
    finish_all(study, commit="a" * 40)
    assert_unknown(study, "report/preregistration.md is not committed")


def test_without_git_history_the_order_is_unknown(study, checkout, monkeypatch, tmp_path):
    finish_all(study, commit="a" * 40)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert_unknown(study, "no git history")


def test_without_git_the_order_is_unknown(study, registered, monkeypatch):
    finish_all(study, commit=registered)
    monkeypatch.setenv("PATH", "")
    assert_unknown(study, "no git history")


def test_in_a_shallow_clone_the_order_is_unknown(study, checkout, registered, monkeypatch, tmp_path):
    head = commit(checkout, "lib/code.py", "later", day=20)
    in_repository(tmp_path, "clone", "--quiet", "--depth=1", f"file://{checkout}", "shallow")
    monkeypatch.setattr(module, "ROOT", tmp_path / "shallow")
    added = commits("--diff-filter=A", "--", PREREGISTRATION, folder=tmp_path / "shallow")
    assert [each for each, _ in added] == [head]  # the wrong answer that git gives there
    finish_all(study, commit=head)
    assert_unknown(study, "shallow clone")


def test_commits_are_listed_newest_first_in_utc(checkout, registered):
    (newest, date), (_, first) = commits(folder=checkout)
    assert newest == registered
    assert date.isoformat() == "2026-05-02T10:00:00+00:00" and date - first == pd.Timedelta(days=1)


def test_git_that_fails_says_nothing(tmp_path, checkout):
    assert git("rev-parse", "no-such-commit", folder=checkout) is None
    assert commits(folder=tmp_path) == []


def test_the_files_of_the_plan_are_where_git_is_asked_for_them():
    assert (ROOT / PREREGISTRATION).is_file() and (ROOT / TWIN).is_file()


def test_deviations_are_listed_without_torch():
    code = "import sys, lib.deviations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_run_that_diverged_is_named_with_its_reason(study):
    for config in study.runs[1:]:
        finish(study, config)
    left = study.runs[0]
    write_json(run_folder(study.name, left.arm, left.seed) / "failure.json", {"reason": "the training loss is nan"})
    assert f"{left.arm} seed {left.seed} is excluded: the training loss is nan." in deviations(study)
