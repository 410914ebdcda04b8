"""Sentences of the paper on comparisons of accuracy: primary, controls, placement, settings and curves."""

import math

import numpy as np
from scipy import stats

from lib.comparisons import CONTROLS
from lib.config import SEPARATOR
from lib.statistics import ALPHA, SMALLEST_EFFECT_PP, holm
from lib.studyfacts import table_rows
from lib.wording import (
    comparison_name,
    effect,
    escaped,
    excludes_zero,
    first_names,
    in_words,
    named_effects,
    p_value,
    share,
    signed,
    span,
)

WEAK_CORRELATION = 0.3
FEW, MANY_PAIRS = 3, 8  # the share of the FEW most extreme pairs is told where there are this many
UNEQUAL = 1.5  # ratio of two intervals from which one counts as the larger
DECISIONS = {  # of the primary comparison, as the end of a sentence
    "superior": "SE improves accuracy, by an estimate large enough to matter",
    "inferior": "SE lowers accuracy, by an estimate large enough to matter",
    "different but negligible": "SE changes accuracy by less than would matter",
    "equivalent": "SE makes no difference that would matter",
    "different, size unclear": "SE changes accuracy, and whether by enough to matter is open",
    "inconclusive": "neither an effect of SE nor its absence is shown",
    None: "there are too few pairs to decide",
}


def decision(study, results):
    """The preregistered reading of the primary comparison."""
    name = results["primary"]["decision"]
    if name is None:
        return f"No rule applies: {DECISIONS[None]}."
    return rf"By the rules the result is \emph{{{name}}}: {DECISIONS[name]}."


def images(study, results):
    """What the interval over images decides, and which of the two uncertainties is the larger."""
    primary = results["primary"]
    if primary["seed_interval_pp"] is None or primary["image_interval_pp"] is None:
        return "There are too few pairs for intervals."
    said = "The interval over images leads to the same reading"
    if primary["image_decision"] != primary["decision"]:
        reading = f"{primary['image_decision']}: {DECISIONS[primary['image_decision']]}"
        said = f"The interval over images leads to another reading ({reading}), so nothing is claimed for new images"
    ratio = np.ptp(primary["seed_interval_pp"]) / np.ptp(primary["image_interval_pp"])
    if ratio > UNEQUAL:
        return f"{said}; seeds are the larger uncertainty, so that more runs would help and more images hardly."
    if ratio < 1 / UNEQUAL:
        return f"{said}; images are the larger uncertainty, so that more runs on these 10,000 would hardly help."
    return f"{said}; both uncertainties are about as large."


def shape(study, results):
    """Wins, how much of the spread a few pairs make, and the interval that does without normality."""
    primary = results["primary"]
    if primary["seed_interval_pp"] is None:
        return ""
    squares = np.sort((np.array(primary["differences_pp"]) - np.mean(primary["differences_pp"])) ** 2)
    wide = ""
    if len(squares) >= MANY_PAIRS and squares.any():
        wide = rf"{in_words(FEW)} pairs make {100 * squares[-FEW:].sum() / squares.sum():.0f}\,\% of the variance, and "
    return (
        f"SE wins {primary['wins']} of {primary['n_pairs']} pairs ({p_value(primary['win_p'])}); {wide}the bootstrap "
        f"interval is {span(primary['bootstrap_interval_pp'])}."
    )


def power(study, results):
    """What these runs could have found, and how many would be needed."""
    primary = results["primary"]
    spread, n = primary["sd_difference_pp"], primary["n_pairs"]
    if spread is None:
        return "One pair has no spread."
    needed = (stats.norm.isf(ALPHA / 2) + stats.norm.isf(0.2)) ** 2 * (spread / SMALLEST_EFFECT_PP) ** 2  # power 0.8
    more = f"; {SMALLEST_EFFECT_PP:g} points would take about {float(f'{needed:.2g}'):.0f} pairs" if needed > n else ""
    return (
        f"With an SD of {spread:.2f} points {n} pairs detect {primary['detectable_difference_pp']:.2f} points four "
        f"times in five, and show the equivalence of equals in {share(primary['equivalence_power'])} of studies{more}."
    )


def pairing(study, results):
    """What sharing weights and batches was worth."""
    correlation = results["primary"]["seed_correlation"]
    if correlation is None:
        return ""
    known = f"The arms correlate over seeds with {signed(correlation)}: pairing has made the comparison"
    if correlation > WEAK_CORRELATION:
        return f"{known} more precise."
    return f"{known} fair{' but, by chance, less' if correlation < -WEAK_CORRELATION else ' but no more'} precise."


