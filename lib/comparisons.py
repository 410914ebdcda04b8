"""Comparisons of arms over paired seeds: primary, controls, tuning and curves, as tables, without torch."""

import numpy as np
import pandas as pd

from lib.statistics import benjamini_hochberg, holm, paired_comparison
from lib.study import stage_label

CONTROLS = "controls"  # the stage whose arms are held against both primary arms
PLACEMENT = "placement"  # the stage whose arms take the effect of the gate on the skip path apart
LITERAL = "se_skip_resnet18"  # the gate on the skip path


def paired_values(runs, arm, baseline, outcome="test_accuracy"):
    """An outcome of the seeds that both arms have finished: index seed, columns baseline and arm."""
    table = runs.pivot(index="seed", columns="arm", values=outcome).reindex(columns=[baseline, arm])
    return table.dropna()


def compare(runs, arm, reference):
    """One row: the paired comparison arm − reference in test accuracy, with its interval as low_pp and high_pp."""
    pairs = paired_values(runs, arm, reference)
    compared = paired_comparison(pairs[arm], pairs[reference])
    low, high = compared["seed_interval_pp"] or (np.nan, np.nan)
    kept = ("n_pairs", "difference_pp", "sd_difference_pp", "p_value")
    return {
        "comparison": f"{arm} − {reference}",
        "arm": arm,
        "reference": reference,
        **{name: compared[name] for name in kept},
        "low_pp": low,
        "high_pp": high,
    }


def comparison_table(runs, pairs, adjust=benjamini_hochberg):
    """One row for each (arm, reference) of `pairs` with a finished pair of seeds; `p_adjusted` by the method given.

    The family is `pairs`: a comparison that is not finished counts as p = 1. Intervals are not adjusted.
    """
    rows = [compare(runs, arm, reference) for arm, reference in pairs]
    adjusted = adjust([1.0 if row["p_value"] is None else row["p_value"] for row in rows])
    finished = [row | {"p_adjusted": p} for row, p in zip(rows, adjusted, strict=True) if row["n_pairs"]]
    return pd.DataFrame(finished)


def control_table(study, runs):
    """The confirmatory family of the preregistration: each control − baseline, and arm − each control; Holm.

    Controls are trained with the baseline's settings; where the arm's own winner of the tuning differs from these, the
    arm at the baseline's winner is held against them, so that nothing but the network differs.
    """
    controls = [arm for stage in study.stages if stage.name == CONTROLS for arm in stage.arms]
    arm = study.arm
    if winners_differ(study):
        arm = next((stage_label(stage, arm) for stage in study.stages if stage.winner == "other"), arm)
    pairs = [(control, study.baseline) for control in controls] + [(arm, control) for control in controls]
    return comparison_table(runs, pairs, holm)


def placement_table(study, runs):
    """What a gate on the skip path owes to what: each arm of the stage − baseline, LITERAL − each; exploratory."""
    arms = [arm for stage in study.stages if stage.name == PLACEMENT for arm in stage.arms]
    pairs = [(arm, study.baseline) for arm in arms] + [(LITERAL, arm) for arm in arms]
    return comparison_table(runs, pairs)


def winners_differ(study):
    """Whether the tuning has found other settings for the primary arm than for the baseline."""
    return bool(study.winners) and study.winners[study.arm] != study.winners[study.baseline]


def sensitivity_table(study, runs):
    """Other settings of the same question: each other's winner of the tuning, and other reductions r; exploratory."""
    pairs = []
    for stage in study.stages:
        if stage.winner == "other" and winners_differ(study):
            crossed = {arm: stage_label(stage, arm) for arm in (study.arm, study.baseline)}
            pairs += [(crossed[study.arm], study.baseline), (study.arm, crossed[study.baseline])]
        elif stage.name == "reduction":
            pairs += [(arm, reference) for arm in stage.arms for reference in (study.baseline, study.arm)]
    return comparison_table(runs, pairs)


def curve_table(study, runs, stage_name, setting):
    """The primary comparison along the variants of one stage and at the study's own point, in order of `setting`.

    setting: `epochs` or `train_fraction`, the column x. Accuracies in percent, means over the paired seeds; the seeds
    of the own point are those of the stage, so that all points rest on the same ones.
    """
    stage = next((stage for stage in study.stages if stage.name == stage_name), None)
    rows = []
    for variant in ("", *stage.variants) if stage else ():
        arm, baseline = (stage_label(stage, name, variant) for name in (study.arm, study.baseline))
        part = runs[runs["arm"].isin([arm, baseline]) & runs["seed"].isin(stage.seeds)]
        pairs = paired_values(part, arm, baseline)
        if len(pairs):
            means = {"accuracy_arm": 100 * pairs[arm].mean(), "accuracy_baseline": 100 * pairs[baseline].mean()}
            rows.append(
                {
                    "stage": stage_name,
                    "x": float(part[setting].iloc[0]),
                    "variant": variant,
                    **compare(part, arm, baseline),
                    **means,
                }
            )
    for row, adjusted in zip(rows, benjamini_hochberg([row["p_value"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
    return pd.DataFrame(rows).sort_values("x", ignore_index=True) if rows else pd.DataFrame(rows)


def tuning_table(study):
    """Mean validation accuracy (percent) of each cell of the grid, tuned arms as columns; None without tuning runs."""
    if study.tuning_scores is None or study.tuning_scores.empty:
        return None
    scores = study.tuning_scores.assign(val_accuracy=100 * study.tuning_scores["val_accuracy"])
    return scores.pivot_table(index=list(study.tuning.grid), columns="tuned", values="val_accuracy", sort=False)
