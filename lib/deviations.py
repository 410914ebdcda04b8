"""How the finished runs of a study deviate from its plan, from their records and the history in git; no torch."""

import pandas as pd

from lib.gitinfo import commits, git
from lib.paths import ROOT, run_folder
from lib.runs import finished_runs, read_json
from lib.study import stage_label
from lib.tuning import cell_label, grid_cells

PREREGISTERED = "paper"  # the study with a preregistration
PREREGISTRATION = "report/preregistration.md"
TWIN = "lib/studies/paper.yaml"
MOST_EXAMPLES = 3
# column of `_records`: what it is called in a sentence
EQUAL_IN_A_COMPARISON = {
    "device_name": "kind of device",
    "torch": "version of torch",
    "device": "type of device",
    "precision": "precision",
}


def planned_and_finished(study, runs):
    """One row for each stage, tuning first: stage, planned, finished (numbers of runs), complete (bool).

    runs: from lib.runs.finished_runs. A run that stands in several stages counts in each, as it is made for all.
    """
    finished = _keys(runs)
    rows = [
        {"stage": name, "planned": len(keys), "finished": len(keys & finished), "complete": keys <= finished}
        for name, keys, _ in _stages(study)
    ]
    return pd.DataFrame(rows, columns=["stage", "planned", "finished", "complete"])


def deviations(study):
    """Sentences, one for each kind of deviation from the plan, with numbers and examples; none when all is as planned.

    Settings need no sentence: lib.runs.read_summary refuses other ones than the study file's. Where git cannot tell
    whether a preregistered study follows its preregistration, a sentence says so. Raises StudyError as finished_runs.
    """
    runs = finished_runs(study)
    records = _records(runs)
    code = [
        *_named(records[records["uncommitted_changes"]], "came from code with uncommitted changes"),
        *_named(records[records["commit"].isna()], "came from code of an unknown commit"),
    ]
    against = _against_preregistration(study, records) if study.name == PREREGISTERED and runs else []
    return [*_missing(study, runs), *_diverged(study, runs), *_mixed(study, records), *code, *against]


def preregistration_record(study):
    """Whether the preregistration is older than the first finished run: plain values, None for what is unknown.

    commit (short hash), date (ISO, UTC) of the commit that added it; first_run_finished (ISO, UTC); older (bool);
    unknown_because: why `older` is None. Raises StudyError as finished_runs.
    """
    first = _records(finished_runs(study))["finished"].min()
    commit, date, reason = _preregistration(first) if study.name == PREREGISTERED else (None, None, None)
    if study.name != PREREGISTERED:
        reason = "rehearsal, not preregistered"
    elif pd.isna(first):
        reason = reason or "no finished run with a date"
    return {
        "commit": commit and commit[:7],
        "date": date and date.isoformat(),
        "first_run_finished": None if pd.isna(first) else first.isoformat(),
        "older": None if reason else bool(date < first),
        "unknown_because": reason,
    }


def _keys(runs):
    return {(config.arm, config.seed) for config, _, _ in runs}


def _stages(study):
    """(name, its planned runs, the runs that they are compared with) of each stage; runs as sets of (arm, seed)."""
    planned = {(config.arm, config.seed) for config in (*study.runs, *study.awaiting)}
    stages = []
    if study.tuning:
        cells = [cell_label(arm, cell) for arm in study.tuning.arms for cell in grid_cells(study.tuning)]
        stages.append(("tuning", planned & {(label, seed) for label in cells for seed in study.tuning.seeds}, set()))
    for stage in study.stages:
        labels = [stage_label(stage, arm, variant) for arm in stage.arms for variant in stage.variants]
        primary = {(arm, seed) for arm in (study.arm, study.baseline) for seed in stage.seeds}
        stages.append((stage.name, planned & {(label, seed) for label in labels for seed in stage.seeds}, primary))
    return stages


def _records(runs):
    """One row for each record of what a run ran on; a run that was resumed elsewhere or with other code has several."""
    columns, rows = [*EQUAL_IN_A_COMPARISON, "commit", "uncommitted_changes"], []
    for config, folder, summary in runs:
        environment = read_json(folder / "environment.json") or {}
        for record in (environment, *environment.get("earlier", [])):
            torch, own = record.get("packages", {}).get("torch"), {name: record.get(name) for name in columns}
            rows.append(
                {"key": (config.arm, config.seed), "finished": summary.get("finished_utc"), **own, "torch": torch}
            )
    table = pd.DataFrame(rows, columns=["key", "finished", *columns])
    finished = pd.to_datetime(table["finished"], utc=True, errors="coerce", format="ISO8601")
    return table.assign(finished=finished, uncommitted_changes=table["uncommitted_changes"].eq(True))


