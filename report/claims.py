"""What paper.tex takes from outputs/: its numbers, and what must be true for its sentences to stand.

lib/paper.py reads both. When a claim no longer holds, the sentence is to be rewritten by hand, here and in paper.tex.
"""

import functools
import itertools

import numpy as np
import pandas as pd
from scipy import optimize, stats

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
LONGEST_AT_PLAIN_RATE = f"se_resnet18{QUARTER}_32_epochs_plain_rate"
STATIC = "static_gate_resnet18"
TOGETHER, RECALL = "paper/tables/together.csv", "tables/recall_by_class.csv"
EQUAL_AT_FULL_WIDTH = ("paper", FULL_AT_PLAIN_RATE), ("replication", FRESH), ("replication", FULL_AT_PLAIN_RATE)
# networks of SE or a fixed half that are calibrated better than the plain network
CALIBRATED = ("paper", "se_resnet18"), *EQUAL_AT_FULL_WIDTH, ("paper", f"half_scale_resnet18{QUARTER}")
# of the study gates, against resnet18
AGAIN, DECAYING = "free_se_resnet18", "se_resnet18"
PLAIN_AT_FULL_WIDTH = "resnet18__se_rate"
PLAIN_AT_BOTH_RATES = PLAIN_AT_FULL_WIDTH, "resnet18"  # after 8 epochs
FREE_GATES = f"se_resnet18{QUARTER}_16_epochs_free_gates"
PLAIN_LONGEST = f"resnet18{QUARTER}_32_epochs"
PLAIN_LONG, PLAIN_LONG_AT_SE_RATE = (f"resnet18{QUARTER}_16_epochs{rate}" for rate in ("", "_se_rate"))
NARROW, PLAIN_AT_SE_RATE = f"se_resnet18{QUARTER}", f"resnet18{QUARTER}_se_rate"
REPEATED = f"se_resnet18{QUARTER}_se_rate"  # both networks at 0.4 again, with new seeds
# at 0.4 with more seeds
MORE, STATIC_MORE, PLAIN_MORE = (f"{each}resnet18{QUARTER}_se_rate_static" for each in ("se_", "static_gate_", ""))
H100 = "nvidia-h100-80gb-hbm3"  # folder of its benchmark
CAT_AND_DOG = ("cat", "dog"), ("dog", "cat")
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MEAN, WIDTH, EPOCHS = "test_accuracy_mean", "full − quarter width", "slope over log2(epochs)"


def all_runs(column):
    """Function of the results: how many runs are `planned` or `finished` in all."""
    return lambda results: sum(row[column] for row in results["stages"])


def kinds_of_deviations(results):
    return {row["deviation"] for row in results["deviations"]}


def in_words(function):
    """Function of the results: a number up to ten as a word."""
    return lambda results: WORDS[function(results)]


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


def parameters(arm):
    """Function of the results: millions of parameters of an arm."""
    return lambda results: results["arms"][arm]["parameters"] / 1e6


def lesion(kind, column="drop_pp", arm="se_resnet18"):
    """Function of the results: what a lesion of all gates costs."""
    return one("lesion_table", column, arm=arm, lesion=kind, block="all")


def costly_blocks(results):
    """Numbers of the blocks of primary networks in which swapped gates alone cost points, by an interval above 0."""
    rows = [row for row in results["lesion_table"] if (row["arm"], row["lesion"]) == ("se_resnet18", "shuffled")]
    return [row["block"][-1] for row in rows if row["block"] != "all" and (row["low_pp"] or 0) > 0]


def swap_cost(arm):
    """Function of the results: what swapped gates cost an arm of the study gates, in points."""
    return of_gates(lesion("shuffled", arm=arm))


def constant_blocks(arm, study="paper", numbers="12345678"):
    """Function of the results: how many blocks of all runs have the same gates for every image, and of how many."""

    def find(results):
        blocks = [gates for gates in of(study)(results)["gate_table"] if gates["arm"] == arm]
        blocks = [gates for gates in blocks if gates["block"][-1] in numbers]
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


def recall(study, name, column="difference_pp"):
    """Function of the results: a column of the comparison of a class's recall with the baseline's."""
    return cell(f"{study}/{RECALL}", column, **{"class": name})


def calibration(study, arm, column="change"):
    """Function of the results: a column of the comparison of an arm's calibration error with its baseline's."""
    return cell(f"{study}/tables/calibration_by_arm.csv", column, arm=arm)


def rates(*path):
    """Function of the results: the comparison, a mapping, of two networks at their rates."""
    return compared("rates", *path)


def against(control):
    """Function of the results: the comparison, a mapping, of narrow SE at 0.2 with a control."""
    return compared("explanations", AT_PLAIN_RATE, control + QUARTER)


