"""The sentences of the paper whose wording depends on results: one function each of (study, results)."""

import numpy as np
import pandas as pd
from scipy import stats

from lib.comparisons import CONTROLS
from lib.config import SEPARATOR, STAGE_WIDTHS, scaled
from lib.deviations import PREREGISTERED
from lib.paths import outputs_folder, run_folder
from lib.runs import read_json
from lib.statistics import ALPHA, SMALLEST_EFFECT_PP
from lib.wording import (
    LITERAL,
    STATIC,
    arm_name,
    effect,
    escaped,
    excludes_zero,
    first_names,
    in_words,
    named_effects,
    p_value,
    percent,
    share,
    signed,
    span,
)

FRACTIONS = {1: "full", 0.5: "half", 0.25: "quarter", 0.125: "eighth"}
PUBLISHED_GAIN_PP = 0.39  # WRN-16-8 on CIFAR-10, Hu et al. 2020, table 4
PUBLISHED_ACCURACY = 95.28  # ResNet-18 without Cutout, DeVries & Taylor 2017, table 1
COPY = "cifar10-jpeg"
WEAK_CORRELATION = 0.3
UNEQUAL = 1.5  # ratio of two intervals from which one counts as the larger
NEAR_HALF = 0.05  # gates that have moved less than this from where they start have hardly moved
DECISIONS = {  # of the primary comparison, as the end of a sentence
    "superior": "SE improves accuracy, by an estimate large enough to matter",
    "inferior": "SE lowers accuracy, by an estimate large enough to matter",
    "different but negligible": "SE changes accuracy by less than would matter",
    "equivalent": "SE makes no difference that would matter",
    "different, size unclear": "SE changes accuracy, and whether by enough to matter is open",
    "inconclusive": "neither an effect of SE nor its absence is shown",
    None: "there are too few pairs to decide",
}


def sentences(study, results):
    """{macro: sentence or sentences} whose wording depends on a decision, a sign, a p-value or on what has been run."""
    functions = {
        "standing": standing,
        "preregistration": preregistration,
        "deviations": deviations,
        "data": data_source,
        "tuning": tuning,
        "decision": decision,
        "images": images,
        "power": power,
        "pairing": pairing,
        "controls": controls,
        "sensitivity": sensitivity,
        "curves": curves,
        "disagreement": disagreement,
        "classes": classes,
        "confusions": confusions,
        "subsets": subsets,
        "calibration": calibration,
        "corruption": corruption,
        "lossless": lossless,
        "gates": gates,
        "lesions": lesions,
        "cost": cost,
        "answer": answer,
        "published": published,
        "mechanism": mechanism,
        "literal": literal,
        "gateUse": gate_use,
        "practice": practice,
        "scale": scale,
        "baseline": baseline_gap,
    }
    return {f"{name}Sentence": function(study, results) for name, function in functions.items()}


def standing(study, results):
    """What is reported: the preregistered study, or its rehearsal."""
    if not is_preregistered(study):
        config, copy = study.run(study.baseline, 0), ", a JPEG copy of the images"
        return (
            r"\textbf{What we report is the rehearsal of a preregistered study, none of whose full-width runs has been "
            f"made}}: {width_name(config)} width, {in_words(config.epochs)} epochs"
            f"{copy * (results['data_source'] == COPY)}. It tries out the method and settles nothing about full width."
        )
    if results["preregistration"]["older"]:
        return "Question, arms, tests and rules of decision were preregistered."
    return "The plan is not known to be older than the runs, so that all tests count as exploratory."


def preregistration(study, results):
    """Whether the plan is older than the runs."""
    record = results["preregistration"]
    if not is_preregistered(study):
        return (
            "This plan is committed for full width, where no run has been made; the rehearsal has the same rules and "
            "fewer runs."
        )
    if record["older"] is None:
        return f"Whether the plan is older than the runs is unknown ({escaped(record['unknown_because'])})."
    order = "before" if record["older"] else r"\emph{after}"
    return f"The plan was committed ({record['commit']}) {order} the first run was finished."


