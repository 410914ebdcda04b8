"""Arms held against each other: the primary comparison, planned contrasts and trends, and all effects; no torch."""

import itertools

import numpy as np
import pandas as pd

from lib.analyse import results, statistics
from lib.analyse.gates import gate_table, lesion_table
from lib.files import StudyError
from lib.runs import finished_runs
from lib.study import SEPARATOR, label

CONTRASTS = (  # of report/preregistration.md: arm, baseline, question
    ("se_resnet18__quarter_width", "static_gate_resnet18__quarter_width", "does looking at the image matter?"),
    ("static_gate_resnet18__quarter_width", "resnet18__quarter_width", "is it easier optimisation?"),
    ("half_scale_resnet18__quarter_width", "resnet18__quarter_width", "is it the start at one half?"),
    ("se_skip_resnet18__quarter_width", "half_scale_skip_resnet18__quarter_width", "is its loss only the halving?"),
)
SE_AT_PLAIN_RATE = "se_resnet18__quarter_width_plain_rate"  # stands for the first arm where the tuning's winners differ
TRENDS = {  # the planned ones: slope of the effect over x, each x a variant; from 0 to 1 it is a difference
    "full − quarter width": {1: "", 0: "quarter_width"},
    "slope over log2(epochs)": {x: "quarter_width" + f"_{2**x}_epochs" * (x != 3) for x in (1, 2, 3, 4, 5)},
}
CELL_PAIRS = 5  # finished pairs from which an x counts


def pairs(runs, arm, baseline, seeds=None, column="test_accuracy"):
    """A column of load_runs for the seeds that both arms have finished: index seed, columns baseline and arm.

    runs: the table of load_runs; seeds: those that count, by default all. A mixed pair, whose runs differ in kind of
    machine, precision, version of torch or of the training code, is left out.
    """
    found = _finished_pairs(runs, arm, baseline, seeds, column)
    return found.loc[~found["mixed"], [baseline, arm]]


def mixed_pairs(runs, arm, baseline, seeds=None):
    """{seed: what the two runs of a mixed pair were made on}, {} where there is none."""
    found = _finished_pairs(runs, arm, baseline, seeds)
    return found.loc[found["mixed"], "made_on"].to_dict()


def _finished_pairs(runs, arm, baseline, seeds, column="test_accuracy"):
    known = runs[runs["test_accuracy"].notna() & runs["seed"].isin(runs["seed"] if seeds is None else seeds)]
    of_baseline, of_arm = (known[known["arm"] == each].set_index("seed") for each in (baseline, arm))
    both = of_baseline.index.intersection(of_arm.index).sort_values()
    of_baseline, of_arm = of_baseline.loc[both], of_arm.loc[both]
    alike = ((of_baseline["origin"] == of_arm["origin"]) & of_arm["uniform"]).astype(bool)
    values = {baseline: of_baseline[column], arm: of_arm[column], "mixed": ~alike}
    return pd.DataFrame(values | {"made_on": of_baseline["origin"] + "; " + of_arm["origin"]})


def compare_arms(runs, arm, baseline, seeds=None):
    """The comparison arm − baseline over finished pairs, a dictionary; without p-values, since most are exploratory.

    arm, baseline, width, epochs, n_pairs; accuracy_arm, accuracy_baseline, and sd_arm, sd_baseline (fractions, of these
    pairs); difference_pp with its 95 % t interval low_pp, high_pp; log_error_ratio, mean of log(error of arm / of
    baseline), and train_loss_difference (last epoch, nats), with _low and _high. NaN or None where pairs are missing.
    """
    values, of_arm = pairs(runs, arm, baseline, seeds), runs[runs["arm"] == arm]
    both = statistics.paired_comparison(values[arm], values[baseline])
    row = {"arm": arm, "baseline": baseline, "width": of_arm["width"].max(), "epochs": of_arm["epochs"].max()}
    row |= {"n_pairs": len(values), "accuracy_arm": values[arm].mean(), "accuracy_baseline": values[baseline].mean()}
    row |= {"sd_arm": values[arm].std(), "sd_baseline": values[baseline].std()}
    row |= {"difference_pp": both["difference_pp"], **_ends("{}_pp", both["seed_interval_pp"])}
    row |= {"log_error_ratio": both["log_error_ratio"], **_ends("log_error_ratio_{}", both["log_error_ratio_interval"])}
    losses = pairs(runs, arm, baseline, seeds, "train_loss").diff(axis=1)[arm]
    return row | {"train_loss_difference": losses.mean(), **_ends("train_loss_{}", statistics.mean_interval(losses))}


