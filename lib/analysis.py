"""From the finished runs of a study to its answer: what goes into results.json and is said in a sentence; no torch."""

import numpy as np
import pandas as pd

from lib.comparisons import paired_values
from lib.config import SEPARATOR
from lib.imagestatistics import crossed_interval, image_comparison
from lib.statistics import (
    detectable_difference,
    equivalence_power,
    mean_interval,
    paired_comparison,
    sign_flip_p,
)

READINGS = {  # of a decision, in words
    "superior": "an improvement, estimated to be large enough to matter",
    "inferior": "a loss, estimated to be large enough to matter",
    "different but negligible": "a difference too small to matter",
    "equivalent": "no difference that would matter",
    "different, size unclear": "a difference that may or may not be large enough to matter",
    "inconclusive": "neither a difference nor its absence is shown",
    None: "too few seeds to decide",
}


def base_arms(runs):
    """The runs of the study file's arms as they are: without the variants of stages."""
    return runs[~runs["arm"].str.contains(SEPARATOR)]


def summarise_arms(runs):
    """One row for each arm: number of runs, scores (accuracies as fractions, loss in nats), size, seconds of training.

    corruption_accuracy_mean is over all corruptions and severities, test_ece_mean over 15 bins.
    """
    return runs.groupby("arm", sort=False).agg(
        n_runs=("seed", "size"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_sd=("test_accuracy", "std"),
        test_loss_mean=("test_loss", "mean"),
        test_ece_mean=("test_ece", "mean"),
        corruption_accuracy_mean=("corruption_accuracy", "mean"),
        parameters=("parameters", "first"),
        multiply_adds=("multiply_adds", "first"),
        train_seconds_median=("train_seconds", "median"),
    )


def cost_table(runs, baseline):
    """Size, multiply-adds and training time of each arm, and how many times the baseline's they are, as text."""
    arms = summarise_arms(runs)
    costs = {"parameters": "{:,.0f}", "multiply_adds": "{:,.0f}", "train_seconds_median": "{:,.1f}"}
    table = pd.DataFrame({name: arms[name].map(style.format) for name, style in costs.items()})
    if baseline in arms.index:
        for name in costs:
            table[f"{name} / {baseline}"] = (arms[name] / arms.loc[baseline, name]).map("{:.4f}".format)
    return table


def primary_results(study, runs, correct):
    """The primary comparison: over seeds, over images, over both, its decisions, and the power that the runs had.

    correct: {arm: bool (n, N)} of the paired seeds of both arms, in the same order. Differences in percentage points.
    """
    pairs = paired_values(runs, study.arm, study.baseline)
    primary = {
        "arm": study.arm,
        "baseline": study.baseline,
        "seeds": pairs.index.to_list(),
        "differences_pp": (100 * (pairs[study.arm] - pairs[study.baseline])).to_list(),
        **paired_comparison(pairs[study.arm], pairs[study.baseline]),
        "image_interval_pp": None,
        "image_p_value": None,
        "image_tost_p": None,
        "image_decision": None,
        "crossed_interval_pp": None,
    }
    spread = primary["sd_difference_pp"]
    primary["detectable_difference_pp"] = detectable_difference(spread, len(pairs))
    primary["equivalence_power"] = equivalence_power(spread, len(pairs))
    if len(pairs):
        primary |= image_comparison(correct[study.arm], correct[study.baseline])
        primary["crossed_interval_pp"] = crossed_interval(correct[study.arm], correct[study.baseline])
    return primary


def secondary_results(study, runs):
    """The secondary endpoint: paired difference of the mean negative log-likelihood (nats) on the test images."""
    pairs = paired_values(runs, study.arm, study.baseline, "test_loss")
    differences = pairs[study.arm] - pairs[study.baseline]
    return {
        "endpoint": "test_loss",
        "n_pairs": len(pairs),
        "difference_nats": float(differences.mean()) if len(pairs) else None,
        "seed_interval_nats": mean_interval(differences),
        "p_value": sign_flip_p(differences.to_numpy()),
    }


def build_results(study, runs, primary, **parts):
    """The content of results.json: plain values, None where there are too few runs to say anything.

    Accuracies are fractions in `arms` and percent in tables, differences percentage points. parts: more tables
    (DataFrames, kept as lists of rows) and mappings.
    """
    columns = ["n_runs", "test_accuracy_mean", "test_accuracy_sd", "parameters"]
    arms = summarise_arms(runs)[columns].astype(object)
    return {
        "study": study.name,
        "data_source": runs["data_source"].iloc[0],
        "data_fingerprint": runs["data_fingerprint"].iloc[0],
        "n_runs": len(runs),
        "primary": primary,
        "arms": arms.where(arms.notna(), None).to_dict(orient="index"),
        **{name: rows(part) if isinstance(part, pd.DataFrame) else part for name, part in parts.items()},
    }


def flat(table):
    """The table with its index, where that has a name, as columns."""
    return table if table.index.names == [None] else table.reset_index()


def rows(table):
    """A table as a list of plain {column: value}, its named index included, None for missing values."""
    return [{name: _plain(value) for name, value in row.items()} for row in flat(table).to_dict(orient="records")]


def _plain(value):
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def conclusion(primary):
    """What the primary comparison says, in sentences that claim no more than the runs support."""
    n, arm, baseline = primary["n_pairs"], primary["arm"], primary["baseline"]
    if not n:
        return f"No seed has finished both {arm} and {baseline} yet, so there is nothing to compare."
    said = (
        f"{arm} − {baseline}: {signed(primary['difference_pp'])} percentage points over {n} paired seed{'s'[: n > 1]}"
    )
    if primary["seed_interval_pp"] is None:
        return f"{said}; one pair supports no interval."
    said += f", 95 % interval {_span(primary['seed_interval_pp'])} over seeds"
    if primary["image_interval_pp"]:
        said += f" and {_span(primary['image_interval_pp'])} over images"
    said += f" ({_p(primary['p_value'])} from flipped signs): {_reading(primary['decision'])} on these test images"
    if primary["image_decision"] is None:
        return f"{said}."
    if primary["image_decision"] == primary["decision"]:
        return f"{said}, and the same on new images like them."
    return f"{said}; no claim is made about new images, since the interval over images leads to another reading."


def _p(value):
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _reading(decision):
    return f"{decision or 'undecided'} ({READINGS[decision]})"


def _span(interval):
    return f"{signed(interval[0])} to {signed(interval[1])}"


def signed(points):
    """A difference with its sign and two decimals, as people write it."""
    return f"{points:+.2f}".replace("-", "−")
