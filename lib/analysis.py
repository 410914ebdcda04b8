"""From the finished runs of a study to its numbers: the tables and results.json, without torch."""

import numpy as np
import pandas as pd

from lib.runs import load_predictions
from lib.statistics import mean_interval, paired_comparison, recall_percent


def paired_accuracies(runs, arm, baseline):
    """Test accuracies (fractions) of the seeds that both arms have finished: index seed, columns baseline and arm."""
    table = runs.pivot(index="seed", columns="arm", values="test_accuracy").reindex(columns=[baseline, arm])
    return table.dropna()


def summarise_arms(runs):
    """One row for each arm: number of runs, accuracy (fraction), loss (nats), size and training time (seconds)."""
    return runs.groupby("arm", sort=False).agg(
        n_runs=("seed", "size"),
        test_accuracy_mean=("test_accuracy", "mean"),
        test_accuracy_sd=("test_accuracy", "std"),
        test_loss_mean=("test_loss", "mean"),
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
    return table.T


def build_results(study, runs):
    """The content of results.json: plain values, None where there are too few runs to say anything.

    Accuracies are fractions, differences percentage points.
    """
    pairs = paired_accuracies(runs, study.arm, study.baseline)
    columns = ["n_runs", "test_accuracy_mean", "test_accuracy_sd", "parameters"]
    arms = summarise_arms(runs)[columns].astype(object)
    return {
        "study": study.name,
        "data_source": runs["data_source"].iloc[0],
        "data_fingerprint": runs["data_fingerprint"].iloc[0],
        "primary": {
            "arm": study.arm,
            "baseline": study.baseline,
            **paired_comparison(pairs[study.arm], pairs[study.baseline]),
        },
        "arms": arms.where(arms.notna(), None).to_dict(orient="index"),
    }


def conclusion(results):
    """What the primary comparison says, in one sentence that claims no more than the runs support."""
    primary = results["primary"]
    n, arm, baseline = primary["n_pairs"], primary["arm"], primary["baseline"]
    if not n:
        return f"No seed has finished both {arm} and {baseline} yet, so there is nothing to compare."
    said = (
        f"{arm} − {baseline}: {_signed(primary['difference_pp'])} percentage points over {n} paired seed{'s'[: n > 1]}"
    )
    if primary["seed_interval_pp"] is None:
        return f"{said}; one pair supports no interval."
    low, high = primary["seed_interval_pp"]
    reading = "excludes" if low > 0 or high < 0 else "includes"
    return (
        f"{said}, 95 % interval over seeds {_signed(low)} to {_signed(high)}, which {reading} zero "
        f"(p = {primary['p_value']:.3f} from flipped signs)."
    )


def _signed(points):
    return f"{points:+.2f}".replace("-", "−")


def recall_differences(study, runs, classes):
    """Recall of each class: both arms' means and their paired difference with its interval, in percentage points.

    Over the seeds that both arms have finished; one row for each class.
    """
    seeds = paired_accuracies(runs, study.arm, study.baseline).index
    recalls = {}
    for arm in (study.baseline, study.arm):
        predictions, labels = load_predictions(study, arm, seeds)
        recalls[arm] = recall_percent(predictions, labels, len(classes))
    differences = recalls[study.arm] - recalls[study.baseline]
    low, high = np.transpose([mean_interval(column) or (np.nan, np.nan) for column in differences.T])
    return pd.DataFrame(
        {
            **{arm: recall.mean(0) for arm, recall in recalls.items()},
            "difference_pp": differences.mean(0),
            "low_pp": low,
            "high_pp": high,
        },
        index=pd.Index(classes, name="class"),
    )