def fitted_less(results):
    """Comparisons, mappings, of one network at both rates: full width after 8 epochs, SE first, and narrow after 16."""
    paths = ("se_resnet18", FULL_AT_PLAIN_RATE), (SHORT, FRESH, "replication"), PLAIN_AT_BOTH_RATES
    paths += (LONG_NARROW, LONG_AT_PLAIN_RATE), (PLAIN_LONG_AT_SE_RATE, PLAIN_LONG)
    return [rates(*path)(results) for path in paths]


def loss_rises(results):
    """By how much the higher rate raises the final training loss in these comparisons, in nats."""
    return [row["train_loss_difference"] for row in fitted_less(results)]


def counted(results):
    """The comparison, a mapping, of the confirmation, over the seeds that its plan counts."""
    return compared("second_study", FRESH, "resnet18__8_epochs")(results)


def by_rate(*path):
    """Function of the results: the difference of that comparison, in points."""
    return lambda results: rates(*path)(results)["difference_pp"]


def by_rate_span(*path):
    """Function of the results: the ends of its interval over seeds."""
    return ends(rates(*path))


def exploring_at_equal_rates(results):
    """Comparisons, mappings, of SE and the plain network at equal rates that no plan had fixed as a test."""
    arms = [
        (FULL_AT_PLAIN_RATE, "resnet18"),
        ("se_resnet18", PLAIN_AT_FULL_WIDTH),
        (NARROW, PLAIN_AT_SE_RATE),
        (LONG_AT_PLAIN_RATE, PLAIN_LONG),
    ]
    arms += [(AT_PLAIN_RATE, f"resnet18{QUARTER}"), (MORE, PLAIN_MORE)]
    arms += [(LONGEST_AT_PLAIN_RATE, PLAIN_LONGEST), (FREE_GATES, PLAIN_LONG), (LONG_NARROW, PLAIN_LONG_AT_SE_RATE)]
    again = rates(FULL_AT_PLAIN_RATE, "resnet18", "replication"), compared("whole", DECAYING, "resnet18", "gates")
    return [find(results) for find in (*itertools.starmap(rates, arms), *again)]


def confirmations(results):
    """Comparisons, mappings, that repeated an exploratory gain with new seeds, as planned."""
    return [counted(results), of_gates(comparison(AGAIN))(results), comparison(REPEATED)(results)]


def sets_at_equal_rates(epochs):
    """Function of the results: least and most that SE with gate decay changes after so many epochs, of all sets."""

    def find(results):
        rows = [row for row in exploring_at_equal_rates(results) if row["arm"] != FREE_GATES]
        rows += [counted(results), comparison(REPEATED)(results)]
        found = sorted(row["difference_pp"] for row in rows if row["epochs"] == epochs)
        return found[0], found[-1]

    return find


def share_of_last_test(results):
    """What part of the mean of the three tests comes from that at the rate of SE."""
    rows = [row_of(TOGETHER, comparison=name) for name in ("rate of SE", "the three tests")]
    last, whole = (row["n_pairs"] * row["difference_pp"] for row in rows)
    return last / whole


# what these had found before, in the same order
EXPLORED = (rates(FULL_AT_PLAIN_RATE, "resnet18"), rates(FREE_GATES, PLAIN_LONG), rates(NARROW, PLAIN_AT_SE_RATE))


def leads_on_static_gates(results):
    """Comparisons, mappings, of SE with static gates: narrow, again at 0.4, at full width, and without gate decay."""
    others = compared("explanations", MORE, STATIC_MORE), rates(AGAIN, "free_static_gate_resnet18", "gates")
    others += (compared("explanations", FULL_AT_PLAIN_RATE, STATIC, "replication"),)
    return [of("paper", "contrasts", 0)(results), *(find(results) for find in others)]


def largest_confusion(study):
    """By how many of 1,000 images the confusion of cats and dogs changes at most, at tuned rates."""
    rows = [row_of(f"{study}/tables/confusion_change.csv", true=one)[other] for one, other in CAT_AND_DOG]
    return round(max(map(abs, rows)))


def loss_change(study, arm, epoch, column="difference"):
    """Function of the results: by how much an arm's training loss after an epoch is above its baseline's, in nats."""
    return cell(f"{study}/tables/loss_changes.csv", column, arm=arm, epoch=epoch)


def early_leads(results):
    """By how much SE's training loss is lower after one epoch at equal rates and full width, in three sets of pairs."""
    return sorted(-loss_change(*where, 1)(results) for where in EQUAL_AT_FULL_WIDTH)


def tuned(arm, rate, column="mean"):
    return cell("paper/tables/tuning.csv", column, tuned=arm, learning_rate=rate)


