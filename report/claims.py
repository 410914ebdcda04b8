"""What paper.tex takes from outputs/: its numbers, and what must be true for its sentences to stand.

lib/paper.py reads both. When a claim no longer holds, the sentence is to be rewritten by hand, here and in paper.tex.
"""

import functools
import itertools

import numpy as np
import pandas as pd
from scipy import stats

from lib.analyse.statistics import EQUIVALENCE_MARGIN_PP, PUBLISHED_GAIN_PP
from lib.data import OFFICIAL_FINGERPRINT
from lib.files import ROOT, read_json

SPAN, BARE = "{0[0]:+.2f} to {0[1]:+.2f}", "{0[0]:.2f} to {0[1]:.2f}"
SHARE = "{0[0]} of {0[1]}"
CELL = "{0[difference_pp]:+.2f} ({0[low_pp]:+.2f} to {0[high_pp]:+.2f})"
ROW = "{0[0]} & {0[1]:.2f} ({0[2]:.2f}) & {0[3]:.2f} ({0[4]:.2f}) & {0[5]:+.2f} & {0[6]:+.2f} to {0[7]:+.2f}"
LITERAL = "se_skip_resnet18"
FULL_AT_PLAIN_RATE = "se_resnet18__plain_rate"  # after 16 epochs in the second study
SHORT, FRESH = "se_resnet18__8_epochs", "se_resnet18__8_epochs_plain_rate"  # of the second study, as tuned and equal
QUARTER, AT_PLAIN_RATE = "__quarter_width", "se_resnet18__quarter_width_plain_rate"
LONG_NARROW, LONG_AT_PLAIN_RATE = (f"se_resnet18{QUARTER}_16_epochs{rate}" for rate in ("", "_plain_rate"))
LONGEST_NARROW, LONGEST_AT_PLAIN_RATE = (f"se_resnet18{QUARTER}_32_epochs{rate}" for rate in ("", "_plain_rate"))
STATIC = "static_gate_resnet18"
EQUAL_AT_FULL_WIDTH = ("paper", FULL_AT_PLAIN_RATE), ("replication", FRESH), ("replication", FULL_AT_PLAIN_RATE)
FULL_WIDTH = (*EQUAL_AT_FULL_WIDTH, ("paper", "se_resnet18"), ("replication", "se_resnet18"), ("replication", SHORT))
# of the study gates, against resnet18
AGAIN, FREE_STATIC, DECAYING = "free_se_resnet18", "free_static_gate_resnet18", "se_resnet18"
FREE_GATES = f"se_resnet18{QUARTER}_16_epochs_free_gates"
PLAIN_LONGEST = f"resnet18{QUARTER}_32_epochs"
PLAIN_LONG, PLAIN_LONG_AT_SE_RATE = (f"resnet18{QUARTER}_16_epochs{rate}" for rate in ("", "_se_rate"))
NARROW, PLAIN_AT_SE_RATE = f"se_resnet18{QUARTER}", f"resnet18{QUARTER}_se_rate"
MEAN, WIDTH, EPOCHS = "test_accuracy_mean", "full − quarter width", "slope over log2(epochs)"


def all_runs(column):
    """Function of the results: how many runs are `planned` or `finished` in all."""
    return lambda results: sum(row[column] for row in results["stages"])


def kinds_of_deviations(results):
    return {row["deviation"] for row in results["deviations"]}


def p_text(p):
    """A p-value for print."""
    return "{<}0.001" if p < 0.001 else f"{p:.3f}"


def of(study, *path):
    """Function of the results: a number of a study, by its way through results.json."""

    def find(results):
        found = results if study == "paper" else results[study]
        for key in path:
            found = found[key]
        return found

    return find


def mean_accuracy(arm):
    return of("paper", "arms", arm, MEAN)


def primary(*path):
    return of("paper", "primary", *path)


def longer(*path):
    """Function of the results: a number of the comparison after 16 epochs."""
    return of("replication", "primary", *path)


def within_study(study, function):
    """The same function of the results of that study."""
    return lambda results: function(of(study)(results))


second, of_gates = (functools.partial(within_study, study) for study in ("replication", "gates"))


def one(table, column, **row):
    """Function of the results: a column of that row of a table whose other columns have these values."""
    return lambda results: [each[column] for each in results[table] if row.items() <= each.items()][0]


