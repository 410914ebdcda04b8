"""Sentences of the paper on what the results mean: the answer, both readings, mechanism, price and limits."""

from scipy import stats

from lib.behavioursentences import accuracy_lost, hardly_opened
from lib.comparisons import LITERAL
from lib.paths import outputs_folder
from lib.runs import read_json
from lib.statistics import ALPHA, SMALLEST_EFFECT_PP
from lib.studyfacts import environment, hidden_units, is_preregistered, width_name
from lib.wording import (
    HALF,
    HALF_SKIP,
    STATIC,
    STATIC_SKIP,
    effect,
    excludes_zero,
    in_words,
    named_effects,
    share,
    signed,
)

PUBLISHED_GAIN_PP = 0.39  # WRN-16-8 on CIFAR-10, Hu et al. 2020, table 4
PUBLISHED_ACCURACY = 95.28  # ResNet-18 without Cutout, DeVries & Taylor 2017, table 1


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
        f"{signed(low)} to {signed(high)} points, {published} the {PUBLISHED_GAIN_PP} published for WRN-16-8.",
    }[primary["decision"]]


def literal(study, results):
    """What the other reading of the brief gives, and what that is owed to."""
    row = _control(results, LITERAL, study.baseline)
    if row is None:
        return "The literal reading has not been run."
    adjusted = "" if row["p_adjusted"] < ALPHA else ", not adjusted"
    said = f"SE on the skip path gives {effect(row)} against the baseline{adjusted}"
    if not excludes_zero(row):
        return f"{said}: for it, too, no difference is shown."
    if row["difference_pp"] > 0:
        return f"{said}: an answer to the brief has to say which reading it is about."
    return (
        f"{said}: who reads the brief so reports that SE does harm. At the start its gates halve every skip path, to "
        f"$2^{{-8}}$ over eight blocks. {_share_of_halving(study, results)}In ResNet-110 a gate on the shortcut "
        r"that starts at one half raised the CIFAR-10 error from 6.61 to 12.86\,\% \citep{he2016identity}; yet on "
        r"ImageNet \citet{hu2020} found SE on the identity path as good as their own."
    )


def skip(study, results):
    """The other reading in one sentence, for the abstract."""
    row = _control(results, LITERAL, study.baseline)
    if row is None:
        return ""
    rows = {(each["arm"], each["reference"]): each for each in results.get("placement") or []}
    half, rest = rows.get((HALF_SKIP, study.baseline)), rows.get((LITERAL, HALF_SKIP))
    said = f"On the skip path itself SE gives {effect(row)}"
    explained = half and rest and excludes_zero(half) and half["difference_pp"] < 0 and not excludes_zero(rest)
    if excludes_zero(row) and row["difference_pp"] < 0 and explained:
        return f"{said}, which halving that path without SE gives as well, {effect(half)}."
    return f"{said}."


def _share_of_halving(study, results):
    """Whether halving the skip path, without a gate, explains the loss of SE there."""
    rows = {(row["arm"], row["reference"]): row for row in results.get("placement") or []}
    half, static = (rows.get((arm, study.baseline)) for arm in (HALF_SKIP, STATIC_SKIP))
    rest = rows.get((LITERAL, HALF_SKIP))
    if half is None or static is None or rest is None:
        return "No arm halves the skip path alone, so that this start is not told from the rest. "
    alone = f"There a static gate gives {effect(static)}, the constant one half {effect(half)}"
    if not excludes_zero(half):
        return f"{alone}, which may be nothing, and SE against it {effect(rest)}. "
    if not excludes_zero(rest):
        return rf"{alone}, and SE less the latter {effect(rest)}: \emph{{halving suffices for such harm}}. "
    looking = "wins some of it back" if rest["difference_pp"] > 0 else "loses more"
    return f"{alone}, and SE {looking}, {effect(rest)}. "


def _control(results, arm, reference):
    rows = results.get("controls") or []
    return next((row for row in rows if (row["arm"], row["reference"]) == (arm, reference)), None)


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
    said = f"The sharpest control, SE against a static gate, gives {effect(sharpest)}"
    if sharpest["p_adjusted"] < ALPHA:
        said += f", which speaks {'for' if sharpest['difference_pp'] > 0 else 'against'} looking"
    elif excludes_zero(sharpest):
        said += ", whose interval excludes zero, but not after adjustment"
    else:
        said += ": the value of looking is unresolved"
    others = [row for row in rows if row["reference"] == study.baseline and row["arm"] != LITERAL]
    clear = [row for row in others if row["p_adjusted"] < ALPHA]
    return f"{said}. What comes along with a gate matters by itself: {named_effects(clear)}." if clear else f"{said}."