def plain_tuned(sign):
    """Function of the results: the accuracy of the worse (-1) or better (1) of the two tuning runs of plain at 0.4."""
    return lambda results: tuned("resnet18", 0.4)(results) + sign * tuned("resnet18", 0.4, "std")(results) / np.sqrt(2)


def tuning_lead(results):
    """By how many points SE at 0.4 led over 0.2 in the tuning."""
    return tuned("se_resnet18", 0.4)(results) - tuned("se_resnet18", 0.2)(results)


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


def next_hours(results):
    """The hours in which an H100 trains 200 epochs of plain, SE and SE without gate decay, 20 seeds at two rates."""
    speeds = read_json(ROOT / "outputs" / "benchmark" / H100 / "results.json")["speeds"]
    seconds = 200 * 50_000 / speeds["ours"]["images_per_second"]  # of the plain network
    return 40 * seconds * (1 + 2 * (1 + more_time(H100)(results))) / 3600


def gain_of_more_epochs(results):
    """What the plain network gains at full width if it trains for 16 epochs and not eight, in points."""
    longer, shorter = (of("replication", "arms", arm, MEAN)(results) for arm in ("resnet18", "resnet18__8_epochs"))
    return 100 * (longer - shorter)


def gain_of_equal_time(machine):
    """Function of the results: what plain would gain by the time that SE costs, if doublings gain alike, in points."""
    return lambda results: gain_of_more_epochs(results) * np.log2(1 + more_time(machine)(results))