def comparison(arm):
    """Function of the results: the comparison, a mapping, of an arm with the baseline of its width."""
    return lambda results: [each for each in results["effects"] if each["arm"] == arm][0]


def effect(arm, column="difference_pp"):
    """Function of the results: a column of that comparison."""
    return lambda results: comparison(arm)(results)[column]


def ends(function, kind="{}_pp"):
    """Function of the results: the ends of an interval, over seeds or of another kind, of the comparison it finds."""
    return lambda results: [function(results)[kind.format(end)] for end in ("low", "high")]


def effect_span(arm):
    return ends(comparison(arm))


def row(arm, study="paper", compared=None):
    """Function of the results: a row of the table of arms; both accuracies are means over the pairs, in per cent.

    compared: function of the results that gives the comparison; by default that with the baseline of its width.
    """

    def find(results):
        results = of(study)(results)
        found = (compared or comparison(arm))(results)
        means = (100 * found[name] for name in ("accuracy_arm", "sd_arm", "accuracy_baseline", "sd_baseline"))
        rest = (found[name] for name in ("difference_pp", "low_pp", "high_pp"))
        return [found["n_pairs"], *means, *rest]

    return find


def contrast(number, column):
    """Function of the results: a column of a planned contrast, by its number in the preregistration, from 0."""
    return of("paper", "contrasts", number, column)


def contrast_cell(number):
    """Function of the results: a planned contrast, a mapping, that has its p-value."""

    def find(results):
        row = of("paper", "contrasts", number)(results)
        return None if row["p_holm"] is None else row

    return find


def trend(column, name=WIDTH):
    """Function of the results: a column of a planned trend."""
    return one("trends", column, trend=name)


def trend_span(name=WIDTH):
    """Function of the results: the ends of the interval of a planned trend."""
    return lambda results: [trend(end, name)(results) for end in ("low_pp", "high_pp")]


def parameters(arm):
    """Function of the results: millions of parameters of an arm."""
    return lambda results: results["arms"][arm]["parameters"] / 1e6


def lesion(kind, column="drop_pp", arm="se_resnet18"):
    """Function of the results: what a lesion of all gates costs."""
    return one("lesion_table", column, arm=arm, lesion=kind, block="all")


def constant_blocks(arm, study="paper"):
    """Function of the results: how many blocks of all runs have the same gates for every image, and of how many."""

    def find(results):
        blocks = [gates for gates in of(study)(results)["gate_table"] if gates["arm"] == arm]
        return [sum(gates[column] for gates in blocks) for column in ("n_constant", "n_runs")]

    return find


@functools.cache
def table(path):
    """A table in outputs/."""
    return pd.read_csv(ROOT / "outputs" / path)


@functools.cache
def row_of(path, **values):
    """The one row, a mapping, of a table in outputs/ that has these values."""
    found = table(path)
    (row,) = found[(found[list(values)] == pd.Series(values)).all(axis=1)].to_dict("records")
    return row


def cell(path, column, /, **row):
    """Function that finds a number of a table in outputs/: of its one row with these values, this column."""
    return lambda results: row_of(path, **row)[column]


def compared(name, arm, baseline, study="paper"):
    """Function of the results: the comparison, a mapping, of two arms in that table in outputs/."""
    return lambda results: row_of(f"{study}/tables/{name}.csv", arm=arm, baseline=baseline)


def calibration(study, arm, column="change"):
    """Function of the results: a column of the comparison of an arm's calibration error with its baseline's."""
    return cell(f"{study}/tables/calibration_by_arm.csv", column, arm=arm)


def rates(*path):
    """Function of the results: the comparison, a mapping, of two networks at their rates."""
    return compared("rates", *path)


def against(control):
    """Function of the results: the comparison, a mapping, of narrow SE at 0.2 with a control."""
    return compared("explanations", AT_PLAIN_RATE, control + QUARTER)


def counted(results):
    """The comparison, a mapping, of the confirmation, over the seeds that its plan counts."""
    return compared("second_study", FRESH, "resnet18__8_epochs")(results)


def by_rate(*path):
    """Function of the results: the difference of that comparison, in points."""
    return lambda results: rates(*path)(results)["difference_pp"]


def by_rate_span(*path):
    """Function of the results: the ends of its interval over seeds."""
    return ends(rates(*path))


