"""Sentences of the paper on what the results mean: the answer, both readings of the brief, mechanism."""

from scipy import stats

from lib.behavioursentences import accuracy_lost, hardly_opened
from lib.comparisons import LITERAL
from lib.statistics import ALPHA, SMALLEST_EFFECT_PP
from lib.studyfacts import is_preregistered, table_row, table_rows
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
    row = table_row(results, "controls", arm=LITERAL, reference=study.baseline)
    if row is None:
        return "The literal reading has not been run."
    adjusted = "" if row["p_adjusted"] < ALPHA else ", not adjusted"
    said = f"SE on the skip path gives {effect(row)} against the baseline{adjusted}"
    if not excludes_zero(row):
        return f"{said}: no difference is shown."
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
    row = table_row(results, "controls", arm=LITERAL, reference=study.baseline)
    if row is None:
        return ""
    half, rest, _ = _placement(study, results)
    said = f"On the skip path itself SE gives {effect(row)}"
    if _halving_suffices(half, rest):
        return f"{said}, which halving that path without SE gives as well, {effect(half)}."
    return f"{said}."


def _placement(study, results):
    """Rows of half scale − baseline, SE − half scale and static gate − baseline, each on the skip path."""
    wanted = [(HALF_SKIP, study.baseline), (LITERAL, HALF_SKIP), (STATIC_SKIP, study.baseline)]
    return [table_row(results, "placement", arm=arm, reference=reference) for arm, reference in wanted]


def _halving_suffices(half, rest):
    """Whether halving loses accuracy, and what SE adds to that is known to be less than half as much."""
    if half is None or rest is None or not excludes_zero(half) or half["difference_pp"] > 0 or rest["low_pp"] is None:
        return False
    return max(abs(rest["low_pp"]), abs(rest["high_pp"])) < abs(half["difference_pp"]) / 2


def _share_of_halving(study, results):
    """Whether halving the skip path, without a gate, explains the loss of SE there."""
    half, rest, static = _placement(study, results)
    if half is None or rest is None or static is None:
        return "No arm halves the skip path alone, so that this start is not told from the rest. "
    alone = f"There a static gate gives {effect(static)}, the constant one half {effect(half)}"
    if not excludes_zero(half) or half["difference_pp"] > 0:
        return f"{alone}, and SE less the latter {effect(rest)}. "
    if _halving_suffices(half, rest):
        return rf"{alone}, and SE less the latter {effect(rest)}: \emph{{halving suffices for such harm}}. "
    if not excludes_zero(rest):
        return f"{alone}; whether SE does more than halve is open, {effect(rest)}. "
    looking = "wins some of it back" if rest["difference_pp"] > 0 else "loses more"
    return f"{alone}, and SE {looking}, {effect(rest)}. "


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
    rows, sharpest = table_rows(results, "controls"), table_row(results, "controls", reference=STATIC)
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
    row = table_row(results, "interventions", intervention="mean", block="all")
    if row is None:
        return ""
    needed = row["low_pp"] is not None and row["low_pp"] > 0
    lost = f"fixing them costs {accuracy_lost(results)['mean']} points"
    if not hardly_opened(study, results):
        use = "the network relies on them" if needed else "the network is not shown to rely on them"
        return f"The gates have left the half where they start; {lost}: {use}{_against_half(study, results, needed)}."
    moved = (
        r"\textbf{The gates hardly moved on average}: block means stay near one half, where they start and weight "
        "decay pulls"
    )
    if not needed:
        return f"{moved}; {lost}, which may be nothing{_against_half(study, results, needed)}."
    return f"{moved}. Yet {lost}: the network relies on them{_against_half(study, results, needed)}."


def _against_half(study, results, needed):
    """How SE does against the arm that is what its gates are at the start, as the end of a sentence."""
    half = table_row(results, "controls", reference=HALF)  # SE at whichever winner the controls are held against
    if half is None:
        return ""
    if excludes_zero(half):
        side = "ahead of" if half["difference_pp"] > 0 else "behind"
        return f", and SE is {side} half scale, trained without, by {effect(half)}"
    alike = f"half scale, trained without, is not told from SE, {effect(half)}"
    return f", though {alike}. Use is not benefit" if needed else f"; {alike}"


def tuning_lesson(study, results):
    """What the tuning had promised with the settings that won, and how far so few seeds scatter."""
    cells, primary = [results["winners"][arm] for arm in (study.baseline, study.arm)], results["primary"]
    row = table_row(results, "tuning", **cells[0]) if cells[0] == cells[1] else None
    few, n, spread = len(study.tuning.seeds), primary["n_pairs"], primary["sd_difference_pp"]
    if row is None or not spread:
        return ""
    scatter = stats.t.isf(ALPHA / 2, n - 1) * spread * (1 / few + 1 / n) ** 0.5
    gap, seeds = row[study.arm] - row[study.baseline], in_words(few)
    return (
        f"{seeds[0].upper()}{seeds[1:]} seeds of the tuning had put SE at {signed(gap, 1)} points; around the test's "
        f"{signed(primary['difference_pp'])} {seeds} seeds scatter by $\\pm{scatter:.1f}$."
    )


def why_not(study, results):
    """Why SE might not help on these images, unless it does, and what would change our mind."""
    why = (
        r"\textbf{Why SE may not help here.} One centred object of ten kinds leaves little context to squeeze, units "
        "of the last stage see most of the image already, and batch norm has a scale for each channel. "
    )
    mind = (
        "At full width: SE above the static gate (looking matters), half scale as good as SE (the start does), a loss "
        "on the skip path that fades with longer training (its start, not its place)."
    )
    if is_preregistered(study):
        mind = "The same comparison after 200 epochs, or in another laboratory, with another decision."
    helped = results["primary"]["decision"] == "superior"
    return rf"{'' if helped else why}\textbf{{What would change our mind.}} {mind}"