def detectable(n, power=0.8):
    """Function of the results: the gain that n pairs detect with this power, at the SD of the primary differences."""

    def find(results):
        error, limit = primary("sd_difference_pp")(results) / np.sqrt(n), stats.t.ppf(0.975, n - 1)
        return optimize.brentq(lambda gain: stats.nct.sf(limit, n - 1, gain / error) - power, 0, 10 * error)

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
    "Horse": ("{:+.1f}", recall("paper", "horse")),
    "Cat": ("{:+.1f}", recall("replication", "cat")),
    "MostErrors": ("{:.1%}", lambda results: -np.expm1(effect("se_resnet18", "log_error_ratio_low")(results))),
    "Calibration": ("{:.3f}", negative(calibration("paper", "se_resnet18"))),
    "CalibrationEqual": ("{:.3f}", negative(calibration("paper", FULL_AT_PLAIN_RATE))),
    "TostP": ("{:.3f}", primary("tost_p")),
    "PlainAccuracy": ("{:.2f}", percent(mean_accuracy("resnet18"))),
    "SEAccuracy": ("{:.2f}", percent(mean_accuracy("se_resnet18"))),
    "DifferenceSD": ("{:.2f}", primary("sd_difference_pp")),
    "UnpairedSD": ("{:.2f}", unpaired_sd),
    # equal rates, and what the higher rate costs
    "PlainTunedLow": ("{:.1f}", plain_tuned(-1)),
    "PlainTunedHigh": ("{:.1f}", plain_tuned(1)),
    "TunedGain": ("{:.1f}", tuning_lead),
    "FullPlainPairs": ("{}", in_words(effect(FULL_AT_PLAIN_RATE, "n_pairs"))),
    "FullPlainGain": ("{:.2f}", effect(FULL_AT_PLAIN_RATE)),
    "Counted": ("{0[difference_pp]:+.2f}", counted),
    "CountedPairs": ("{}", in_words(lambda results: counted(results)["n_pairs"])),
    "CountedInterval": (SPAN, ends(counted)),
    "Fresh": ("{:+.2f}", second(effect(FRESH))),
    "NarrowRate": ("{:+.2f}", by_rate(NARROW, AT_PLAIN_RATE)),
    "LongerLoss": ("{:.2f}", negative(longer("difference_pp"))),
    "LongEqual": ("{:+.2f}", second(effect(FULL_AT_PLAIN_RATE))),
    "FullHigh": ("{:+.2f}", by_rate("se_resnet18", PLAIN_AT_FULL_WIDTH)),
    "LossRisesSE": ("{0[0]:.3f} to {0[1]:.3f}", lambda results: sorted(loss_rises(results)[:2])),
    "LossRisePlain": ("{:.3f}", lambda results: loss_rises(results)[2]),
    "NarrowPlainLoss": ("{:.2f}", negative(by_rate(PLAIN_LONG_AT_SE_RATE, PLAIN_LONG))),
    "LongRateLoss": ("{:.2f}", negative(by_rate("se_resnet18", FULL_AT_PLAIN_RATE, "replication"))),
    "NarrowHigh": ("{:.2f}", by_rate(NARROW, PLAIN_AT_SE_RATE)),
    "AgainHolm": ("{:.2f}", cell(TOGETHER, "p_holm", comparison="rate of SE")),
    "MoreGain": ("{:+.2f}", effect(MORE)),
    "HighAgain": ("{:+.2f}", effect(REPEATED)),
    "HighAgainInterval": (SPAN, effect_span(REPEATED)),
    "TestPairs": ("{}", cell(TOGETHER, "n_pairs", comparison="the three tests")),
    "Tests": (CELL, lambda results: row_of(TOGETHER, comparison="the three tests")),
    "ShareOfLast": ("{:.0%}", share_of_last_test),
    "FreshHigh": ("{:.2f}", second(effect(FRESH, "high_pp"))),
    "EpochTrendP": ("{:.3f}", trend("p_holm", EPOCHS)),
    "AllHigh": (CELL, lambda results: row_of(TOGETHER, comparison="rate of SE, all")),
    # the skip path
    "NarrowSkip": ("{:+.2f}", effect(f"{LITERAL}{QUARTER}")),
    "LiteralLoss": ("{:.2f}", negative(effect(LITERAL))),
    "LongSkipLoss": ("{:.2f}", negative(second(effect(LITERAL)))),
    "HalfSkipLoss": ("{:.2f}", negative(effect(f"half_scale_skip_resnet18{QUARTER}"))),
    # the rows of table 1
    "RowSE": (ROW, row("se_resnet18")),
    "RowLonger": (ROW, row("se_resnet18", "replication")),
    "RowFullPlainRate": (ROW, row(FULL_AT_PLAIN_RATE)),
    "RowCounted": (ROW, row(FRESH, compared=counted)),
    "RowLongEqual": (ROW, row(FULL_AT_PLAIN_RATE, "replication")),
    "RowPlainRate": (ROW, row(AT_PLAIN_RATE)),
    "RowNarrowLongEqual": (ROW, row(LONG_AT_PLAIN_RATE)),
    "RowLongestEqual": (ROW, row(LONGEST_AT_PLAIN_RATE)),
    "RowSERate": (ROW, row(NARROW, compared=rates(NARROW, PLAIN_AT_SE_RATE))),
    "RowFullHigh": (ROW, row("se_resnet18", compared=rates("se_resnet18", PLAIN_AT_FULL_WIDTH))),
    "RowNarrowLongHigh": (ROW, row(LONG_NARROW, compared=rates(LONG_NARROW, PLAIN_LONG_AT_SE_RATE))),
    "RowHighAgain": (ROW, row(REPEATED)),
    "RowMore": (ROW, row(MORE)),
    "RowDecaying": (ROW, row(DECAYING, "gates")),
    "RowFree": (ROW, row(FREE_GATES)),
    "RowAgain": (ROW, row(AGAIN, "gates")),
    "RowSkip": (ROW, row(LITERAL)),
    "RowLongSkip": (ROW, row(LITERAL, "replication")),
    **{
        f"Rate{name}": (CELL + ", {0[n_pairs]} pairs", rates(*both))
        for name, both in {
            "SE": ("se_resnet18", FULL_AT_PLAIN_RATE),
            "Plain": PLAIN_AT_BOTH_RATES,
            "FreshSE": (SHORT, FRESH, "replication"),
            "LongSE": ("se_resnet18", FULL_AT_PLAIN_RATE, "replication"),
            "LongestSE": (f"se_resnet18{QUARTER}_32_epochs", LONGEST_AT_PLAIN_RATE),
            "NarrowSE": (NARROW, AT_PLAIN_RATE),
            "NarrowPlain": (PLAIN_AT_SE_RATE, f"resnet18{QUARTER}"),
            "NarrowLongSE": (LONG_NARROW, LONG_AT_PLAIN_RATE),
            "NarrowLongPlain": (PLAIN_LONG_AT_SE_RATE, PLAIN_LONG),
        }.items()
    },
    # table 2, and what gates do
    **{
        f"Contrast{name}": (CELL, contrast_cell(number))
        for number, name in enumerate(("Image", "Optimisation", "Start", "Skip"))
    },
    "AgainstHalf": (CELL, against("half_scale_resnet18")),
    "StaticHigh": (CELL, compared("explanations", MORE, STATIC_MORE)),
    "StaticPlainHigh": (CELL, compared("explanations", STATIC_MORE, PLAIN_MORE)),
    "StaticLead": ("{:.2f}", negative(loss_change("replication", STATIC, 1))),
    "FirstLead": ("{0[0]:.2f} to {0[2]:.2f}", early_leads),
    "LesionShuffled": ("{:.1f}", lesion("shuffled")),
    "LesionFixed": ("{:.1f}", lesion("mean")),
    "LongSwapFull": ("{:.1f}", second(lesion("shuffled", arm=FULL_AT_PLAIN_RATE))),
    "LongSwap": ("{:.1f}", lesion("shuffled", arm=LONG_NARROW)),
    "LongSwapEqual": ("{:.1f}", lesion("shuffled", arm=LONG_AT_PLAIN_RATE)),
    "ConstantPrimary": (SHARE, constant_blocks("se_resnet18")),
    "ConstantFull": (SHARE, constant_blocks(FULL_AT_PLAIN_RATE)),
    "ConstantEqual": (SHARE, constant_blocks(FULL_AT_PLAIN_RATE, "replication")),
    "FreeChange": ("{:.2f}", by_rate(FREE_GATES, LONG_AT_PLAIN_RATE)),
    "AgainChange": (CELL, rates(AGAIN, DECAYING, "gates")),
    "AgainSwap": ("{:.1f}", swap_cost(AGAIN)),
    "AgainDecaySwap": ("{:.1f}", swap_cost(DECAYING)),
    "FreeGain": ("{:.2f}", effect(FREE_GATES)),
    "AgainGainOnly": ("{:+.2f}", of_gates(effect(AGAIN))),
    # what it costs, and trends
    "PlainParameters": ("{:.2f}", parameters("resnet18")),
    "SEParameters": ("{:.2f}", parameters("se_resnet18")),
    "MoreTimeCPU": ("{:.0%}", more_time("amd-epyc")),
    "TimeGain": ("{:.1f}", gain_of_equal_time(H100)),
    "TimeGainCPU": ("{:.1f}", gain_of_equal_time("amd-epyc")),
    "LongPlain": ("{:.1f}", second(percent(lambda results: results["arms"]["resnet18"][MEAN]))),
    "NextGain": ("{:.2f}", detectable(20)),
    "NextHours": ("{:.0f}", next_hours),
    "MoreTime": ("{:.0%}", more_time(H100)),
    "EpochTrendLoss": ("{:.2f}", negative(trend("estimate_pp", EPOCHS))),
    "SetsOfEight": (SPAN, sets_at_equal_rates(8)),
    "SetsOfSixteen": (SPAN, sets_at_equal_rates(16)),
    "LongestEqual": ("{:+.2f}", effect(LONGEST_AT_PLAIN_RATE)),
    "NarrowPlainSD": ("{:.2f}", percent(effect(AT_PLAIN_RATE, "sd_baseline"))),
    "AgainstWide": (CELL, against("wide_resnet18")),
    "FullStatic": (
        "{0[difference_pp]:+.2f}, {0[low_pp]:+.2f} to {0[high_pp]:+.2f}",
        compared("explanations", FULL_AT_PLAIN_RATE, STATIC, "replication"),
    ),
    "WidePlain": (CELL, comparison(f"wide_resnet18{QUARTER}")),
    "NarrowGain": ("{:.2f}", effect(AT_PLAIN_RATE)),
    "WideGain": ("{:.2f}", effect(f"wide_resnet18{QUARTER}")),
    "StaticGain": ("{:.2f}", contrast(1, "difference_pp")),
    "HalfLoss": ("{:+.2f}", contrast(2, "difference_pp")),
}


