"""The finished runs of a study as tables, and how they differ from its plan; no torch."""

import itertools

import numpy as np
import pandas as pd

from lib.files import StudyError, git, outputs_folder, read_json, run_folder, shown
from lib.runs import diverged_runs, finished_runs, load_logits, load_table
from lib.study import RunConfig, label

PREREGISTERED, PREREGISTRATION = "paper", "report/preregistration.md"
# Code that trains as that on the right does, to the last bit: runs of both form pairs (report/preregistration.md).
SAME_CODE = {"a8fc1fd1794b6c94": "c18af9c0c43e0753"}
MEASURED = ("test_accuracy", "test_loss", "train_loss", "parameters", "multiply_adds", "train_seconds", "finished_utc")


def load_runs(study):
    """One row for each finished run on the test images: its settings, its summary and what it ran on.

    kind: device, precision and version of torch, "AMD EPYC, bf16, torch 2.14.1"; origin: that and the training code. A
    run that was resumed elsewhere or with other code has several, joined by " + ", and is not uniform. Accuracies are
    fractions; train_loss is that of the last epoch, in nats. withheld: until the primary comparison is complete, the
    scores of the arms of its stage are missing, so that no analysis can show a difference. Empty while only runs of the
    tuning are finished. Raises StudyError where none is, and as finished_runs does.
    """
    found = _tested(study)
    last = {folder: load_table(folder, "metrics.csv")["train_loss"].iloc[-1] for _, folder, _ in found}
    rows = [{**c.model_dump(), **summary, **_origin(f), "train_loss": last[f]} for c, f, summary in found]
    columns = None if rows else [*RunConfig.model_fields, *MEASURED, *_origin()]
    runs = pd.DataFrame(rows, columns=columns)
    runs["withheld"] = runs["arm"].isin(study.primary_stage.arms) & (not primary_is_complete(study))
    runs.loc[runs["withheld"], ["test_accuracy", "test_loss", "train_loss"]] = np.nan
    return runs


def load_metrics(study):
    """All rows of metrics.csv of the runs of load_runs, with arm and seed; StudyError for a damaged file."""
    tables = [load_table(folder, "metrics.csv").assign(arm=c.arm, seed=c.seed) for c, folder, _ in _tested(study)]
    return pd.concat(tables, ignore_index=True)


def load_logit_stack(study, arm, seeds):
    """Logits float32 (runs, N, classes) of an arm on the test images, in the order of `seeds`, and labels int64 (N,).

    Raises StudyError for a file that is damaged or of another run, and for a primary arm as refuse_incomplete_primary.
    """
    if arm in study.primary_stage.arms:
        refuse_incomplete_primary(study)
    stack, first = [], None
    for seed in seeds:
        folder = run_folder(study.name, arm, seed)
        logits, labels = load_logits(folder)
        first = labels if first is None else first
        accuracy, summary = (logits.argmax(1) == labels).mean(), read_json(folder / "summary.json")
        if not np.array_equal(labels, first) or not np.isclose(accuracy, summary["test_accuracy"]):
            raise StudyError(f"{shown(folder)}: test_logits.npz does not belong to summary.json; move the folder away")
        stack.append(logits)
    return np.stack(stack), first


def _tested(study):
    found = finished_runs(study)
    if not found:
        raise StudyError(f"no run of {study.name!r} is finished yet: ./run_all.sh --study {study.name}")
    return [run for run in found if not run[0].validation_images]


def _origin(folder=None):
    """What a run was made on, from its environment.json; a run that was resumed has a record for each part of it."""
    environment = (folder and read_json(folder / "environment.json")) or {}
    records = [*environment.get("earlier", []), environment]
    changes = [record.get("uncommitted_changes") for record in records]
    made_on = [(r.get("device_name"), r.get("precision"), r.get("packages", {}).get("torch")) for r in records]
    kinds = ["{}, {}, torch {}".format(*each) for each in made_on]
    code = [SAME_CODE.get(told, told) for told in (record.get("training_code") for record in records)]
    origins = dict.fromkeys(f"{kind}, training code {each}" for kind, each in zip(kinds, code, strict=True))
    return {
        "kind": " + ".join(dict.fromkeys(kinds)),
        "origin": " + ".join(origins),
        "uniform": len(origins) == 1 and None not in (*made_on[0], *code),
        "training_code": environment.get("training_code"),
        "commit": environment.get("commit"),
        "uncommitted_changes": True if True in changes else None if None in changes else False,
    }


def primary_seeds(study):
    """Seeds of the primary comparison, in order, as many as planned_pairs."""
    return study.primary_stage.seeds[: study.planned_pairs]


def planned_seeds(study, arm, baseline):
    """Seeds that are planned for both arms, in order."""
    planned = [{c.seed for c in (*study.runs, *study.awaiting) if c.arm == each} for each in (arm, baseline)]
    return sorted(set.intersection(*planned))