def _ends(name, interval):
    return dict(zip((name.format("low"), name.format("high")), interval or (None, None), strict=True))


def primary(study, runs):
    """The primary comparison, a dictionary: all of paired_comparison, crossed_interval_pp, brier, by_kind.

    by_kind: n_pairs, difference_pp, seed_interval_pp for each kind of machine, where there are several. Raises
    StudyError until all planned pairs are finished, and for a mixed pair, which it names.
    """
    results.refuse_incomplete_primary(study)
    for seed, origins in mixed_pairs(runs, study.arm, study.baseline, results.primary_seeds(study)).items():
        remedy = "delete the folder of one of them and run it again as the other was run"
        raise StudyError(f"{study.baseline} and {study.arm} with seed {seed} are a mixed pair ({origins}): {remedy}")
    values = pairs(runs, study.arm, study.baseline, results.primary_seeds(study))
    stacks = [results.load_logit_stack(study, arm, values.index) for arm in (study.arm, study.baseline)]
    arm, baseline = np.array([[statistics.brier(run, labels) for run in logits] for logits, labels in stacks])
    brier = {"arm": arm.mean(), "baseline": baseline.mean(), "difference": (arm - baseline).mean()}
    brier |= {"interval": statistics.mean_interval(arm - baseline), "p_value": statistics.zero_mean_p(arm - baseline)}
    by_kind, kept = [], ("n_pairs", "difference_pp", "seed_interval_pp")
    for kind, part in values.groupby(runs[runs["arm"] == study.arm].set_index("seed")["kind"]):
        compared = statistics.paired_comparison(part[study.arm], part[study.baseline])
        by_kind.append({"kind": kind} | {name: compared[name] for name in kept})
    return {
        **statistics.paired_comparison(values[study.arm], values[study.baseline]),
        "crossed_interval_pp": statistics.crossed_interval(*(logits.argmax(-1) == labels for logits, labels in stacks)),
        "brier": brier,
        "by_kind": by_kind if len(by_kind) > 1 else [],
    }


def contrasts(study, runs):
    """The planned contrasts that have pairs: question, the columns of compare_arms, p_value (t test), p_holm.

    A p-value is given once all planned pairs are finished. Holm's method runs over all contrasts; one that has no
    p-value counts as p = 1.
    """
    rows = []
    for arm, baseline, question in _planned_contrasts(study):
        values = pairs(runs, arm, baseline)
        seeds = results.planned_seeds(study, arm, baseline)
        p_value = statistics.zero_mean_p(values[arm] - values[baseline]) if len(values) == len(seeds) else None
        rows.append({"question": question, **compare_arms(runs, arm, baseline), "p_value": p_value})
    return _adjusted(rows, [row["n_pairs"] > 0 for row in rows])


def _planned_contrasts(study):
    differ = study.winners and study.winners[study.arm] != study.winners[study.baseline]
    (arm, baseline, question), *others = CONTRASTS
    return [(SE_AT_PLAIN_RATE if differ else arm, baseline, question), *others]


def _adjusted(rows, present):
    """A table of the planned rows that are present, with Holm's p-values over all that are planned."""
    return pd.DataFrame(rows).assign(p_holm=statistics.holm([row["p_value"] for row in rows]))[present]


def trends(study, runs):
    """The planned trends that have at least two x: full − quarter width, and the slope of the effect over log2(epochs).

    Columns trend, x and n_pairs (lists), estimate_pp, low_pp, high_pp, df, p_value, p_holm, and the same of the log
    ratio of errors: log_error_ratio, _low, _high. A p-value is given once every x counts; in Holm's method a trend that
    has none counts as p = 1.
    """
    rows = []
    for trend, variants in TRENDS.items():
        cells = {}
        for x, variant in variants.items():
            arms = [label(name, variant) for name in (study.arm, study.baseline)]
            values = pairs(runs, *arms, None if variant else results.primary_seeds(study))
            if len(values) >= CELL_PAIRS:
                cells[x] = statistics.changes(*(values[name] for name in arms))
        row = {"trend": trend, "x": list(cells), "n_pairs": [len(cell[0]) for cell in cells.values()], "p_value": None}
        if len(cells) > 1:
            weights = statistics.slope_weights(row["x"])
            points, ratios = (statistics.contrast_of_cells(each, weights) for each in zip(*cells.values(), strict=True))
            row |= {"estimate_pp": points.pop("estimate"), **_ends("{}_pp", points.pop("interval")), **points}
            row |= {"log_error_ratio": ratios["estimate"], **_ends("log_error_ratio_{}", ratios["interval"])}
        rows.append(row if len(cells) == len(variants) else row | {"p_value": None})
    return _adjusted(rows, [len(row["x"]) > 1 for row in rows])