def gate_use(study, results):
    """How much of the treatment was delivered: whether gates have opened, and whether accuracy needs them."""
    row = next(
        (row for row in results.get("interventions") or [] if (row["intervention"], row["block"]) == ("mean", "all")),
        None,
    )
    if row is None:
        return ""
    needed, lost = excludes_zero(row), f"fixing them costs {accuracy_lost(results)['mean']} points"
    if not hardly_opened(study, results):
        return f"The gates have left the half where they start, and {lost}{'' if needed else ', which may be nothing'}."
    moved = (
        r"\textbf{The gates hardly moved on average}: block means stay near one half, where they start and weight "
        "decay pulls"
    )
    half, alike = _control(results, study.arm, HALF), ""
    if half:
        alike = f"half scale, trained without, is {'not ' * (not excludes_zero(half))}told from SE, {effect(half)}"
    if not needed:
        return f"{moved}, and {lost}, which may be nothing{alike and f'; {alike}'}."
    return f"{moved}. Yet {lost}: the network relies on them{alike and f', though {alike}'}. Use is not benefit."


def cost(study, results):
    """Parameters, multiply-adds and time that SE adds."""
    arms = {row["arm"]: row for row in results["all_arms"]}
    parameters, multiply_adds = (
        100 * (arms[study.arm][name] / arms[study.baseline][name] - 1) for name in ("parameters", "multiply_adds")
    )
    said = rf"SE adds {parameters:.1f}\,\% parameters and {multiply_adds:.2f}\,\% multiply-adds"
    said += ", which do not count that each gate reads its feature map twice more"
    device = environment(study).get("device_name")
    for path in sorted(outputs_folder("benchmark").glob("*/results.json")):
        measured = read_json(path)
        if measured["environment"]["device_name"] == device:
            ratio = measured["se_step_time_ratio"]["ours"]
            timed = (
                f"{ratio['median']:.2f} times as long (middle half of rounds {ratio['q1']:.2f} to {ratio['q3']:.2f})"
            )
            return f"{said}; timed apart, at full width and $r=16$, a training step takes {timed}."
    return f"{said}."


def tuning_lesson(study, results):
    """What the tuning had promised, where the test does not bear it out."""
    cells = [results["winners"][arm] for arm in (study.baseline, study.arm)]
    row = next((row for row in results.get("tuning") or [] if cells[0] == cells[1] == _settings(row, cells[0])), None)
    interval = results["primary"]["seed_interval_pp"]
    if row is None or interval is None:
        return ""
    gap = row[study.arm] - row[study.baseline]
    seeds, pairs = (in_words(count) for count in (len(study.tuning.seeds), results["primary"]["n_pairs"]))
    if interval[0] <= gap <= interval[1]:
        return ""
    return (
        f"{seeds[0].upper()}{seeds[1:]} seeds of the tuning had put SE at {signed(gap, 1)} points; {pairs} of the test "
        f"put it at {signed(results['primary']['difference_pp'])}."
    )


def _settings(row, cell):
    return {name: row[name] for name in cell}


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
        f"At {width_name(config)} width the first gates have {in_words(hidden_units(config)[0])} hidden units, and "
        f"after {in_words(config.epochs)} epochs no network is near what it could reach: we compare early speed, not "
        "final quality. An effect that needs width or time cannot show, and one seen here need not last."
    )


def baseline_gap(study, results):
    """How the baseline compares with a published one."""
    gap = PUBLISHED_ACCURACY - 100 * results["arms"][study.baseline]["test_accuracy_mean"]
    side = "below" if gap > 0 else "above"
    said = (
        rf"A published ResNet-18 reaches {PUBLISHED_ACCURACY}\,\% \citep{{devries2017}}, and ours is "
        f"{abs(gap):.1f} points {side}"
    )
    return f"{said}; a weak baseline can be easier, or harder, to improve." if gap > 1 else f"{said}."
