"""Arms held against each other: the primary comparison, planned contrasts and trends, and all effects; no torch."""

import itertools

import numpy as np
import pandas as pd

from lib.analyse import statistics
from lib.analyse.results import (
    deviations,
    finished_pairs,
    load_logit_stack,
    plan,
    primary_is_complete,
    primary_seeds,
    refuse_incomplete_primary,
)
from lib.files import StudyError
from lib.study import label

CONTRASTS = (  # of report/preregistration.md: arm, baseline, question
    ("se_resnet18__quarter_width", "static_gate_resnet18__quarter_width", "does looking at the image matter?"),
    ("static_gate_resnet18__quarter_width", "resnet18__quarter_width", "is it easier optimisation?"),
    ("half_scale_resnet18__quarter_width", "resnet18__quarter_width", "is it the start at one half?"),
    ("se_skip_resnet18__quarter_width", "half_scale_skip_resnet18__quarter_width", "is its loss only the halving?"),
)
# stands for the first arm where the tuning found another learning rate for SE than for the plain network
SE_AT_PLAIN_RATE = "se_resnet18__quarter_width_plain_rate"
TRENDS = {  # the planned ones: a slope over x, where each x is a variant; full − quarter width is that from 0 to 1
    "full − quarter width": {1: "", 0: "quarter_width"},
    "slope over log2(epochs)": {x: "quarter_width" + f"_{2**x}_epochs" * (x != 3) for x in (1, 2, 3, 4, 5)},
}
CELL_PAIRS = 5  # finished pairs from which an x counts


def pairs(runs, arm, baseline, seeds=None, outcome="test_accuracy"):
    """An outcome of the seeds that both arms have finished: index seed, columns baseline and arm.

    runs: the table of load_runs; seeds: those that count, by default all. Raises StudyError, naming it, for a pair whose
    two runs come from different kinds of machine, precisions, versions of torch or of the training code.
    """
    known = runs[runs[outcome].notna() & (runs["seed"].isin(runs["seed"] if seeds is None else seeds))]
    of_baseline, of_arm = (known[known["arm"] == each].set_index("seed") for each in (baseline, arm))
    both = of_baseline.index.intersection(of_arm.index).sort_values()
    of_baseline, of_arm = of_baseline.loc[both], of_arm.loc[both]
    for column in ("kind", "training_code"):
        one, other = of_baseline[column], of_arm[column]
        for seed in both[(one != other) | one.str.contains(" + ", regex=False)][:1]:
            found = f"{column.replace('_', ' ')} {one[seed]} and {other[seed]}"
            remedy = "delete the folder of one of them and run it again as the other was"
            raise StudyError(f"{baseline} and {arm} with seed {seed} are a mixed pair, {found}: {remedy}")
    return pd.DataFrame({baseline: of_baseline[outcome], arm: of_arm[outcome]})


def compare_arms(runs, arm, baseline, seeds=None):
    """The comparison arm − baseline over their finished pairs as a dictionary, without p-values, for it is exploratory.

    arm, baseline, width, epochs, n_pairs; accuracy_arm and accuracy_baseline (fractions, means over the pairs);
    difference_pp with its 95 % t interval low_pp, high_pp; log_error_ratio, the mean of log(error of the arm / error of
    the baseline), with _low and _high. None where pairs are missing. Raises as pairs.
    """
    values = pairs(runs, arm, baseline, seeds)
    compared = statistics.paired_comparison(values[arm], values[baseline])
    settings = runs.loc[runs["arm"] == arm, ["width", "epochs"]].head(1).to_dict("records")
    return {
        "arm": arm,
        "baseline": baseline,
        **(settings[0] if settings else {"width": None, "epochs": None}),
        "n_pairs": len(values),
        "accuracy_arm": float(values[arm].mean()) if len(values) else None,
        "accuracy_baseline": float(values[baseline].mean()) if len(values) else None,
        "difference_pp": compared["difference_pp"],
        **_ends("{}_pp", compared["seed_interval_pp"]),
        "log_error_ratio": compared["log_error_ratio"],
        **_ends("log_error_ratio_{}", compared["log_error_ratio_interval"]),
    }


def _ends(name, interval):
    low, high = interval or (None, None)
    return {name.format("low"): low, name.format("high"): high}


def primary(study, runs):
    """The primary comparison as it stands in results.json: over seeds, over seeds and images, Brier score, by kind.

    Raises StudyError until it is complete, and as pairs.
    """
    refuse_incomplete_primary(study, runs)
    accuracy = pairs(runs, study.arm, study.baseline, primary_seeds(study))
    stacks = [load_logit_stack(study, arm, accuracy.index) for arm in (study.arm, study.baseline)]
    arm, baseline = np.array([[statistics.brier(run, labels) for run in logits] for logits, labels in stacks])
    brier = {"arm": arm.mean(), "baseline": baseline.mean(), "difference": (arm - baseline).mean()}
    brier |= {"interval": statistics.mean_interval(arm - baseline), "p_value": statistics.zero_mean_p(arm - baseline)}
    return {
        **_named(study, complete=True),
        **statistics.paired_comparison(accuracy[study.arm], accuracy[study.baseline]),
        "crossed_interval_pp": statistics.crossed_interval(*(logits.argmax(-1) == labels for logits, labels in stacks)),
        "brier": brier,
        "by_kind": by_kind(study, runs, accuracy),
    }


def _named(study, complete):
    names = {"arm": study.arm, "baseline": study.baseline}
    return names | {"planned_pairs": study.planned_pairs, "complete": complete}