def _missing(study, runs):
    total = len(study.runs) + len(study.awaiting)
    table = planned_and_finished(study, runs)
    short = table[table["finished"] < table["planned"]]
    lacking = [f"{row.planned - row.finished} of {row.planned} in {row.stage}" for row in short.itertuples()]
    return [f"{len(runs)} of {total} planned runs are finished; missing: {', '.join(lacking)}."] if lacking else []


def _diverged(study, runs):
    """Runs that failed for good, each with its reason, and runs of the tuning that count as accuracy 0."""
    sentences = []
    for config in study.runs:
        failure = read_json(run_folder(study.name, config.arm, config.seed) / "failure.json")
        if failure and (config.arm, config.seed) not in _keys(runs):
            sentences.append(f"{config.arm} seed {config.seed} is excluded: {failure['reason']}.")
    for config, _, summary in runs:
        if "diverged" in summary:
            sentences.append(f"{config.arm} seed {config.seed} counts as accuracy 0: {summary['diverged']}.")
    return sentences


def _mixed(study, records):
    """What is not the same in all runs that a stage compares: its own, and those of the primary arms with its seeds."""
    stages = [stage for stage in _stages(study) if stage[1] & set(records["key"])]
    sentences = []
    for column, what in EQUAL_IN_A_COMPARISON.items():
        mixed = []
        for name, own, others in stages:
            part = records[records["key"].isin(own | others)].fillna({column: "unknown"})
            counts = part.groupby(column, sort=False)["key"].nunique()
            if len(counts) > 1:
                mixed.append(f"{name} ({', '.join(f'{value}: {count}' for value, count in counts.items())})")
        if mixed:
            sentences.append(
                f"More than one {what} in the comparisons of {len(mixed)} of {len(stages)} stages with finished runs "
                f"(number of runs of each): {_examples(mixed)}."
            )
    return sentences


def _against_preregistration(study, records):
    commit, date, reason = _preregistration(records["finished"].min())
    if reason:
        return [f"Whether the runs of {study.name} are newer than their preregistration is unknown: {reason}."]
    known = records.dropna(subset="commit")
    descends = {
        each: git("merge-base", "--is-ancestor", commit, each, folder=ROOT) is not None for each in set(known["commit"])
    }
    elsewhere = known[~known["commit"].map(descends).astype(bool)]
    early = records[~(records["finished"] > date)]
    origin = f"the commit of the preregistration ({commit[:7]})"
    return [
        *_named(elsewhere, f"came from code that is not known to be {origin} or a descendant of it"),
        *_named(early, f"finished before {origin}, {_shown(date)}, or at an unknown time"),
        *_changes(commit, records["finished"].min()),
    ]


def _preregistration(first):
    """Hash and date of the plan in force when the first run finished, and None; or None, None and why it is unknown.

    That is the newest commit by then of the preregistration or its twin. Where the preregistration was added later, the
    commit that added it.
    """
    shallow = git("rev-parse", "--is-shallow-repository", folder=ROOT)
    if shallow is None:
        return None, None, "this copy has no git history"
    if shallow != "false":  # in a shallow clone, the oldest commit there seems to add every file
        return None, None, "this is a shallow clone; git fetch --unshallow completes it"
    added = commits("--diff-filter=A", "--", PREREGISTRATION, folder=ROOT)
    if not added:
        return None, None, f"{PREREGISTRATION} is not committed"
    changes = commits("--", PREREGISTRATION, TWIN, folder=ROOT)
    by_then = [(commit, date) for commit, date in changes if added[-1][1] <= date < first]
    return (*(by_then or added[-1:])[0], None)


def _changes(added, first):
    """Changes of the preregistration or its twin after the first run finished, committed or not; not its addition."""
    files = f"{PREREGISTRATION} or {TWIN}"
    changes = commits("--", PREREGISTRATION, TWIN, folder=ROOT)
    later = [f"{commit[:7]} of {_shown(date)}" for commit, date in changes if date > first and commit != added]
    sentences = []
    if later:
        number = f"{len(later)} commit{'s'[: len(later) > 1]}"
        sentences.append(f"{number} changed {files} after the first run, {_shown(first)}: {_examples(later)}.")
    if git("status", "--porcelain", "--", PREREGISTRATION, TWIN, folder=ROOT):
        sentences.append(f"There are uncommitted changes to {files}.")
    return sentences


def _named(records, statement):
    """The sentence that these runs did something, or none where there are none."""
    names = [f"{arm} seed {seed}" for arm, seed in dict.fromkeys(records["key"])]
    return [f"{len(names)} run{'s'[: len(names) > 1]} {statement}: {_examples(names)}."] if names else []


def _examples(names):
    rest = len(names) - MOST_EXAMPLES
    return ", ".join([*names[:MOST_EXAMPLES], *([f"and {rest} more"] if rest > 0 else [])])


def _shown(date):
    return f"{date:%Y-%m-%d %H:%M} UTC"