def controls(study, results):
    """What the confirmatory family of controls shows."""
    rows = table_rows(results, "controls")
    if not rows:
        return "The controls have not been run, so that an effect could have any of the causes they separate."
    significant = [row for row in rows if row["p_adjusted"] < ALPHA]
    if significant:
        rest = "; for the others no difference is shown" if len(significant) < len(rows) else ""
        return f"Significant after Holm's adjustment: {named_effects(significant)}{rest}."
    if (smallest := smallest_adjusted_p(study, rows)) < ALPHA:
        clear = [row for row in rows if excludes_zero(row)]
        unadjusted = f" Unadjusted intervals exclude zero for {named_effects(clear)}." if clear else ""
        return f"No comparison is significant after Holm's adjustment.{unadjusted}"
    enough = 1 + math.ceil(math.log2(_family(study) / ALPHA))
    planned = max(len(stage.seeds) for stage in study.stages if stage.name == CONTROLS)
    reason = "as not all planned pairs are finished"
    if planned < enough:
        reason = f"a fault of this design that {in_words(enough)} pairs would cure"
    return (
        f"With {in_words(max(row['n_pairs'] for row in rows))} pairs the planned test cannot fall below "
        f"$p={smallest:.2f}$ after Holm's adjustment, {reason}. {_t_tests(rows, _family(study))}"
    )


def smallest_adjusted_p(study, rows):
    """The smallest p-value that Holm's method can give the family, with as many pairs as there are."""
    return min(1.0, _family(study) * 2.0 ** (1 - max(row["n_pairs"] for row in rows)))


def _family(study):
    """Number of planned tests of controls: each against both primary arms."""
    return 2 * sum(len(stage.arms) for stage in study.stages if stage.name == CONTROLS)


def _t_tests(rows, family):
    """What t tests would say, which need normality and can be small with few pairs; a missing one counts as p = 1."""
    known = [1.0 if p is None else p for p in map(_t_p, rows)]
    adjusted = holm([*known, *[1.0] * (family - len(known))])[: len(rows)]
    small = [(row, p) for row, p in zip(rows, adjusted, strict=True) if p < ALPHA]
    said = "Chosen afterwards and assuming normality, $t$ tests so adjusted"
    if not small:
        return f"{said} separate nothing either."
    named = first_names([f"{escaped(comparison_name(row))}, {effect(row)}, {p_value(p)}" for row, p in small])
    return f"{said} show {'; '.join(named)}{'' if len(small) == len(rows) else ', and nothing else'}."


def _t_p(row):
    if row["n_pairs"] < 2 or not row["sd_difference_pp"]:
        return None
    t = abs(row["difference_pp"]) / row["sd_difference_pp"] * row["n_pairs"] ** 0.5
    return 2 * stats.t.sf(t, row["n_pairs"] - 1)


def sensitivity(study, results):
    """Other reductions, and each other's winner of the tuning, against the baseline."""
    rows = [row for row in table_rows(results, "sensitivity") if row["reference"] == study.baseline]
    crossed = next((row for row in rows if SEPARATOR in row["arm"]), None)
    reductions = [row for row in rows if SEPARATOR not in row["arm"]]
    said = []
    if crossed:
        said.append(f"At the baseline's settings SE differs from it by {effect(crossed)}.")
    if reductions:
        clear = [row for row in reductions if excludes_zero(row)]
        none = "Other $r$ do not differ clearly from the baseline."
        said.append(f"With other $r$, {named_effects(clear)}." if clear else none)
    return " ".join(said) or "No other settings have been run."


def curves(study, results):
    """What longer training and more data bring to the baseline, and the difference along both."""
    length, data = (table_rows(results, name) for name in ("curve_length", "curve_data"))
    points = [*length, *(row for row in data if row["variant"] or not length)]  # the own point stands in both
    if not points:
        return "Other training lengths and amounts of data have not been run."
    clear = [row for row in points if excludes_zero(row)]
    said = _gains(length, r"Training for {first} to {last} epochs takes the baseline from {low} to {high}\,\%. ")
    said += _gains(
        data, r"On {first} to {last}\,\% of the images, with equal updates, it gets {low} to {high}\,\%. ", 0.01
    )
    where = "Along both (Figure~\\ref{fig:effects}, right)"
    if not clear:
        return f"{said}{where} none of {len(points)} intervals of SE $-$ baseline excludes zero."
    signs = {row["difference_pp"] > 0 for row in clear}
    ways = "in both directions" if len(signs) == 2 else "for SE" if signs == {True} else "against SE"
    return f"{said}{where} {len(clear)} of {len(points)} intervals of SE $-$ baseline exclude zero, {ways}."


def _gains(rows, wording, unit=1):
    """A sentence on the baseline's accuracy (percent) from the first to the last point of a curve, if there are two.

    unit: what the points are told in, 1 for their own values and 0.01 for percent.
    """
    if len(rows) < 2:
        return ""
    first, last = (f"{row['x'] / unit:g}" for row in (rows[0], rows[-1]))
    low, high = (f"{row['accuracy_baseline']:.1f}" for row in (rows[0], rows[-1]))
    return wording.format(first=first, last=last, low=low, high=high)