def at_equal_rates_of_table_1(results):
    """Comparisons, mappings, of all rows of table 1 in which standard SE and the plain network have equal rates."""
    arms = [("se_resnet18__plain_rate", "resnet18"), (AT_PLAIN_RATE, "resnet18" + QUARTER), (NARROW, PLAIN_AT_SE_RATE)]
    arms += [(LONG_AT_PLAIN_RATE, PLAIN_LONG), (LONGEST_AT_PLAIN_RATE, PLAIN_LONGEST), (FREE_GATES, PLAIN_LONG)]
    arms += [(LONG_NARROW, PLAIN_LONG_AT_SE_RATE)]
    again = rates(FULL_AT_PLAIN_RATE, "resnet18", "replication")
    repeated = (compared("whole", arm, "resnet18", "gates") for arm in (AGAIN, DECAYING))
    return [find(results) for find in (*itertools.starmap(rates, arms), counted, again, *repeated)]


def loss_change(study, arm, epoch, column="difference"):
    """Function of the results: by how much an arm's training loss after an epoch is above its baseline's, in nats."""
    return cell(f"{study}/tables/loss_changes.csv", column, arm=arm, epoch=epoch)


def early_leads(results):
    """By how much SE's training loss is lower after one epoch at equal rates and full width, in three sets of pairs."""
    return sorted(-loss_change(*where, 1)(results) for where in EQUAL_AT_FULL_WIDTH)


def tuned(arm, rate, column="mean"):
    return cell("paper/tables/tuning.csv", column, tuned=arm, learning_rate=rate)


def tuning_lead(results):
    """By how many points SE at 0.4 led over 0.2 in the tuning."""
    return tuned("se_resnet18", 0.4)(results) - tuned("se_resnet18", 0.2)(results)


def pairs_for_one_gain(results):
    """Among how many pairs of equally good networks one has at least the smallest published gain, by chance."""
    return 1 / stats.norm.sf(PUBLISHED_GAIN_PP / primary("sd_difference_pp")(results))


def more_time(machine):
    """Function of the results: by what part a training step takes longer with SE, in the benchmark of that machine."""
    path = ROOT / "outputs" / "benchmark" / machine / "results.json"
    return lambda results: read_json(path)["se_step_time_ratio"]["ours"]["median"] - 1


def includes_zero(function):
    """Function of the results: whether an interval includes zero."""
    return lambda results: function(results)[0] <= 0 <= function(results)[1]


def percent(function):
    """Function of the results: a fraction in per cent."""
    return lambda results: 100 * function(results)


def negative(function):
    """Function of the results: minus a number, or an interval turned round."""

    def find(results):
        found = function(results)
        return [-end for end in reversed(found)] if isinstance(found, list) else -found

    return find


def unpaired_sd(results):
    """The SD that differences of the primary arms would have without pairing, in points."""
    return 100 * np.hypot(
        *(of("paper", "arms", arm, "test_accuracy_sd")(results) for arm in ("resnet18", "se_resnet18"))
    )