def contrast_span(number):
    return ends(of("paper", "contrasts", number))


# (sentence as it stands in paper.tex, function of the results that must be true)
CLAIMS = [
    (
        "The interval includes zero, so neither is shown to be better.",
        includes_zero(primary("seed_interval_pp")),
    ),
    (
        r"for this training, the smallest gain of \citeauthor{hu2020}\ is excluded.",
        lambda results: primary("excludes_published_gain")(results) and primary("complete")(results),
    ),
    (
        "The crossed interval,",
        lambda results: 0 < primary("crossed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP,
    ),
    (
        "nine new pairs",
        lambda results: (
            primary("sign_flip_p")(results) >= 0.05
            and second(effect(SHORT, "n_pairs"))(results) == 9
            and second(effect(SHORT, "low_pp"))(results) <= 0 < second(effect(SHORT, "high_pp"))(results)
            and second(effect(SHORT, "high_pp"))(results) < PUBLISHED_GAIN_PP
        ),
    ),
    (
        "and both machines agree.",
        lambda results: (
            [(row["kind"][:3], row["n_pairs"]) for row in primary("by_kind")(results)] == [("AMD", 5), ("NVI", 5)]
            and all(
                row["seed_interval_pp"][0] <= 0 <= row["seed_interval_pp"][1] for row in primary("by_kind")(results)
            )
        ),
    ),
    (
        r"Brier score and equality within 0.25 ($p=\TostP$) are open.",
        lambda results: primary("tost_p")(results) >= 0.05 and includes_zero(primary("brier", "interval"))(results),
    ),
    (
        "The plain network got 0.2. SE got the highest rate, 0.4,",
        lambda results: (
            results["winners"] == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}}
        ),
    ),
    (
        "To confirm it, we planned ten new pairs, or as many",
        second(lambda results: one("stages", "planned", stage="short_plain_rate")(results) == 10),
    ),
    (
        "so a gain is neither confirmed nor refuted (with two later:",
        lambda results: (
            includes_zero(ends(counted))(results)
            and includes_zero(second(effect_span(FRESH)))(results)
            and second(effect(FRESH, "n_pairs"))(results) - counted(results)["n_pairs"] == 2
        ),
    ),
    (
        "SE loses in all ten pairs",
        lambda results: (longer("difference_pp")(results) < 0, longer("sign_flip_p")(results)) == (True, 2**-9),
    ),
    (
        r"The higher rate then costs SE \LongRateLoss{} and narrow plain networks \NarrowPlainLoss{}",
        lambda results: (
            longer("complete")(results)
            and by_rate_span("se_resnet18", FULL_AT_PLAIN_RATE, "replication")(results)[1] < 0
            and by_rate_span(PLAIN_LONG_AT_SE_RATE, PLAIN_LONG)(results)[1] < 0
            and includes_zero(effect_span(LONG_AT_PLAIN_RATE))(results)
        ),
    ),
    (
        "and in narrow networks, after sixteen, by 0.03 for both.",
        lambda results: (
            {round(rise, 2) for rise in loss_rises(results)[3:]} == {0.03}
            and effect(LONG_NARROW, "train_loss_difference")(results) > 0.02
        ),
    ),
    (
        "At 0.4, both networks fit worse:",
        lambda results: (
            min(row["train_loss_low"] for row in fitted_less(results)) > 0
            and effect("se_resnet18", "train_loss_low")(results) > 0
        ),
    ),
    (
        "nor with both at 0.4",
        lambda results: (
            includes_zero(by_rate_span("se_resnet18", PLAIN_AT_FULL_WIDTH))(results)
            and rates("se_resnet18", PLAIN_AT_FULL_WIDTH)(results)["n_pairs"]
            == one("stages", "finished", stage="full_se_rate")(results)
            == 4
        ),
    ),
    ("and no trend by width.", lambda results: trend("p_holm")(results) >= 0.05),
    (
        "In narrow networks, the tuned difference falls by",
        lambda results: trend("high_pp", EPOCHS)(results) < 0 and trend("p_holm", EPOCHS)(results) < 0.05,
    ),
    (
        "No such fall shows at 0.2,",
        lambda results: (
            effect(LONGEST_AT_PLAIN_RATE, "n_pairs")(results) == 5
            and effect(LONGEST_AT_PLAIN_RATE)(results) >= effect(AT_PLAIN_RATE)(results)
            and effect(AT_PLAIN_RATE)(results) > effect(LONG_AT_PLAIN_RATE)(results)
        ),
    ),
    (
        "Ten new pairs pass the planned test:",
        lambda results: (
            min(by_rate_span(NARROW, PLAIN_AT_SE_RATE)(results)[0], effect(REPEATED, "low_pp")(results)) > 0
            and rates(REPEATED, PLAIN_AT_SE_RATE)(results)["crossed_low"] > 0  # "crossed alike"
            and effect(REPEATED, "n_pairs")(results) == one("stages", "planned", stage="se_rate_again")(results) // 2
        ),
    ),
    (
        r"No planned contrast in Table~\ref{tab:why} shows an effect, and no interval excludes 0.2 points.",
        lambda results: (
            all(contrast(number, "p_holm")(results) >= 0.05 for number in range(4))
            and all(span(results)[0] <= 0 < 0.2 <= span(results)[1] for span in map(contrast_span, range(4)))
        ),
    ),
    (  # and its verdicts
        "Explanations (narrow, eight epochs; ten pairs, eight at 0.4).",
        lambda results: (
            [contrast(number, "n_pairs")(results) for number in range(4)] == [10] * 4
            and effect(MORE, "n_pairs")(results) == 8
            and includes_zero(ends(compared("explanations", MORE, STATIC_MORE)))(results)
            and includes_zero(contrast_span(0))(results)
            and min(contrast(number, "high_pp")(results) for number in (1, 3)) > EQUIVALENCE_MARGIN_PP
            and includes_zero(effect_span(f"wide_resnet18{QUARTER}"))(results)
            and contrast(2, "low_pp")(results) < -EQUIVALENCE_MARGIN_PP
            and against("half_scale_resnet18")(results)["low_pp"] > 0
        ),
    ),
    (
        "Neither lasts.",
        lambda results: (
            all(
                loss_change(*where, 1, "high")(results) < 0 for where in (*EQUAL_AT_FULL_WIDTH, ("replication", STATIC))
            )
            and all(
                abs(within_study(study, effect(arm, "train_loss_difference"))(results)) <= 0.01
                for study, arm in EQUAL_AT_FULL_WIDTH
            )
            and second(effect(STATIC, "train_loss_difference"))(results) > 0
            and loss_change("replication", STATIC, 1)(results) < -early_leads(results)[-1] / 2
        ),
    ),
    (
        "In new narrow pairs, none fades; swaps cost",
        lambda results: (
            constant_blocks(AGAIN, "gates")(results)[0] == 0 < constant_blocks(DECAYING, "gates")(results)[0]
            and swap_cost(AGAIN)(results) > swap_cost(DECAYING)(results)
        ),
    ),
    (
        r"Their lead fell from +\FreeChange{} to \AgainChange.",
        lambda results: (
            rates(FREE_GATES, LONG_AT_PLAIN_RATE)(results)["low_pp"] > 0
            and of("gates", "primary", "complete")(results)
            and of("gates", "primary", "n_pairs")(results) == 10
            and of("gates", "primary", "seed_interval_pp", 0)(results) <= 0
        ),
    ),
    (
        "), all in blocks 4 to 8.",
        lambda results: (
            not any(
                constant_blocks(arm, study, "123")(results)[0]
                for study, arm in (
                    ("paper", "se_resnet18"),
                    ("paper", FULL_AT_PLAIN_RATE),
                    ("replication", FULL_AT_PLAIN_RATE),
                )
            )
        ),
    ),
    (
        "singly, only 1 to 3 show a cost",
        lambda results: costly_blocks(results) == ["1", "2", "3"],
    ),
    (
        r"untuned SE loses \LiteralLoss{} points, and \LongSkipLoss{} after sixteen epochs (narrow:",
        lambda results: all(
            comparison(LITERAL)(of(study)(results))["high_pp"] < 0 for study in ("paper", "replication")
        ),
    ),
    (
        "Here, swaps of its gates show no cost,",
        lambda results: all(
            lesion("shuffled", "low_pp", LITERAL)(of(study)(results)) <= 0 for study in ("paper", "replication")
        ),
    ),
    (
        r"a fixed half harms narrow networks (by \HalfSkipLoss)",
        lambda results: (
            effect(f"half_scale_skip_resnet18{QUARTER}", "high_pp")(results) < 0
            and effect(f"half_scale_skip_resnet18{QUARTER}")(results) < effect(f"{LITERAL}{QUARTER}")(results)
        ),
    ),
    (
        "At full width, intervals of tuned SE and, in new pairs, of SE at 0.2 exclude 0.39,",
        lambda results: longer("seed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP,
    ),
    (
        r"and at equal rates, a small one is possible (new pairs at 0.2: up to \FreshHigh).",
        lambda results: (
            max(second(effect(arm, "high_pp"))(results) for arm in (FRESH, FULL_AT_PLAIN_RATE)) < PUBLISHED_GAIN_PP
            and counted(results)["high_pp"] < PUBLISHED_GAIN_PP
            and second(effect(FRESH, "n_pairs"))(results) == 9
        ),
    ),
    (
        r"in which plain might gain \TimeGain{} (interpolated, from eight).",
        lambda results: round(gain_of_more_epochs(results)) == 3,
    ),
    (
        "After sixteen epochs, no gain shows.",
        lambda results: (
            includes_zero(effect_span(NARROW))(results)
            and includes_zero(by_rate_span(LONG_NARROW, PLAIN_LONG_AT_SE_RATE))(results)
        ),
    ),
    (
        r"At tuned rates, recall falls (Holm, unplanned) barely on horses after eight epochs (\Horse) and on cats "
        r"after sixteen (\Cat; all ten classes fall). At equal rates, none is shown to change, so this may be rate or "
        "chance.",
        lambda results: (
            max(map(largest_confusion, ("paper", "replication"))) <= 7
            and min(table(f"{study}/{RECALL}")["equal_rates_p_holm"].min() for study in ("paper", "replication"))
            >= 0.05
            and recall("replication", "cat", "p_holm")(results) < 0.02
            and table(f"replication/{RECALL}")["difference_pp"].max() < 0
            and 0.02 < recall("paper", "horse", "p_holm")(results) < 0.05
            and recall("replication", "cat", "baseline")(results) == table(f"replication/{RECALL}")["baseline"].min()
            and primary("n_pairs")(results) == 10
        ),
    ),
    (
        r"and +\NarrowHigh{} at 0.4 became \HighAgain.",
        lambda results: (
            [
                new["difference_pp"] < old(results)["difference_pp"]
                for new, old in zip(confirmations(results), EXPLORED, strict=True)
            ]
            == [True, True, False]
            == [row["low_pp"] <= 0 for row in confirmations(results)]
            and row_of(TOGETHER, comparison="the three tests")["low_pp"] > 0
        ),
    ),
    (
        "SE's cost of 0.4 grows with length, so a rate tuned for eight epochs misleads after sixteen.",
        lambda results: (
            all(
                by_rate(*late)(results) < by_rate(*early)(results)
                for late, early in (
                    (("se_resnet18", FULL_AT_PLAIN_RATE, "replication"), ("se_resnet18", FULL_AT_PLAIN_RATE)),
                    ((LONG_NARROW, LONG_AT_PLAIN_RATE), (NARROW, AT_PLAIN_RATE)),
                    ((PLAIN_LONG_AT_SE_RATE, PLAIN_LONG), (PLAIN_AT_SE_RATE, f"resnet18{QUARTER}")),
                )
            )
            and longer("crossed_interval_pp", 1)(results) < 0
            and max(map(abs, second(effect_span(FULL_AT_PLAIN_RATE))(results)))
            < negative(by_rate_span("se_resnet18", FULL_AT_PLAIN_RATE, "replication"))(results)[0]
        ),
    ),
    (
        r"In ten later pairs, 0.4 changes SE by \NarrowRate, not by +\TunedGain",
        lambda results: (
            abs(plain_tuned(1)(results) - tuned("se_resnet18", 0.4)(results)) < 0.1
            and tuned("resnet18", 0.2)(results) < tuned("se_resnet18", 0.4)(results)
            and by_rate_span(NARROW, AT_PLAIN_RATE)(results)[1] < tuning_lead(results)
            and effect(LONG_NARROW, "high_pp")(results) < 0
        ),
    ),
    (
        r"Of SE's eleven exploratory comparisons at equal rates (Table~\ref{tab:arms}), four are above zero",
        lambda results: (
            [sum(row[end] > 0 for row in exploring_at_equal_rates(results)) for end in ("low_pp", "crossed_low")]
            == [4, 1]
            and len(exploring_at_equal_rates(results)) == 11
            and exploring_at_equal_rates(results)[0]["crossed_low"] > 0  # the first is that of full width
            and effect(FULL_AT_PLAIN_RATE, "low_pp")(results) > 0
        ),
    ),
    (
        "four SDs, if deeper networks vary like ours.",
        lambda results: primary("sd_difference_pp")(results) < 0.25,
    ),
    (
        "yet none shows a gain.",
        lambda results: (
            lesion("shuffled", arm=LONG_NARROW)(results) > lesion("shuffled", arm=LONG_AT_PLAIN_RATE)(results) > 0
            and includes_zero(by_rate_span(LONG_NARROW, PLAIN_LONG_AT_SE_RATE))(results)
        ),
    ),
    (
        "So neither size nor the image is ruled out.",
        lambda results: (
            effect(f"wide_resnet18{QUARTER}")(results) > effect(AT_PLAIN_RATE)(results) / 2
            and contrast(2, "difference_pp")(results) < 0 < contrast(1, "difference_pp")(results)
        ),
    ),
    (
        "narrow, so does a fixed half.",
        lambda results: (
            max(calibration(*where, "high")(results) for where in CALIBRATED) < 0
            and [round(calibration(*where)(results), 3) for where in EQUAL_AT_FULL_WIDTH] == [-0.003] * 3
            and comparison(f"half_scale_resnet18{QUARTER}")(results)["n_pairs"] >= 9
        ),
    ),
    (
        "static gates by 0.05 to 0.09 in four sets of pairs (full width:",
        lambda results: (
            all(row["low_pp"] <= 0 for row in leads_on_static_gates(results))
            and sorted(round(row["difference_pp"], 2) for row in leads_on_static_gates(results))[::3] == [0.05, 0.09]
        ),
    ),
    (
        "Depth and length stay open.",
        lambda results: (
            second(effect(FRESH))(results) > second(effect(FULL_AT_PLAIN_RATE))(results)
            and effect(LONGEST_AT_PLAIN_RATE)(results) > effect(LONG_AT_PLAIN_RATE)(results)
            and effect(LONGEST_AT_PLAIN_RATE)(results) <= effect(AT_PLAIN_RATE, "high_pp")(results)  # the shortest
        ),
    ),
    (
        "all tests of gate decay use narrow networks, where fewer gates fade by sixteen epochs.",
        lambda results: (
            constant_blocks(FULL_AT_PLAIN_RATE, "replication")(results)[0]  # of fewer blocks in all
            > max(constant_blocks(*where)(results)[0] for where in ((LONG_AT_PLAIN_RATE,), (DECAYING, "gates")))
        ),
    ),
    (
        r"Pairing hardly helped (SD \DifferenceSD; unpaired \UnpairedSD).",
        lambda results: primary("sd_difference_pp")(results) > 0.9 * unpaired_sd(results),
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