def by_kind(study, runs, accuracy):
    """kind, n_pairs, difference_pp and seed_interval_pp for each kind of machine, a list; empty for a single kind.

    accuracy: the primary pairs, as from pairs.
    """
    kinds = runs[runs["arm"] == study.arm].set_index("seed")["kind"].loc[accuracy.index]
    rows = []
    for kind, part in accuracy.groupby(kinds):
        compared = statistics.paired_comparison(part[study.arm], part[study.baseline])
        rows.append(
            {"kind": kind} | {name: compared[name] for name in ("n_pairs", "difference_pp", "seed_interval_pp")}
        )
    return rows if len(rows) > 1 else []


def contrasts(study, runs):
    """The planned contrasts that have pairs: question, the columns of compare_arms, p_value (t test), p_holm.

    Holm's method runs over all that are planned; a missing one counts as p = 1. Raises as pairs.
    """
    rows = []
    for arm, baseline, question in CONTRASTS:
        if study.winners and arm == CONTRASTS[0][0] and study.winners[study.arm] != study.winners[study.baseline]:
            arm = SE_AT_PLAIN_RATE
        values = pairs(runs, arm, baseline)
        p_value = statistics.zero_mean_p(100 * (values[arm] - values[baseline]))
        rows.append({"question": question, **compare_arms(runs, arm, baseline), "p_value": p_value})
    return _adjusted(rows, [row["n_pairs"] > 0 for row in rows])


def _adjusted(rows, present):
    """A table of the planned rows that are present, with Holm's p-values over all that are planned."""
    return pd.DataFrame(rows).assign(p_holm=statistics.holm([row["p_value"] for row in rows]))[present]


def trends(study, runs):
    """The planned trends that have at least two x: full − quarter width, and the slope of the effect over log2(epochs).

    Columns trend, x and n_pairs (lists), estimate_pp, low_pp, high_pp, df, p_value, p_holm, and the same of the log
    ratio of errors: log_error_ratio, _low, _high. In Holm's method a missing trend counts as p = 1. Raises as pairs.
    """
    rows = []
    for trend, variants in TRENDS.items():
        values = {x: pairs(runs, label(study.arm, each), label(study.baseline, each)) for x, each in variants.items()}
        cells = {x: cell.to_numpy().T for x, cell in values.items() if len(cell) >= CELL_PAIRS}
        row = {"trend": trend, "x": list(cells), "n_pairs": [cell.shape[1] for cell in cells.values()], "p_value": None}
        if len(cells) > 1:
            weights = statistics.slope_weights(list(cells))
            points = statistics.contrast_of_cells([100 * (arm - base) for base, arm in cells.values()], weights)
            ratios = [np.log((1 - arm) / (1 - base)) for base, arm in cells.values()]
            ratios = statistics.contrast_of_cells(ratios, weights)
            row |= {"estimate_pp": points["estimate"], **_ends("{}_pp", points["interval"]), "df": points["df"]}
            row |= {"p_value": points["p_value"], "log_error_ratio": ratios["estimate"]}
            row |= _ends("log_error_ratio_{}", ratios["interval"])
        rows.append(row)
    return _adjusted(rows, [len(row["x"]) > 1 for row in rows])


def effects(study, runs):
    """arm − baseline in every stage and variant, for all arms with the baseline's variant; the columns of compare_arms.

    Before them stand stage and variant; without pairs, no row. Raises as pairs.
    """
    rows = []
    for stage in study.stages:
        for variant, arm in itertools.product(stage.variants, stage.arms):
            seeds = primary_seeds(study) if (arm, variant) == (study.arm, "") else stage.seeds
            if arm != study.baseline:
                row = compare_arms(runs, label(arm, variant), label(study.baseline, variant), seeds)
                rows.append({"stage": stage.name, "variant": variant, **row})
    return pd.DataFrame(rows)[[row["n_pairs"] > 0 for row in rows]]


def arm_table(study, runs):
    """Each arm with finished runs: numbers of runs, mean and SD of test accuracy (fractions), size and seconds of training.

    withheld: the accuracies are empty, until the primary comparison is complete.
    """
    planned = pd.Series([config.arm for config in (*study.runs, *study.awaiting)]).value_counts()
    columns = {"n_runs": ("seed", "size"), "n_planned": ("arm", lambda arms: planned[arms.iloc[0]])}
    columns |= {f"test_accuracy_{name[:4]}": ("test_accuracy", name) for name in ("mean", "std")}
    columns |= {name: (name, "first") for name in ("parameters", "multiply_adds", "withheld")}
    table = runs.groupby("arm", sort=False).agg(**columns, train_seconds_mean=("train_seconds", "mean"))
    return table.rename(columns={"test_accuracy_std": "test_accuracy_sd"})


def results(study, runs):
    """The content of results.json: plain values, None for what is missing or withheld. Raises as pairs."""
    if primary_is_complete(study, runs):
        first = primary(study, runs)
    else:
        first = _named(study, complete=False) | statistics.paired_comparison([], [])
        first |= {"n_pairs": finished_pairs(study, runs), "crossed_interval_pp": None, "brier": None, "by_kind": []}
    tables = {"contrasts": contrasts(study, runs), "trends": trends(study, runs), "effects": effects(study, runs)}
    return {
        "study": study.name,
        "title": study.title,
        "data_source": runs["data_source"].iloc[0],
        "data_fingerprint": runs["data_fingerprint"].iloc[0],
        "stages": _rows(plan(study)),
        "primary": first,
        "arms": {row.pop("arm"): row for row in _rows(arm_table(study, runs).reset_index())},
        **{name: _rows(table) for name, table in tables.items()},
        "deviations": _rows(deviations(study)),
    }


def _rows(table):
    """The rows of a table as dictionaries of plain values, None for missing ones."""
    return [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]