def deviations(study, results):
    """All deviations from the plan."""
    found = results.get("deviations") or []
    return escaped(" ".join(["Deviations from the plan:", *found])) if found else "No deviation is on record."


def data_source(study, results):
    """Which images were used."""
    if results["data_source"] != COPY:
        return "The images are those of the official archive."
    return (
        "The images are a JPEG copy (quality 75, 4:2:0) of all 60,000 in official order, the same for all arms; "
        "accuracies do not compare with published ones."
    )


def tuning(study, results):
    """Grid, budget, winners, and whether these lie at the edge of the grid."""
    plan, winners = study.tuning, results["winners"]
    grid = {name.replace("_", " "): values for name, values in plan.grid.items()}
    named = {
        arm: ", ".join(f"{name} {value:g}" for name, value in zip(grid, cell.values(), strict=True))
        for arm, cell in winners.items()
    }
    base, arm = named[study.baseline], named[study.arm]
    won = f"{base} won for both arms" if base == arm else f"{base} won for the baseline and {arm} for SE"
    edges = [
        name
        for name, values in grid.items()
        if len(values) > 2 and {cell[name.replace(" ", "_")] for cell in winners.values()} & {min(values), max(values)}
    ]
    tried = r" $\times$ ".join(f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in grid.items())
    held_out = plan.validation_images
    return (
        f"SE and baseline are tuned alike: {tried}, {in_words(len(plan.seeds))} seeds a cell that are used nowhere "
        f"else, {50_000 - held_out:,} images to train, {held_out:,} to judge, and a default that stays unless it is "
        f"beaten by more than noise. {won[0].upper()}{won[1:]}{', at the edge of the grid' if edges else ''}."
    )


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