# LaTeX macro: (format, function of the results). A number that is null in results.json has no macro yet.
NUMBERS = {
    "SecondPlanned": ("{}", second(all_runs("planned"))),
    "SecondMissing": ("{}", second(lambda results: all_runs("planned")(results) - all_runs("finished")(results))),
    # the planned comparison
    "Pairs": ("{}", primary("n_pairs")),
    "Difference": ("{:+.2f}", primary("difference_pp")),
    "SeedInterval": (SPAN, primary("seed_interval_pp")),
    "CrossedInterval": (SPAN, primary("crossed_interval_pp")),
    "FiveDifference": ("{:+.2f}", primary("by_kind", 0, "difference_pp")),
    "GPUDifference": ("{:+.2f}", primary("by_kind", 1, "difference_pp")),
    "Brier": ("{0[difference]:+.4f}", primary("brier")),
    "BrierP": ("{0[p_value]:.2f}", primary("brier")),
    "TostP": ("{:.3f}", primary("tost_p")),
    "PlainAccuracy": ("{:.2f}", percent(mean_accuracy("resnet18"))),
    "SEAccuracy": ("{:.2f}", percent(mean_accuracy("se_resnet18"))),
    "DifferenceSD": ("{:.2f}", primary("sd_difference_pp")),
    "UnpairedSD": ("{:.2f}", unpaired_sd),
    "ChanceGain": ("{:.0f}", pairs_for_one_gain),
    "CalibrationGain": ("{:.3f}", negative(calibration("paper", "se_resnet18"))),
    "PlainCalibration": (
        "{:.3f}",
        cell("paper/tables/calibration.csv", "baseline", name="expected calibration error (0 to 1)"),
    ),
    # equal rates, and what the higher rate costs
    "TunedSpread": ("{:.1f}", lambda results: np.sqrt(2) * tuned("resnet18", 0.4, "std")(results)),
    "TunedGain": ("{:.1f}", tuning_lead),
    "FullPlainPairs": ("{}", effect(FULL_AT_PLAIN_RATE, "n_pairs")),
    "FullPlainGain": ("{:.2f}", effect(FULL_AT_PLAIN_RATE)),
    "FullPlainInterval": (SPAN, effect_span(FULL_AT_PLAIN_RATE)),
    "FullRateLoss": ("{:.2f}", negative(by_rate("se_resnet18", FULL_AT_PLAIN_RATE))),
    "FullRateInterval": (BARE, negative(by_rate_span("se_resnet18", FULL_AT_PLAIN_RATE))),
    "Counted": ("{0[difference_pp]:+.2f}", counted),
    "CountedPairs": ("{0[n_pairs]}", counted),
    "CountedInterval": (SPAN, ends(counted)),
    "FreshRateLoss": ("{:.2f}", negative(by_rate(SHORT, FRESH, "replication"))),
    "FreshRateInterval": (SPAN, negative(by_rate_span(SHORT, FRESH, "replication"))),
    "Fresh": ("{:+.2f}", second(effect(FRESH))),
    "FreshInterval": (SPAN, second(effect_span(FRESH))),
    "NarrowRateChange": ("{:+.2f}", by_rate(NARROW, AT_PLAIN_RATE)),
    "NarrowRateInterval": (SPAN, by_rate_span(NARROW, AT_PLAIN_RATE)),
    "LongerLoss": ("{:.2f}", negative(longer("difference_pp"))),
    "LongEqual": ("{:+.2f}", second(effect(FULL_AT_PLAIN_RATE))),
    "LongEqualPairs": ("{}", second(effect(FULL_AT_PLAIN_RATE, "n_pairs"))),
    "LongEqualMost": ("{:.2f}", second(effect(FULL_AT_PLAIN_RATE, "high_pp"))),
    "LongEqualInterval": (SPAN, second(effect_span(FULL_AT_PLAIN_RATE))),
    "LongRateLoss": ("{:.2f}", negative(by_rate("se_resnet18", FULL_AT_PLAIN_RATE, "replication"))),
    "LongRateFit": ("{0[train_loss_difference]:.3f}", rates("se_resnet18", FULL_AT_PLAIN_RATE, "replication")),
    "LongRateInterval": (BARE, negative(by_rate_span("se_resnet18", FULL_AT_PLAIN_RATE, "replication"))),
    "NarrowLongRateLoss": ("{:.2f}", negative(by_rate(LONG_NARROW, LONG_AT_PLAIN_RATE))),
    "PlainLongLoss": ("{:.2f}", negative(by_rate(PLAIN_LONG_AT_SE_RATE, PLAIN_LONG))),
    "LongestEqual": ("{:.2f}", effect(LONGEST_AT_PLAIN_RATE)),
    "LongestEqualCrossed": (SPAN, ends(rates(LONGEST_AT_PLAIN_RATE, PLAIN_LONGEST), "crossed_{}")),
    "NarrowEqual": ("{:+.2f}", effect(AT_PLAIN_RATE)),
    "NarrowLongEqual": ("{:+.2f}", effect(LONG_AT_PLAIN_RATE)),
    # the skip path
    "LiteralLoss": ("{:.2f}", negative(effect(LITERAL))),
    "LongSkipLoss": ("{:.2f}", negative(second(effect(LITERAL)))),
    "HalfSkipLoss": ("{:.2f}", negative(effect(f"half_scale_skip_resnet18{QUARTER}"))),
    "HalfSkipInterval": (BARE, negative(effect_span(f"half_scale_skip_resnet18{QUARTER}"))),
    # the rows of table 1
    "RowSE": (ROW, row("se_resnet18")),
    "RowLonger": (ROW, row("se_resnet18", "replication")),
    "RowShort": (ROW, row(SHORT, "replication")),
    "RowNarrow": (ROW, row(NARROW)),
    "RowNarrowLonger": (ROW, row(LONG_NARROW)),
    "RowLongest": (ROW, row(LONGEST_NARROW)),
    "RowFullPlainRate": (ROW, row(FULL_AT_PLAIN_RATE)),
    "RowCounted": (ROW, row(FRESH, compared=counted)),
    "RowLongEqual": (ROW, row(FULL_AT_PLAIN_RATE, "replication")),
    "RowPlainRate": (ROW, row(AT_PLAIN_RATE)),
    "RowNarrowLongEqual": (ROW, row(LONG_AT_PLAIN_RATE)),
    "RowDecaying": (ROW, row(DECAYING, "gates")),
    "RowLongestEqual": (ROW, row(LONGEST_AT_PLAIN_RATE)),
    "RowSERate": (ROW, row(NARROW, compared=rates(NARROW, PLAIN_AT_SE_RATE))),
    "RowNarrowLongHigh": (ROW, row(LONG_NARROW, compared=rates(LONG_NARROW, PLAIN_LONG_AT_SE_RATE))),
    "RowFree": (ROW, row(FREE_GATES)),
    "RowAgain": (ROW, row(AGAIN, "gates")),
    "RowSkip": (ROW, row(LITERAL)),
    "RowLongSkip": (ROW, row(LITERAL, "replication")),
    # table 2, and what gates do
    **{
        f"Contrast{name}": (CELL, contrast_cell(number))
        for number, name in enumerate(("Image", "Optimisation", "Start", "Skip"))
    },
    "SmallestHolm": ("{:.1f}", lambda results: min(contrast(number, "p_holm")(results) for number in range(4))),
    "AgainstWide": (CELL, against("wide_resnet18")),
    "AgainstHalf": (CELL, against("half_scale_resnet18")),
    "Wide": (CELL, comparison(f"wide_resnet18{QUARTER}")),
    "StaticLead": ("{:.2f}", negative(loss_change("replication", STATIC, 1))),
    "FirstLead": ("{0[0]:.2f} to {0[2]:.2f}", early_leads),
    "LongStatic": (SPAN, second(effect_span(STATIC))),
    "LesionShuffled": ("{:.1f}", lesion("shuffled")),
    "LesionEqual": ("{:.1f}", lesion("shuffled", arm=FULL_AT_PLAIN_RATE)),
    "LesionLongEqual": ("{:.1f}", second(lesion("shuffled", arm=FULL_AT_PLAIN_RATE))),
    "ConstantPrimary": (SHARE, constant_blocks("se_resnet18")),
    "ConstantFull": (SHARE, constant_blocks(FULL_AT_PLAIN_RATE)),
    "ConstantLonger": (SHARE, constant_blocks("se_resnet18", "replication")),
    "ConstantEqual": (SHARE, constant_blocks(FULL_AT_PLAIN_RATE, "replication")),
    "AgainSwap": ("{:.1f}", of_gates(lesion("shuffled", arm=AGAIN))),
    "AgainDecaySwap": ("{:.1f}", of_gates(lesion("shuffled", arm=DECAYING))),
    "AgainGain": (CELL, of_gates(comparison(AGAIN))),
    "AgainStatic": (CELL, rates(AGAIN, FREE_STATIC, "gates")),
    "AgainChange": (CELL, rates(AGAIN, DECAYING, "gates")),
    "ConstantAgainDecay": (SHARE, constant_blocks(DECAYING, "gates")),
    # what it costs, and trends
    "PlainParameters": ("{:.2f}", parameters("resnet18")),
    "SEParameters": ("{:.2f}", parameters("se_resnet18")),
    "MoreTimeCPU": ("{:.0%}", more_time("amd-epyc")),
    "MoreTime": ("{:.0%}", more_time("nvidia-h100-80gb-hbm3")),
    "PlainLossShort": ("{:.2f}", of("replication", "arms", "resnet18__8_epochs", "train_loss_mean")),
    "PlainLossLonger": ("{:.2f}", of("replication", "arms", "resnet18", "train_loss_mean")),
    "WidthTrendInterval": (SPAN, trend_span()),
    "EpochTrendLoss": ("{:.2f}", negative(trend("estimate_pp", EPOCHS))),
    "EpochTrendInterval": (BARE, negative(trend_span(EPOCHS))),
    "EpochTrendP": ("{}", lambda results: p_text(trend("p_holm", EPOCHS)(results))),
}