def primary_is_complete(study):
    """Whether every run of its stage, with all arms, is finished, or excluded because it diverged."""
    done = {(config.arm, config.seed) for config, _, _ in (*finished_runs(study), *diverged_runs(study))}
    return done >= set(itertools.product(study.primary_stage.arms, primary_seeds(study)))


def refuse_incomplete_primary(study):
    """Raise StudyError unless the primary comparison is complete."""
    if not primary_is_complete(study):
        planned = f"{study.planned_pairs} pairs of the primary comparison are planned"
        remedy = "its difference is not computed before (to end earlier, write the stop into the study file)"
        raise StudyError(f"{planned}, {finished_pairs(study)} finished: {remedy}")


def finished_pairs(study):
    """Number of seeds of the primary comparison for which all arms of its stage are finished."""
    done = {(config.arm, config.seed) for config, _, _ in finished_runs(study)}
    return sum({(arm, seed) for arm in study.primary_stage.arms} <= done for seed in primary_seeds(study))


def plan(study):
    """Planned and finished runs of each stage, tuning first: columns stage, planned, finished.

    A run that stands in several stages counts in each.
    """
    finished = {(config.arm, config.seed) for config, _, _ in finished_runs(study)}
    stages = {"tuning": {(config.arm, config.seed) for config in study.runs if config.validation_images}}
    for stage in study.stages:
        labels = [label(arm, variant) for arm in stage.arms for variant in stage.variants]
        stages[stage.name] = {(each, seed) for each in labels for seed in stage.seeds}
    rows = [(name, len(runs), len(runs & finished)) for name, runs in stages.items() if runs]
    return pd.DataFrame(rows, columns=["stage", "planned", "finished"])


def deviations(study):
    """How the runs differ from the plan, and what they were made on: columns deviation, where, count (of runs), detail.

    For the study `paper` also the date of its preregistration against that of the first primary run.
    """
    runs, everything = load_runs(study), pd.DataFrame([_origin(each[1]) for each in finished_runs(study)])
    short = plan(study).query("finished < planned")
    rows = [("missing runs", row.stage, row.planned - row.finished, f"of {row.planned}") for row in short.itertuples()]
    rows += [("diverged and excluded", f"{c.arm} seed {c.seed}", 1, reason) for c, _, reason in diverged_runs(study)]
    for config, _, summary in finished_runs(study):
        if "diverged" in summary:
            rows.append(("diverged in the tuning", f"{config.arm} seed {config.seed}", 1, summary["diverged"]))
    if stop := study.stop:
        rows.append(("stopped earlier", "primary", None, f"{stop.primary_pairs} pairs, decided {stop.date}"))
    for column, name in (("kind", "machine"), ("training_code", "training code")):
        rows += [(name, value, count, None) for value, count in everything[column].value_counts().items()]
    changes = runs["uncommitted_changes"]
    for name, chosen in (("uncommitted changes", changes.eq(True)), ("unknown commit", runs["commit"].isna())):
        rows += [(name, arm, count, None) for arm, count in runs.loc[chosen, "arm"].value_counts(sort=False).items()]
    if study.name == PREREGISTERED:
        rows += _preregistration(runs[runs["arm"].isin([study.arm, study.baseline])])
    return pd.DataFrame(rows, columns=["deviation", "where", "count", "detail"]).astype({"count": "Int64"})


def _preregistration(primary):
    """Rows of deviations on when the preregistration was committed; primary: the finished runs of both arms."""
    seconds = pd.to_timedelta(primary["train_seconds"], unit="s")
    first = (pd.to_datetime(primary["finished_utc"], utc=True) - seconds).min()
    log = git("log", "--format=%H %cI", "--", PREREGISTRATION)
    if not log or git("rev-parse", "--is-shallow-repository") != "false" or pd.isna(first):
        earlier = (read_json(outputs_folder(PREREGISTERED) / "results.json") or {}).get("deviations", [])
        kept = [tuple(row.values()) for row in earlier if row["deviation"].startswith("prereg")]
        return kept or [("preregistration of unknown date", PREREGISTRATION, None, "no primary run, or no git history")]
    lines = [line.split() for line in log.splitlines()]  # newest first
    commits = pd.to_datetime(pd.Series({commit[:7]: date for commit, date in lines}), utc=True)
    before, after = commits[commits < first], commits[commits >= first]
    chosen = after.index[-1] if before.empty else before.index[0]
    times = f"committed {commits[chosen]:%Y-%m-%d %H:%M} UTC, run started {first:%Y-%m-%d %H:%M} UTC"
    rows = [(f"preregistered {'after' if before.empty else 'before'} the first primary run", chosen, None, times)]
    if len(before) and len(after):
        rows.append(("preregistration changed later", ", ".join(after.index), None, PREREGISTRATION))
    return rows