def effects(study, runs):
    """Every arm − the baseline of its variant, in every stage with pairs: stage, variant, columns of compare_arms."""
    rows = []
    for stage, variant, arm, baseline in _compared(study):
        row = compare_arms(runs, arm, baseline, results.primary_seeds(study) if arm == study.arm else stage.seeds)
        rows.append({"stage": stage.name, "variant": variant, **row})
    return pd.DataFrame(rows)[[row["n_pairs"] > 0 for row in rows]]


def _compared(study):
    """(stage, variant, arm, baseline), with the labels of both, for each arm but the baseline in every stage."""
    for stage in study.stages:
        for variant, arm in itertools.product(stage.variants, stage.arms):
            if arm != study.baseline:
                yield stage, variant, label(arm, variant), _baseline(study, arm, variant)


def _baseline(study, arm, variant):
    """The baseline in the same variant; where none is planned, the first one with equal width and epochs."""
    planned = {config.arm: config for config in (*study.runs, *study.awaiting)}
    one, same = planned[label(arm, variant)], label(study.baseline, variant)
    names = [same] if same in planned else [name for name in planned if name.split(SEPARATOR)[0] == study.baseline]
    alike = [n for n in names if (planned[n].width, planned[n].epochs) == (one.width, one.epochs)]
    return alike[0] if alike else same


def mixed_table(study, runs):
    """Every mixed pair of the effects and of the planned contrasts, by name, with the columns of deviations."""
    compared = [(arm, baseline) for arm, baseline, _ in _planned_contrasts(study)]
    compared += [(arm, baseline) for _, _, arm, baseline in _compared(study)]
    rows = []
    for arm, baseline in dict.fromkeys(compared):
        for seed, origins in mixed_pairs(runs, arm, baseline).items():
            rows.append(("mixed pair left out", f"{arm} − {baseline}, seed {seed}", 1, origins))
    return pd.DataFrame(rows, columns=["deviation", "where", "count", "detail"])


def arm_table(study, runs):
    """Index arm: n_runs, test accuracy (fraction, NaN while withheld; mean, SD), size, mean training loss, seconds."""
    primary = runs["arm"].isin([study.arm, study.baseline])
    arms = runs[~primary | runs["seed"].isin(results.primary_seeds(study))].groupby("arm", sort=False)
    accuracy = arms["test_accuracy"].agg(["mean", "std"]).set_axis(["test_accuracy_mean", "test_accuracy_sd"], axis=1)
    table = accuracy.join(arms[["parameters", "multiply_adds", "withheld"]].first()).assign(n_runs=arms.size())
    return table.join(arms[["train_loss", "train_seconds"]].mean().add_suffix("_mean"))


def summary(study, runs):
    """The content of results.json: plain values, None for what is missing or withheld. Raises as primary."""
    complete = results.primary_is_complete(study) and not runs["withheld"].any()  # or one has finished just now
    (_, _, first_run), n_pairs = finished_runs(study)[0], results.finished_pairs(study)
    nothing = {"n_pairs": n_pairs, "crossed_interval_pp": None, "brier": None, "by_kind": []}
    first = primary(study, runs) if complete and n_pairs else statistics.paired_comparison([], []) | nothing
    names = {"arm": study.arm, "baseline": study.baseline, "planned_pairs": study.planned_pairs, "complete": complete}
    return {
        "study": study.name,
        "title": study.title,
        **{name: first_run[name] for name in ("data_source", "data_fingerprint")},
        "stages": _plain(results.plan(study)),
        "winners": study.winners,
        "primary": names | first,
        "arms": _plain(arm_table(study, runs), "index"),
        **{table.__name__: _plain(table(study, runs)) for table in (contrasts, trends, effects)},
        **{table.__name__: _plain(table(study, runs)) for table in (gate_table, lesion_table)},
        "deviations": [*_plain(results.deviations(study)), *_plain(mixed_table(study, runs))],
    }


def _plain(table, orient="records"):
    return table.astype(object).where(table.notna(), None).to_dict(orient)