def within(limit, *spans):
    """Function of the results: whether all these intervals lie within ± this limit, in points."""
    return lambda results: all(-limit < end < limit for span in spans for end in span(results))


def contrast_span(number):
    return ends(of("paper", "contrasts", number))


# functions of the results: differences of SE, with decay on its gates, after 16 epochs at equal rates
after_16_epochs = (
    second(effect(FULL_AT_PLAIN_RATE)),
    effect(LONG_AT_PLAIN_RATE),
    by_rate(LONG_NARROW, PLAIN_LONG_AT_SE_RATE),
    of_gates(effect(DECAYING)),
)

# (sentence as it stands in paper.tex, function of the results that must be true)
CLAIMS = [
    (
        "The interval includes zero, so neither is shown to be better.",
        includes_zero(primary("seed_interval_pp")),
    ),
    (
        r"for this training, even the smallest gain of \citeauthor{hu2020}\ is excluded.",
        lambda results: primary("excludes_published_gain")(results) and primary("complete")(results),
    ),
    (
        r"The crossed interval (\CrossedInterval) agrees",
        lambda results: 0 < primary("crossed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP,
    ),
    (
        "as do nine new pairs",
        lambda results: (
            second(effect(SHORT, "n_pairs"))(results) == 9
            and second(effect(SHORT, "low_pp"))(results) <= 0 < second(effect(SHORT, "high_pp"))(results)
            and second(effect(SHORT, "high_pp"))(results) < PUBLISHED_GAIN_PP
        ),
    ),
    (
        r"The Brier score shows no difference (\Brier, $p=\BrierP$), "
        "but equal accuracy within 0.25 points is not shown",
        lambda results: primary("tost_p")(results) >= 0.05 and includes_zero(primary("brier", "interval"))(results),
    ),
    (
        "The plain network got 0.2, and SE got 0.4, the highest,",
        lambda results: (
            results["winners"] == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}}
        ),
    ),
    (
        r"on CPU \FiveDifference, on H100 \GPUDifference",
        lambda results: (
            [(row["kind"][:3], row["n_pairs"]) for row in primary("by_kind")(results)] == [("AMD", 5), ("NVI", 5)]
        ),
    ),
    (
        r"\textbf{The answer:} no confirmatory comparison shows a gain.",
        lambda results: (
            max(primary("seed_interval_pp", 0)(results), longer("seed_interval_pp", 0)(results)) <= 0
            and all(effect(arm, "low_pp")(results) <= 0 for arm in (NARROW, LONGEST_NARROW, AT_PLAIN_RATE))
            and second(effect(SHORT, "low_pp"))(results) <= 0
        ),
    ),
    (
        "we fixed a confirmation on ten new seeds",
        second(lambda results: one("stages", "planned", stage="short_plain_rate")(results) == 10),
    ),
    (
        "which neither confirms nor refutes a gain. Two more, trained when this was known,",
        lambda results: (
            includes_zero(ends(counted))(results)
            and includes_zero(second(effect_span(FRESH)))(results)
            and second(effect(FRESH, "n_pairs"))(results) - counted(results)["n_pairs"] == 2
        ),
    ),
    (
        "SE is worse in all ten pairs",
        lambda results: (longer("difference_pp")(results) < 0, longer("sign_flip_p")(results)) == (True, 2**-9),
    ),
    (
        "so the higher rate costs",
        lambda results: (
            longer("complete")(results)
            and by_rate_span("se_resnet18", FULL_AT_PLAIN_RATE, "replication")(results)[1] < 0
            and by_rate_span(LONGEST_NARROW, LONGEST_AT_PLAIN_RATE)(results)[1] < 0
        ),
    ),
    (
        "It costs both narrow networks, too",
        lambda results: (
            by_rate_span(LONG_NARROW, LONG_AT_PLAIN_RATE)(results)[1] < 0
            and by_rate_span(PLAIN_LONG_AT_SE_RATE, PLAIN_LONG)(results)[1] < 0
            and includes_zero(effect_span(LONG_AT_PLAIN_RATE))(results)
        ),
    ),
    (
        "At equal rates, narrow estimates do not keep falling",
        lambda results: (
            effect(LONGEST_AT_PLAIN_RATE, "n_pairs")(results) == 5
            and includes_zero(ends(rates(LONGEST_AT_PLAIN_RATE, PLAIN_LONGEST), "crossed_{}"))(results)
            and effect(LONGEST_AT_PLAIN_RATE)(results) >= effect(AT_PLAIN_RATE)(results)
            and effect(AT_PLAIN_RATE)(results) > effect(LONG_AT_PLAIN_RATE)(results)
        ),
    ),
    (
        r"\textbf{Skip SE loses}",
        lambda results: all(
            comparison(LITERAL)(of(study)(results))["high_pp"] < 0
            and cell(f"{study}/tables/all_lesions.csv", "low_pp", arm=LITERAL, lesion="other image")(results) < 0
            for study in ("paper", "replication")
        ),
    ),
    (
        "in nine narrow pairs, a constant 0.5 costs",
        lambda results: (
            effect(f"half_scale_skip_resnet18{QUARTER}", "high_pp")(results) < 0
            and effect(f"half_scale_skip_resnet18{QUARTER}", "n_pairs")(results) == 9
            and effect(f"half_scale_skip_resnet18{QUARTER}")(results) < effect(f"{LITERAL}{QUARTER}")(results)
        ),
    ),
    (
        "In all six full-width sets, standard SE's calibration error is lower",
        lambda results: (
            max(calibration(*where, "high")(results) for where in FULL_WIDTH) < 0
            and len(FULL_WIDTH) == 6
            and calibration("paper", f"half_scale_resnet18{QUARTER}", "high")(results) < 0
            and primary("n_pairs")(results) == 10
        ),
    ),
    (
        r"No planned contrast in Table~\ref{tab:why} shows an effect; none excludes 0.2 points.",
        lambda results: (
            all(contrast(number, "p_holm")(results) >= 0.05 for number in range(4))
            and all(span(results)[0] <= 0 < 0.2 <= span(results)[1] for span in map(contrast_span, range(4)))
        ),
    ),
    (
        r"Verdicts say where the interval lies ($\pm$0.25: the plan's equality).",
        lambda results: (
            within(EQUIVALENCE_MARGIN_PP, contrast_span(0), ends(against("wide_resnet18")))(results)
            and all(includes_zero(contrast_span(number))(results) for number in range(4))
            and min(contrast(number, "high_pp")(results) for number in (1, 3)) > EQUIVALENCE_MARGIN_PP
            and contrast(2, "low_pp")(results) < -EQUIVALENCE_MARGIN_PP
            and effect(f"wide_resnet18{QUARTER}", "low_pp")(results) < 0
            and effect(f"wide_resnet18{QUARTER}", "high_pp")(results) > EQUIVALENCE_MARGIN_PP
            and against("half_scale_resnet18")(results)["low_pp"] > 0
        ),
    ),
    (
        "static gates show no gain (five pairs,",
        second(
            lambda results: (
                effect(STATIC, "n_pairs")(results) == 5
                and includes_zero(effect_span(STATIC))(results)
                and within(PUBLISHED_GAIN_PP, effect_span(STATIC))(results)
            )
        ),
    ),
    (
        "but neither lead lasts",
        lambda results: (
            all(
                loss_change(*where, 1, "high")(results) < 0 for where in (*EQUAL_AT_FULL_WIDTH, ("replication", STATIC))
            )
            and all(
                abs(within_study(study, effect(arm, "train_loss_difference"))(results)) <= 0.01
                for study, arm in EQUAL_AT_FULL_WIDTH
            )
            and second(effect(STATIC, "train_loss_difference"))(results) > 0
        ),
    ),
    (
        "But reliance is not benefit",
        second(
            lambda results: (
                lesion("shuffled", "low_pp", FULL_AT_PLAIN_RATE)(results)
                > effect(FULL_AT_PLAIN_RATE, "high_pp")(results)
            )
        ),
    ),
    (
        "training loss is lower than with decay or static gates. Accuracy hardly shows it. "
        "But more gates fade at full width",
        lambda results: (
            lesion("shuffled", "low_pp", AGAIN)(results["gates"]) > effect(AGAIN, "high_pp")(results["gates"])
            and constant_blocks(AGAIN, "gates")(results)[0] == 0
            and all(
                rates(AGAIN, other, "gates")(results)["train_loss_high"] < 0
                and includes_zero(ends(rates(AGAIN, other, "gates")))(results)
                for other in (DECAYING, FREE_STATIC)
            )
        ),
    ),
    (
        "Ten narrow pairs (16 epochs, equal rates) agreed",
        lambda results: (
            effect(FREE_GATES, "n_pairs")(results) == 10
            and effect(FREE_GATES, "low_pp")(results) > 0
            and rates(FREE_GATES, LONG_AT_PLAIN_RATE)(results)["low_pp"] > 0
            and constant_blocks(FREE_GATES)(results)[0] < constant_blocks(LONG_AT_PLAIN_RATE)(results)[0]
        ),
    ),
    (
        "no gain is confirmed or refuted.",
        lambda results: (
            of("gates", "primary", "complete")(results)
            and of("gates", "primary", "n_pairs")(results) == 10
            and includes_zero(of("gates", "primary", "seed_interval_pp"))(results)
            and includes_zero(ends(rates(AGAIN, DECAYING, "gates")))(results)
            and constant_blocks(AGAIN, "gates")(results)[0] < constant_blocks(DECAYING, "gates")(results)[0]
        ),
    ),
    (
        "It also raises SE's training loss",
        lambda results: (
            rates("se_resnet18", FULL_AT_PLAIN_RATE, "replication")(results)["train_loss_low"] > 0
            and effect(NARROW, "train_loss_low")(results) > 0
        ),
    ),
    (
        r"\textbf{The learning rate outweighed SE after sixteen epochs.}",
        lambda results: longer("crossed_interval_pp", 1)(results) < 0,
    ),
    (
        "one seed set the rates apart. Ten narrow pairs exclude the lead that tuning saw",
        lambda results: (
            abs(
                tuned("resnet18", 0.4)(results)
                + tuned("resnet18", 0.4, "std")(results) / np.sqrt(2)
                - tuned("se_resnet18", 0.4)(results)
            )
            < 0.1
            and by_rate_span(NARROW, AT_PLAIN_RATE)(results)[1] < tuning_lead(results)
            and effect(LONG_NARROW, "high_pp")(results) < 0
        ),
    ),
    (
        "At full width, 0.39 points are excluded at tuned rates, "
        "and at equal rates by the confirmation and after sixteen epochs.",
        lambda results: (
            longer("seed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP
            and max(counted(results)["high_pp"], second(effect(FULL_AT_PLAIN_RATE, "high_pp"))(results))
            < PUBLISHED_GAIN_PP
        ),
    ),
    (
        r"after eight epochs, all estimates are positive, but at full width the first (+\FullPlainGain) shrank with "
        r"new seeds (\Fresh); after sixteen, with gate decay, they are near zero, and after 32 positive. Of standard "
        r"SE's eleven intervals at equal rates in Table~\ref{tab:arms}, four lie above zero, crossed only one.",
        lambda results: (
            [sum(row[end] > 0 for row in at_equal_rates_of_table_1(results)) for end in ("low_pp", "crossed_low")]
            == [4, 1]
            and len(at_equal_rates_of_table_1(results)) == 11
            and min(effect(AT_PLAIN_RATE)(results), by_rate(NARROW, PLAIN_AT_SE_RATE)(results)) > 0
            and counted(results)["difference_pp"] > 0
            and 0 < second(effect(FRESH))(results) < effect(FULL_AT_PLAIN_RATE)(results)
            and effect(LONGEST_AT_PLAIN_RATE)(results) > 0
            and max(abs(find(results)) for find in after_16_epochs) < 0.1
            and effect_span(FULL_AT_PLAIN_RATE)(results)[0] > 0
        ),
    ),
    ("The trend over width is open", lambda results: trend("p_holm")(results) >= 0.05),
    (
        "The planned trend over epochs, narrow at tuned rates, falls",
        lambda results: trend("high_pp", EPOCHS)(results) < 0 and trend("p_holm", EPOCHS)(results) < 0.05,
    ),
    (
        "On the 50,000 official training images, we use SGD",
        lambda results: (results["data_source"], results["data_fingerprint"]) == ("cifar10", OFFICIAL_FINGERPRINT),
    ),
    (  # a copy without git's history cannot tell, and need not
        r"The plan, \path{report/preregistration.md}, was committed before the first primary run",
        lambda results: "preregistered after the first primary run" not in kinds_of_deviations(results),
    ),
]