def power(study, results):
    """What these runs could have found, and how many would be needed."""
    primary = results["primary"]
    spread, n = primary["sd_difference_pp"], primary["n_pairs"]
    if spread is None:
        return "One pair has no spread."
    needed = (stats.norm.isf(ALPHA / 2) + stats.norm.isf(0.2)) ** 2 * (spread / SMALLEST_EFFECT_PP) ** 2  # power 0.8
    more = (
        f"; to detect {SMALLEST_EFFECT_PP:g} points would take about {float(f'{needed:.2g}'):.0f} pairs"
        if needed > n
        else ""
    )
    return (
        f"The differences have an SD of {spread:.2f} points: {n} such pairs detect "
        f"{primary['detectable_difference_pp']:.2f} points four times in five, and would show equivalence in "
        f"{share(primary['equivalence_power'])} of studies if there were no difference{more}."
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
    rows = results.get("controls") or []
    if not rows:
        return "The controls have not been run, so that an effect could have any of the causes they separate."
    significant = [row for row in rows if row["p_adjusted"] < ALPHA]
    if significant:
        rest = "; for the others no difference is shown" if len(significant) < len(rows) else ""
        return f"Significant after Holm's adjustment: {named_effects(significant)}{rest}."
    said = "No comparison is significant after Holm's adjustment"
    if (smallest := _smallest_adjusted_p(study, rows)) >= ALPHA:
        said += f", and none could be: with so few pairs no adjusted $p$ falls below {smallest:.2f}"
    clear = [row for row in rows if excludes_zero(row)]
    if clear:
        return f"{said}. Unadjusted intervals exclude zero for {named_effects(clear)}."
    return f"{said}. All unadjusted intervals include zero, which with so few pairs does not show that nothing differs."


def _smallest_adjusted_p(study, rows):
    """The smallest p-value that Holm's method can give the family, with as many pairs as there are."""
    family = 2 * sum(len(stage.arms) for stage in study.stages if stage.name == CONTROLS)
    return min(1.0, family * 2.0 ** (1 - max(row["n_pairs"] for row in rows)))


def sensitivity(study, results):
    """Other reductions, and each other's winner of the tuning, against the baseline."""
    rows = [row for row in results.get("sensitivity") or [] if row["reference"] == study.baseline]
    crossed = next((row for row in rows if SEPARATOR in row["arm"]), None)
    reductions = [row for row in rows if SEPARATOR not in row["arm"]]
    said = []
    if crossed:
        said.append(f"At the baseline's settings SE differs from it by {effect(crossed)}.")
    if reductions:
        clear = [row for row in reductions if excludes_zero(row)]
        named = " nor ".join(escaped(arm_name(row["arm"])) for row in reductions)
        differs = (
            f"From the baseline, {named_effects(clear)}."
            if clear
            else f"Neither {named} differs clearly from the baseline."
        )
        said.append(differs)
    return " ".join(said) or "No other settings have been run."


def curves(study, results):
    """The difference along training lengths and amounts of data."""
    rows = [*(results.get("curve_length") or []), *(results.get("curve_data") or [])]
    if not rows:
        return "Other training lengths and amounts of data have not been run."
    clear = [row for row in rows if excludes_zero(row)]
    said = "Over training lengths and amounts of data (Figure~\\ref{fig:effects}, right)"
    if not clear:
        return f"{said} all {len(rows)} intervals include zero: these few pairs show no trend, nor that there is none."
    signs = {row["difference_pp"] > 0 for row in clear}
    ways = "in both directions" if len(signs) == 2 else "for SE" if signs == {True} else "against SE"
    return f"{said} {len(clear)} of {len(rows)} intervals exclude zero, {ways}."


def disagreement(study, results):
    """Churn between arms against churn between seeds, and the spread of the difference over images."""
    churn, excess = results.get("churn") or {}, results.get("disagreement") or {}
    if churn.get("between_baselines") is None:
        return "With one pair, disagreement between arms cannot be told from that between seeds."
    said = (
        rf"Baselines of different seeds disagree on {churn['between_baselines']:.1f}\,\% of the test images, SE and "
        rf"baseline of different seeds on {churn['between_arms_other_seed']:.1f}\,\%"
    )
    if excess.get("ratio") is None:
        return f"{said}."
    more = excess["p_value"] < ALPHA and excess["ratio"] > 1
    reading = "a sign that SE gets partly other images right" if more else "no sign that SE gets other images right"
    times = f"{excess['ratio']:.2f} times what seeds explain ({p_value(excess['p_value'])})"
    return f"{said}. The seed-averaged difference varies over images {times}, {reading}."


def classes(study, results):
    """Which classes differ."""
    rows = [row for row in results.get("recall_by_class") or [] if row["p_fdr"] is not None]
    if not rows:
        return "Classes have not been compared."
    clear = [row for row in rows if row["p_fdr"] < ALPHA]
    if not clear:
        return "Recall differs in no class after adjustment for ten, with little power for any."
    named = "; ".join(first_names([f"{row['class']}, {effect(row)}" for row in clear]))
    return f"After adjustment for ten classes recall differs for {named}, which no hypothesis had named."


def confusions(study, results):
    """The most frequent confusion of either arm, from the tables of the analysis."""
    worst = []
    for arm in (study.baseline, study.arm):
        path = outputs_folder(study.name) / "tables" / f"confusion_{arm}.csv"
        if not path.exists():
            return ""
        table = pd.read_csv(path, index_col="true")
        wrong = table.where(~np.eye(len(table), dtype=bool)).stack()
        worst.append((wrong.idxmax(), wrong.max()))
    (base, base_percent), (gated, gated_percent) = worst
    said = rf"Most often {base[0]} is taken for {base[1]} ({base_percent:.1f}\,\% of the class) by the baseline"
    same = "the same" if base == gated else f"{gated[0]} for {gated[1]}"
    return rf"{said}, and {same} by SE ({gated_percent:.1f}\,\%)."


def subsets(study, results):
    """The primary comparison without doubtful images, and on those that people find hard."""
    rows = {row["subset"]: row for row in results.get("subsets") or []}
    wanted = {
        "without duplicates and label errors": r"without near-duplicates of training images \citep{barz2020} and "
        r"likely label errors \citep{northcutt2021}",
        "high human entropy": r"where people disagree most \citep{peterson2019}",
    }
    parts = [f"{effect(rows[name])} {words}" for name, words in wanted.items() if name in rows]
    return f"The primary difference is {', and '.join(parts)}." if parts else ""


def calibration(study, results):
    """Expected calibration error of both arms."""
    row = next((row for row in results.get("calibration") or [] if row["metric"] == "ece"), None)
    if row is None:
        return "Calibration has not been compared."
    low, high = (None if row[end] is None else 100 * row[end] for end in ("low", "high"))
    points = {"difference_pp": 100 * row["difference"], "low_pp": low, "high_pp": high}
    better = "better" if row["difference"] < 0 else "worse"
    reading = f"SE is {better} calibrated" if excludes_zero(points) else "no difference is resolved"
    return (
        rf"The calibration error \citep{{guo2017}} is {percent(row['baseline'], 1)}\,\% for the baseline, "
        rf"{percent(row['arm'], 1)}\,\% for SE, {effect(points)}: {reading}."
    )


def corruption(study, results):
    """Accuracy on corrupted images, and which corruptions stand out."""
    rows = {row["corruption"]: row for row in results.get("corruptions") or [] if row["severity"] == 0}
    if "mean" not in rows:
        return "Corrupted images have not been compared."
    said = rf"Over all corruptions \citep{{hendrycks2019}} accuracy differs by {effect(rows.pop('mean'))}"
    clear = [row for row in rows.values() if excludes_zero(row)]
    if not clear:
        return f"{said}, with no unadjusted interval for one of {len(rows)} that excludes zero."
    named = ", ".join(
        first_names([f"{row['corruption'].replace('_', ' ')} ({signed(row['difference_pp'])})" for row in clear])
    )
    return f"{said}; unadjusted intervals exclude zero for {named}."


def lossless(study, results):
    """What the JPEG copy costs."""
    if results["data_source"] != COPY:
        return ""
    row = next((row for row in results.get("lossless") or [] if row["arm"] == study.baseline), None)
    difference = results.get("lossless_difference") or {}
    if row is None or difference.get("interval_pp") is None:
        return "What the copy costs has not been measured."
    low, high = difference["interval_pp"]
    arms = effect({"difference_pp": difference["difference_pp"], "low_pp": low, "high_pp": high})
    gap = effect({"difference_pp": row["gap_pp"], "low_pp": row["low_pp"], "high_pp": row["high_pp"]})
    return (
        f"On 1,017 original test images the baseline differs from itself on their copies by {gap}, and SE from it "
        f"by {arms}."
    )


def gates(study, results):
    """How the gates of SE vary by depth."""
    rows = [row for row in results.get("gates") or [] if row["arm"] == study.arm]
    if not rows:
        return "Gates have not been recorded."
    means, spread = [row["mean"] for row in rows], max(row["sd_images"] for row in rows)
    said = f"Mean gates by block lie between {min(means):.2f} and {max(means):.2f}, their SD over images is at most "
    said += f"{spread:.2f}"
    if max(abs(mean - 0.5) for mean in means) < NEAR_HALF and spread < NEAR_HALF:
        said += ": they have hardly left the half where they start and where weight decay pulls them"
    first, last = rows[0]["eta_squared"], rows[-1]["eta_squared"]
    if first is None or last is None:
        return f"{said}."
    trend = "rises" if last - first > NEAR_HALF else "falls" if first - last > NEAR_HALF else "changes little,"
    return (
        f"{said}. The share of their variance over images that lies between classes {trend} from {first:.2f} in the "
        f"first block to {last:.2f} in the last."
    )


def lesions(study, results):
    """What accuracy loses with disturbed gates."""
    lost, images = _lost(results), study.run(study.arm, 0).probe_images
    if not lost:
        return "Gates have not been disturbed."
    return (
        f"With all gates fixed at their training mean SE loses {lost['mean']} on {images:,} test images, with gates of "
        f"other images {lost['shuffled']}."
    )


def _lost(results):
    rows = [row for row in results.get("interventions") or [] if row["block"] == "all"]
    return {row["intervention"]: f"${row['drop_pp']:.2f}$ ({span([row['low_pp'], row['high_pp']])})" for row in rows}


def cost(study, results):
    """Parameters, multiply-adds and time that SE adds."""
    arms = {row["arm"]: row for row in results["all_arms"]}
    parameters, multiply_adds, seconds = (
        100 * (arms[study.arm][name] / arms[study.baseline][name] - 1)
        for name in ("parameters", "multiply_adds", "train_seconds_median")
    )
    said = (
        rf"SE adds {parameters:.1f}\,\% parameters, {multiply_adds:.2f}\,\% multiply-adds and "
        rf"{signed(seconds, 0)}\,\% to the training time of these runs"
    )
    record = environment(study)
    for path in sorted(outputs_folder("benchmark").glob("*/results.json")):
        measured = read_json(path)
        if measured["environment"]["device_name"] == record.get("device_name"):
            ratio = measured["se_step_time_ratio"]["ours"]
            timed = f"{ratio['median']:.2f} times as long ({ratio['q1']:.2f} to {ratio['q3']:.2f})"
            return f"{said}; timed with care at full width, a training step takes {timed}."
    return f"{said}."


def answer(study, results):
    """What the decision means, and what it does not."""
    primary, margin = results["primary"], f"{SMALLEST_EFFECT_PP:g}"
    if primary["decision"] is None:
        return "There are too few pairs for an answer."
    low, high = primary["seed_interval_pp"]
    published = "among them" if low <= PUBLISHED_GAIN_PP <= high else "but not with"
    reaching = f"the interval reaches from {signed(low)} to {signed(high)}"
    chosen = f"{reaching}, and an estimate that had to pass {margin} to count tends to be too large"
    return {
        "superior": f"On these test images SE improves this network. The sign is more certain than the size: {chosen}.",
        "inferior": f"On these test images SE harms this network. The sign is more certain than the size: {chosen}.",
        "different but negligible": "SE changes the accuracy of this network, by so little that we had agreed "
        f"beforehand to call it neither improvement nor loss: {reaching}.",
        "equivalent": f"SE does not change the accuracy of this network by {margin} points or more. This is more than "
        "a failure to find a difference: two one-sided tests exclude larger ones in either direction.",
        "different, size unclear": "SE changes the accuracy of this network, and whether by enough to matter is open: "
        f"{reaching}.",
        "inconclusive": f"The comparison does not answer the question: it is compatible with true differences from "
        f"{signed(low)} to {signed(high)} points, {published} the {PUBLISHED_GAIN_PP} published for WRN-16-8. This is "
        "no evidence that SE does nothing. Equivalence was tested and not shown, and with this spread it could be in "
        f"{share(primary['equivalence_power'])} of studies.",
    }[primary["decision"]]


def published(study, results):
    """What a single pair of runs would be worth."""
    spread = results["primary"]["sd_difference_pp"]
    if not spread:
        return "These runs do not tell what a single pair is worth."
    return (
        f"If SE did nothing, a single pair of runs like ours would differ by {PUBLISHED_GAIN_PP} points or more in "
        f"{share(2 * stats.norm.sf(PUBLISHED_GAIN_PP / spread))} of cases, half of them in favour of SE."
    )


def mechanism(study, results):
    """Which of the explanations the controls support."""
    rows = results.get("controls") or []
    sharpest = next((row for row in rows if row["reference"] == STATIC), None)
    if sharpest is None:
        return "The static gate, which would tell looking from optimisation, has not been run."
    said = f"The sharpest control, SE against a blind gate, gives {effect(sharpest)}"
    if sharpest["p_adjusted"] < ALPHA:
        said += f", which speaks {'for' if sharpest['difference_pp'] > 0 else 'against'} looking"
    elif excludes_zero(sharpest):
        said += ", whose interval excludes zero, but not after adjustment"
    else:
        said += ": looking is shown neither to help nor not to"
    others = [row for row in rows if row["reference"] == study.baseline and row["arm"] != LITERAL]
    clear = [row for row in others if row["p_adjusted"] < ALPHA]
    if clear:
        return f"{said}. What comes along with a gate matters by itself: {named_effects(clear)}."
    return f"{said}. Of what comes along with a gate nothing is shown to matter by itself."


def literal(study, results):
    """What the other reading of the brief gives."""
    row = next((row for row in results.get("controls") or [] if row["arm"] == LITERAL), None)
    if row is None:
        return "The literal reading has not been run."
    adjusted = "" if row["p_adjusted"] < ALPHA else ", not adjusted"
    said = f"The literal reading, SE on the skip path, gives {effect(row)} against the baseline{adjusted}"
    if not excludes_zero(row):
        return f"{said}: for it, too, no difference is shown."
    if row["difference_pp"] > 0:
        return f"{said}: an answer to the brief has to say which reading it is about."
    return (
        rf"{said}: whoever read the brief so would report a clear loss. At the start its gates halve every skip path, "
        r"to $2^{-8}$ over eight blocks. In ResNet-110 a gate on the shortcut that starts at one half raised the "
        r"CIFAR-10 error from 6.61 to 12.86\,\%, one that starts near one hardly did \citep{he2016identity}; yet on "
        r"ImageNet \citet{hu2020} found SE on the identity path as good as their own. No arm of ours halves the skip "
        "path alone, so start, length of training and dependence on the image remain confounded."
    )


def gate_use(study, results):
    """Whether accuracy owes to the gates what they seem to know."""
    row = next(
        (row for row in results.get("interventions") or [] if (row["intervention"], row["block"]) == ("mean", "all")),
        None,
    )
    shares = [
        each["eta_squared"] for each in results.get("gates") or [] if each["arm"] == study.arm and each["eta_squared"]
    ]
    if row is None or not shares:
        return ""
    known = rf"Up to {100 * max(shares):.0f}\,\% of how gates vary over images follows the class"
    lost = f"without that variation accuracy falls by {_lost(results)['mean']} points"
    if not excludes_zero(row):
        return f"{known}, yet {lost}, which may be nothing."
    return f"{known}, and {lost}."


def practice(study, results):
    """Whether the cost is worth paying."""
    said = {
        "superior": "At its price SE is worth having where accuracy counts.",
        "inferior": "There is no reason to pay for SE here.",
        "different but negligible": "Accuracy is no reason to pay for SE here.",
        "equivalent": "Accuracy is no reason to pay for SE here.",
    }
    unknown = "Whether SE is worth its price these runs cannot say; the plain network is the simpler choice."
    return said.get(results["primary"]["decision"], unknown)


def scale(study, results):
    """What the size of the networks and the length of training cannot show."""
    config = study.run(study.baseline, 0)
    if is_preregistered(study):
        return f"Training lasts {config.epochs} epochs where 200 are common; effects of longer training cannot show."
    return (
        f"At {width_name(config)} width the first gates have {hidden_units(config)[0]} hidden units, and after "
        f"{in_words(config.epochs)} epochs no network is near what it could reach: an effect that needs width or time "
        "cannot show, and one seen here need not last."
    )


def baseline_gap(study, results):
    """How the baseline compares with a published one."""
    gap = PUBLISHED_ACCURACY - 100 * results["arms"][study.baseline]["test_accuracy_mean"]
    side = "below" if gap > 0 else "above"
    said = (
        rf"A published ResNet-18 reaches {PUBLISHED_ACCURACY}\,\% without Cutout \citep{{devries2017}}, and ours is "
        f"{abs(gap):.1f} points {side}"
    )
    return f"{said}; a weak baseline can be easier, or harder, to improve." if gap > 1 else f"{said}."


def environment(study):
    return read_json(run_folder(study.name, study.baseline, 0) / "environment.json") or {}


def width_name(config):
    return FRACTIONS.get(config.width, f"{config.width:g} of the")


def stage_widths(config):
    return scaled(STAGE_WIDTHS, config.width)


def hidden_units(config):
    return [width // config.reduction for width in stage_widths(config)]


def is_preregistered(study):
    return study.name == PREREGISTERED
