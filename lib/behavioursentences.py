"""Sentences of the paper on behaviour: disagreement, classes, images, calibration, corruptions, gates; exploratory."""

import numpy as np
import pandas as pd

from lib.paths import outputs_folder
from lib.statistics import ALPHA
from lib.studyfacts import COPY, table_row, table_rows
from lib.wording import effect, excludes_zero, first_names, p_value, signed, span

NEAR_HALF = 0.05  # gates that have moved less than this from where they start have hardly moved
NEAR_ONE = 1.1  # ratio of two spreads below which one is hardly the larger


def disagreement(study, results):
    """Churn between arms against churn between seeds, and the spread of the difference over images."""
    churn, excess = results.get("churn") or {}, results.get("disagreement") or {}
    if churn.get("between_baselines") is None:
        return "With one pair, disagreement between arms cannot be told from that between seeds."
    said = (
        rf"Two baselines disagree on {churn['between_baselines']:.1f}\,\% of the images, SE and a baseline of another "
        rf"seed on {churn['between_arms_other_seed']:.1f}\,\%"
    )
    if excess.get("ratio") is None:
        return f"{said}."
    reading = "no sign that SE gets other images right"
    if excess["p_value"] < ALPHA and excess["ratio"] > 1:
        reading = "a slight sign" if excess["ratio"] < NEAR_ONE else "a sign"
        reading += " that SE gets partly other images right"
    times = f"{excess['ratio']:.2f} times what seeds explain ({p_value(excess['p_value'])})"
    return f"{said}; the mean difference varies over images {times}, {reading}."


def classes(study, results):
    """Which classes differ."""
    rows = [row for row in table_rows(results, "recall_by_class") if row["p_fdr"] is not None]
    if not rows:
        return "Classes have not been compared."
    clear = [row for row in rows if row["p_fdr"] < ALPHA]
    if not clear:
        return "Adjusted for ten classes (Benjamini--Hochberg), recall differs in none, with little power for any."
    named = "; ".join(first_names([f"{row['class']}, {effect(row)}, {p_value(row['p_fdr'])}" for row in clear]))
    return f"Adjusted for ten classes (Benjamini--Hochberg), recall differs for {named}, foreseen by nobody."


def confusions(study, results):
    """The most frequent confusion of either arm, from the tables of the analysis."""
    tables = [_confusion(study, arm) for arm in (study.baseline, study.arm)]
    if any(table is None for table in tables):
        return ""
    base, gated = (table.where(~np.eye(len(table), dtype=bool)).stack() for table in tables)
    theirs, ours = (" as ".join(each.idxmax()) for each in (base, gated))
    said = (
        f"Both arms err most often on {theirs}"
        if theirs == ours
        else f"The baseline errs most on {theirs}, SE on {ours}"
    )
    return rf"{said} ({base.max():.1f} and {gated.max():.1f}\,\% of the class)."


def _confusion(study, arm):
    path = outputs_folder(study.name) / "tables" / f"confusion_{arm}.csv"
    return pd.read_csv(path, index_col="true") if path.exists() else None


def subsets(study, results):
    """The primary comparison without doubtful images, and on those that people find hard."""
    rows = {row["subset"]: row for row in table_rows(results, "subsets")}
    wanted = {
        "without duplicates and label errors": r"without near-duplicates of training images \citep{barz2020} and "
        r"likely label errors \citep{northcutt2021}",
        "high human entropy": r"where people disagree most \citep{peterson2019}",
    }
    parts = [f"{effect(rows[name])} {words}" for name, words in wanted.items() if name in rows]
    return f"The primary difference is {', and '.join(parts)}." if parts else ""


def calibration(study, results):
    """Expected calibration error of both arms."""
    row = table_row(results, "calibration", metric="ece")
    if row is None:
        return "Calibration has not been compared."
    low, high = (None if row[end] is None else 100 * row[end] for end in ("low", "high"))
    points = {"difference_pp": 100 * row["difference"], "low_pp": low, "high_pp": high}
    better = "better" if row["difference"] < 0 else "worse"
    reading = f"SE is {better} calibrated" if excludes_zero(points) else "no difference is resolved"
    return f"The calibration error (Table~\\ref{{tab:arms}}) differs by {effect(points)}: {reading}."


def corruption(study, results):
    """Accuracy on corrupted images, and which corruptions stand out."""
    rows = {row["corruption"]: row for row in table_rows(results, "corruptions") if row["severity"] == 0}
    if "mean" not in rows:
        return "Corrupted images have not been compared."
    said = rf"Over all corruptions \citep{{hendrycks2019}} accuracy differs by {effect(rows.pop('mean'))}"
    clear = [row for row in rows.values() if excludes_zero(row)]
    if not clear:
        return f"{said}, and clearly under none of the {len(rows)}."
    named = ", ".join(
        first_names([f"{row['corruption'].replace('_', ' ')} ({signed(row['difference_pp'])})" for row in clear])
    )
    return f"{said}, and clearly under {named}."


def lossless(study, results):
    """What the JPEG copy costs."""
    if results["data_source"] != COPY:
        return ""
    row = table_row(results, "lossless", arm=study.baseline)
    difference = results.get("lossless_difference") or {}
    if row is None or difference.get("interval_pp") is None:
        return "What the copy costs has not been measured."
    low, high = difference["interval_pp"]
    arms = effect({"difference_pp": difference["difference_pp"], "low_pp": low, "high_pp": high})
    gap = effect({"difference_pp": row["gap_pp"], "low_pp": row["low_pp"], "high_pp": row["high_pp"]})
    return f"On 1,017 originals instead of copies the baseline changes by {gap}, and SE $-$ baseline is {arms}."


def gates(study, results):
    """How the gates of SE vary by depth."""
    rows = gate_rows(study, results)
    if not rows:
        return "Gates have not been recorded."
    means, spread = [row["mean"] for row in rows], max(row["sd_images"] for row in rows)
    said = f"Mean gates by block lie between {min(means):.2f} and {max(means):.2f}, their SD over images is at most "
    said += f"{spread:.2f}"
    first, last = rows[0]["eta_squared"], rows[-1]["eta_squared"]
    if first is None or last is None:
        return f"{said}."
    trend = "rises" if last - first > NEAR_HALF else "falls" if first - last > NEAR_HALF else "changes little,"
    return (
        f"{said}. The share $\\eta^2$ of this variance that lies between classes {trend} from {first:.2f} in the first "
        f"block to {last:.2f} in the last."
    )


def gate_rows(study, results):
    """The rows of the table of gates that are about the primary arm, in order of depth."""
    return [row for row in table_rows(results, "gates") if row["arm"] == study.arm]


def hardly_opened(study, results):
    """Whether the gates of SE have hardly left the half where they start."""
    rows = gate_rows(study, results)
    return bool(rows) and all(abs(row["mean"] - 0.5) < NEAR_HALF > row["sd_images"] for row in rows)


def lesions(study, results):
    """What accuracy loses with disturbed gates."""
    lost, images = accuracy_lost(results), study.run(study.arm, 0).probe_images
    if not lost:
        return "Gates have not been disturbed."
    return (
        f"Fixing all gates at their training mean costs SE {lost['mean']} on {images:,} test images, exchanging them "
        f"between images {lost['shuffled']}."
    )


def accuracy_lost(results):
    """{intervention: points of accuracy lost with its interval} for all blocks at once, as LaTeX text."""
    rows = [row for row in table_rows(results, "interventions") if row["block"] == "all"]
    return {row["intervention"]: f"${row['drop_pp']:.2f}$ ({span([row['low_pp'], row['high_pp']])})" for row in rows}
