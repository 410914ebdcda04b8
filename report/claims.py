"""What paper.tex takes from outputs/: its numbers, and what must be true for its sentences to stand.

lib/paper.py reads both. When a claim no longer holds, the sentence is to be rewritten by hand, here and in paper.tex.
"""

import functools

import numpy as np
import pandas as pd
from scipy import stats

from lib.analyse.statistics import PUBLISHED_GAIN_PP, holm
from lib.data import OFFICIAL_FINGERPRINT
from lib.files import ROOT

SPAN = "{0[0]:+.2f} to {0[1]:+.2f}"
SHARE = "{0[0]} of {0[1]}"
IN_BRACKETS = "{0[difference_pp]:+.2f}, {0[low_pp]:+.2f} to {0[high_pp]:+.2f}"
ROW = "{0[0]} & {0[1]:.2f} ({0[2]:.2f}) & {0[3]:.2f} ({0[4]:.2f}) & {0[5]:+.2f} & {0[6]:+.2f} to {0[7]:+.2f}"
ROW += " & {0[8]:+.3f} & {0[9]:.2f}"
CROSSED = "{0[crossed_low]:+.2f} to {0[crossed_high]:+.2f}"
FULL_AT_PLAIN_RATE = "se_resnet18__plain_rate"
QUARTER, AT_PLAIN_RATE = "__quarter_width", "se_resnet18__quarter_width_plain_rate"
NARROW, PLAIN, PLAIN_AT_SE_RATE = f"se_resnet18{QUARTER}", f"resnet18{QUARTER}", f"resnet18{QUARTER}_se_rate"
MEAN, WIDTH, EPOCHS = "test_accuracy_mean", "full − quarter width", "slope over log2(epochs)"


def all_runs(column):
    """Function of the results: how many runs are `planned` or `finished` in all."""
    return lambda results: sum(row[column] for row in results["stages"])


def kinds_of_deviations(results):
    return {row["deviation"] for row in results["deviations"]}


def p_text(p):
    """A p-value for print; None where it is not known yet."""
    return p if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def of(study, *path):
    """Function of the results: a number of the study `paper` or `replication`, by its way through results.json."""

    def find(results):
        found = results if study == "paper" else results[study]
        for key in path:
            found = found[key]
        return found

    return find


def primary(*path):
    return of("paper", "primary", *path)


def longer(*path):
    """Function of the results: a number of the comparison after 16 epochs."""
    return of("replication", "primary", *path)


def one(table, column, **row):
    """Function of the results: a column of that row of a table whose other columns have these values."""
    return lambda results: [each[column] for each in results[table] if row.items() <= each.items()][0]


def comparison(arm):
    """Function of the results: the comparison, a mapping, of an arm with the baseline of its width."""
    return lambda results: [each for each in results["effects"] if each["arm"] == arm][0]


def effect(arm, column="difference_pp"):
    """Function of the results: a column of that comparison."""
    return lambda results: comparison(arm)(results)[column]


def effect_span(arm):
    return lambda results: [effect(arm, end)(results) for end in ("low_pp", "high_pp")]


def row(arm, study="paper", compared=None):
    """Function of the results: a row of the table of arms; both accuracies are means over the pairs, in per cent.

    compared: function of the results that gives the comparison; by default that with the baseline of its width.
    """

    def find(results):
        results = of(study)(results)
        found = (compared or comparison(arm))(results)
        means = (100 * found[name] for name in ("accuracy_arm", "sd_arm", "accuracy_baseline", "sd_baseline"))
        rest = (found[name] for name in ("difference_pp", "low_pp", "high_pp", "train_loss_difference"))
        return [found["n_pairs"], *means, *rest, results["arms"][found["arm"]]["parameters"] / 1e6]

    return find


def contrast(number, column):
    """Function of the results: a column of a planned contrast, by its number in the preregistration, from 0."""
    return of("paper", "contrasts", number, column)


def contrast_cell(number):
    """Function of the results: difference, ends of its interval and adjusted p-value of a planned contrast."""

    def find(results):
        *values, p = (contrast(number, name)(results) for name in ("difference_pp", "low_pp", "high_pp", "p_holm"))
        return p if p is None else [*values, p_text(p)]

    return find


def trend(column, name=WIDTH):
    """Function of the results: a column of a planned trend."""
    return one("trends", column, trend=name)


def plain_parameters(results):
    """Millions of parameters of the plain network, at full and at a quarter of the width."""
    return [results["arms"][arm]["parameters"] / 1e6 for arm in ("resnet18", PLAIN)]


def lesion(kind, column):
    """Function of the results: what a lesion of all gates costs at a quarter of the width and the plain rate."""
    return one("lesion_table", column, arm=AT_PLAIN_RATE, lesion=kind, block="all")


def exchanged(block):
    """Function of the results: lower end of what gates of another image cost at full width, in this block."""
    return one("lesion_table", "low_pp", arm="se_resnet18", lesion="shuffled", block=f"block{block}")


def constant_runs(arm):
    """Function of the results: in how many runs the gates are the same for every image, block by block."""
    return lambda results: [gates["n_constant"] for gates in results["gate_table"] if gates["arm"] == arm]


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


def cell(path, column, /, **row):
    """Function that finds a number of a table in outputs/: of its one row with these values, this column."""

    def find(results):
        found = table(path)
        return found.loc[(found[list(row)] == pd.Series(row)).all(axis=1), column].item()

    return find


def rates(arm, baseline):
    """Function of the results: the comparison, a mapping, of two networks of a quarter of the width at their rates."""

    def find(results):
        found = table("paper/tables/rates.csv").set_index(["arm", "baseline"])
        return found.loc[(arm, baseline)].to_dict() | {"arm": arm, "baseline": baseline}

    return find


@functools.cache
def rates_holm():
    """Holm's p-values over all comparisons of rates, from the t intervals."""
    rows = table("paper/tables/rates.csv")
    df = rows["n_pairs"] - 1
    errors = (rows["high_pp"] - rows["low_pp"]) / 2 / stats.t.ppf(0.975, df)
    return holm(2 * stats.t.sf(rows["difference_pp"].abs() / errors, df))


def equal_rates(results):
    """The interval of the mean of both differences at equal rates, in points."""
    return table("paper/tables/equal_rates.csv").loc[0, ["low_pp", "high_pp"]].to_list()


def calibration(column):
    return cell("paper/tables/calibration.csv", column, name="expected calibration error (0 to 1)")


def literal_crossed(results):
    """The crossed interval of SE on the skip path, in points."""
    ends = [cell("paper/tables/whole.csv", f"crossed_{end}", arm="se_skip_resnet18") for end in ("low", "high")]
    return [end(results) for end in ends]


def tuned(arm, rate):
    return cell("paper/tables/tuning.csv", "mean", tuned=arm, learning_rate=rate)


def recall(name):
    return cell("paper/tables/recall_by_class.csv", "difference_pp", **{"class": name})


def pairs_for_one_gain(results):
    """Among how many pairs of equally good networks one has at least the smallest published gain, by chance."""
    return 1 / stats.t.sf(PUBLISHED_GAIN_PP / primary("sd_difference_pp")(results), primary("n_pairs")(results) - 1)


def pairs_for_one_gain_after_64_epochs(results):
    """The same with the SD of single runs that Jordan (2024) measured after 64 epochs, 0.15 points."""
    return 1 / stats.norm.sf(PUBLISHED_GAIN_PP / (0.15 * 2**0.5))


def more(column):
    """Function of the results: by which factor a cost is larger with SE, less one; measured over 16 epochs."""
    plain, gated = (of("replication", "arms", arm, column) for arm in ("resnet18", "se_resnet18"))
    return lambda results: gated(results) / plain(results) - 1


def doubling_gain(results):
    """By how many points the plain network is better after 16 epochs than after 8."""
    longer, shorter = (of(study, "arms", "resnet18", MEAN)(results) for study in ("replication", "paper"))
    return 100 * (longer - shorter)


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


# LaTeX macro: (format, function of the results). A number that is null in results.json has no macro yet.
NUMBERS = {
    "PlannedRuns": ("{}", all_runs("planned")),
    "FinishedRuns": ("{}", all_runs("finished")),
    "Pairs": ("{}", primary("n_pairs")),
    "Difference": ("{:+.2f}", primary("difference_pp")),
    "SeedInterval": (SPAN, primary("seed_interval_pp")),
    "CrossedInterval": (SPAN, primary("crossed_interval_pp")),
    "TostP": ("{:.3f}", primary("tost_p")),
    "LargestLoss": ("{:.1f}", negative(primary("seed_interval_pp", 0))),
    "PlainAccuracy": ("{:.2f}", percent(of("paper", "arms", "resnet18", "test_accuracy_mean"))),
    "SEAccuracy": ("{:.2f}", percent(of("paper", "arms", "se_resnet18", "test_accuracy_mean"))),
    "BrierChange": ("{:+.4f}", primary("brier", "difference")),
    "BrierInterval": ("{0[0]:+.4f} to {0[1]:+.4f}", primary("brier", "interval")),
    "CalibrationSE": ("{:.3f}", calibration("arm")),
    "CalibrationPlain": ("{:.3f}", calibration("baseline")),
    "LiteralLoss": ("{:.2f}", negative(effect("se_skip_resnet18"))),
    "LiteralChange": ("{:+.2f}", effect("se_skip_resnet18")),
    "LiteralCrossedInterval": (SPAN, literal_crossed),
    "LiteralPairs": ("{}", effect("se_skip_resnet18", "n_pairs")),
    "NarrowLonger": (IN_BRACKETS, comparison(f"{NARROW}_16_epochs")),
    "NarrowLongerPairs": ("{}", effect(f"{NARROW}_16_epochs", "n_pairs")),
    "LongerLoss": ("{:.2f}", negative(longer("difference_pp"))),
    "LongerCrossedInterval": (SPAN, longer("crossed_interval_pp")),
    "RowSE": (ROW, row("se_resnet18")),
    "RowSkip": (ROW, row("se_skip_resnet18")),
    "RowLonger": (ROW, row("se_resnet18", "replication")),
    "RowNarrow": (ROW, row(NARROW)),
    "RowSERate": (ROW, row(NARROW, compared=rates(NARROW, PLAIN_AT_SE_RATE))),
    "RowPlainRate": (ROW, row(AT_PLAIN_RATE)),
    **{
        f"Contrast{name}": ("{0[0]:+.2f} ({0[1]:+.2f} to {0[2]:+.2f}) & {0[3]}", contrast_cell(number))
        for number, name in enumerate(("Image", "Optimisation", "Start", "Skip"))
    },
    "WideChange": (SPAN, effect_span(f"wide_resnet18{QUARTER}")),
    "WideDifference": ("{:+.2f}", effect(f"wide_resnet18{QUARTER}")),
    "HalfSkipLoss": ("{:.2f}", negative(effect(f"half_scale_skip_resnet18{QUARTER}"))),
    "HalfSkipInterval": ("{0[0]:.2f} to {0[1]:.2f}", negative(effect_span(f"half_scale_skip_resnet18{QUARTER}"))),
    "RateChange": (IN_BRACKETS, rates(NARROW, AT_PLAIN_RATE)),
    "PlainRateChange": (IN_BRACKETS, rates(PLAIN_AT_SE_RATE, PLAIN)),
    "SERateFit": ("{0[train_loss_difference]:.3f}", rates(NARROW, AT_PLAIN_RATE)),
    "TunedSE": ("{:.1f}", tuned("se_resnet18", 0.4)),
    "OtherSE": ("{:.1f}", tuned("se_resnet18", 0.2)),
    "EqualLow": ("{:.2f}", effect(AT_PLAIN_RATE)),
    "FullPlainPairs": ("{}", effect(FULL_AT_PLAIN_RATE, "n_pairs")),
    "FullPlainGain": ("{:.2f}", effect(FULL_AT_PLAIN_RATE)),
    "FullPlainInterval": (SPAN, effect_span(FULL_AT_PLAIN_RATE)),
    "FullPlainCrossed": (CROSSED, rates(FULL_AT_PLAIN_RATE, "resnet18")),
    "FullRateLoss": ("{:.2f}", lambda results: -rates("se_resnet18", FULL_AT_PLAIN_RATE)(results)["difference_pp"]),
    "FullRateInterval": ("{0[low_pp]:+.2f} to {0[high_pp]:+.2f}", rates("se_resnet18", FULL_AT_PLAIN_RATE)),
    "FullRateFit": ("{0[train_loss_difference]:.3f}", rates("se_resnet18", FULL_AT_PLAIN_RATE)),
    "RowFullPlainRate": (ROW, row(FULL_AT_PLAIN_RATE)),
    "EqualHigh": ("{0[difference_pp]:.2f}", rates(NARROW, PLAIN_AT_SE_RATE)),
    "EqualBoth": (IN_BRACKETS, lambda results: table("paper/tables/equal_rates.csv").loc[0]),
    "WidthTrend": ("{:+.2f}", trend("estimate_pp")),
    "WidthTrendInterval": (SPAN, lambda results: [trend(end)(results) for end in ("low_pp", "high_pp")]),
    "EpochTrendLoss": ("{:.2f}", negative(trend("estimate_pp", EPOCHS))),
    "EpochTrendInterval": (SPAN, lambda results: [trend(end, EPOCHS)(results) for end in ("low_pp", "high_pp")]),
    "PlainParameters": ("{0[0]:.2f} and {0[1]:.2f}", plain_parameters),
    "ConstantPrimary": (SHARE, constant_blocks("se_resnet18")),
    "ConstantPlainRate": (SHARE, constant_blocks(FULL_AT_PLAIN_RATE)),
    "ConstantLonger": (SHARE, constant_blocks("se_resnet18", "replication")),
    "LesionMean": ("{:.1f}", lesion("mean", "drop_pp")),
    "LesionShuffled": ("{:.1f}", lesion("shuffled", "drop_pp")),
    "Birds": ("{:+.1f}", recall("bird")),
    "Horses": ("{:+.1f}", recall("horse")),
    "Ships": ("{:+.1f}", recall("ship")),
    "DifferenceSD": ("{:.2f}", primary("sd_difference_pp")),
    "ChanceGain": ("{:.0f}", pairs_for_one_gain),
    "ChanceGainLong": ("{:.0f}", pairs_for_one_gain_after_64_epochs),
    "PlainLoss": ("{:.2f}", of("paper", "arms", "resnet18", "train_loss_mean")),
    "PlainLossLonger": ("{:.2f}", of("replication", "arms", "resnet18", "train_loss_mean")),
    "MoreTime": ("{:.0%}", more("train_seconds_mean")),
    "DoublingGain": ("{:.1f}", doubling_gain),
    "TimeGain": ("{:.1f}", lambda results: doubling_gain(results) * np.log2(1 + more("train_seconds_mean")(results))),
}


def within(limit, *spans):
    """Function of the results: whether all these intervals lie within ± this limit, in points."""
    return lambda results: all(-limit < end < limit for span in spans for end in span(results))


def overlap(one, other):
    return one[0] <= other[1] and other[0] <= one[1]


def fits_worse(arm):
    return lambda results: effect(arm, "train_loss_low")(results) > 0


def share(counts):
    return counts[0] / counts[1]


def contrast_span(number):
    return lambda results: [contrast(number, end)(results) for end in ("low_pp", "high_pp")]


def finished(*names):
    """Function of the results: the shares of the planned runs of these stages that are finished."""

    def find(results):
        share = {row["stage"]: row["finished"] / row["planned"] for row in results["stages"]}
        return [share[name] for name in names]

    return find


HIGHER_RATE = rates(NARROW, AT_PLAIN_RATE), rates(PLAIN_AT_SE_RATE, PLAIN)
# (sentence as it stands in paper.tex, function of the results that must be true)
CLAIMS = [
    ("The interval includes zero, so no direction is shown.", includes_zero(primary("seed_interval_pp"))),
    (
        "for this training and these rates, a gain of the smallest published size is excluded.",
        lambda results: primary("excludes_published_gain")(results) and primary("complete")(results),
    ),
    (
        r"The crossed interval (\CrossedInterval) says the same for new images.",
        lambda results: 0 < primary("crossed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP,
    ),
    ("a test of equivalence within 0.25 points fails", lambda results: primary("tost_p")(results) >= 0.05),
    (
        r"shows no difference (\BrierChange, \BrierInterval). In exploratory looks, three of ten classes",
        lambda results: (
            includes_zero(primary("brier", "interval"))(results)
            and calibration("high")(results) < 0
            and set(table("paper/tables/recall_by_class.csv").query("low_pp > 0 or high_pp < 0")["class"])
            == {"bird", "horse", "ship"}
        ),
    ),
    (
        "CPU and H100 (five pairs each) do not visibly differ.",
        lambda results: (
            overlap(*(row["seed_interval_pp"] for row in primary("by_kind")(results)))
            and [row["n_pairs"] for row in primary("by_kind")(results)] == [5, 5]
        ),
    ),
    (
        r"\textbf{The literal reading does worse:}",
        lambda results: effect("se_skip_resnet18", "high_pp")(results) < 0 and literal_crossed(results)[1] < 0,
    ),
    (
        r"\textbf{Sixteen epochs bring no gain either.}",
        lambda results: longer("complete")(results) and longer("crossed_interval_pp", 1)(results) < 0,
    ),
    (
        "all ten are negative",
        lambda results: (longer("difference_pp")(results) < 0, longer("sign_flip_p")(results)) == (True, 2**-9),
    ),
    (
        "The rate 0.2 won for the plain network, and 0.4, the edge of the grid, for SE",
        lambda results: (
            results["winners"] == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}}
        ),
    ),
    (
        "At full width, SE at 0.4 does worse than SE at 0.2 with the same",
        lambda results: (
            of("paper", "arms", "se_resnet18", MEAN)(results) <= of("paper", "arms", FULL_AT_PLAIN_RATE, MEAN)(results)
            and rates("se_resnet18", FULL_AT_PLAIN_RATE)(results)["high_pp"] < 0
            and rates("se_resnet18", FULL_AT_PLAIN_RATE)(results)["train_loss_low"] > 0
        ),
    ),
    (
        r"In narrow networks, the higher rate raises the loss by \SERateFit{} nats with and without SE",
        lambda results: (
            fits_worse(NARROW)(results)
            and all(each(results)["train_loss_low"] > 0 for each in HIGHER_RATE)
            and len({f"{each(results)['train_loss_difference']:.3f}" for each in HIGHER_RATE}) == 1
        ),
    ),
    (
        "but no change of accuracy is shown",
        lambda results: (
            of("paper", "arms", NARROW, MEAN)(results) <= of("paper", "arms", AT_PLAIN_RATE, MEAN)(results)
            and all(each(results)["high_pp"] > 0 for each in HIGHER_RATE)
        ),
    ),
    (
        "At equal rates SE fits like the plain network",
        lambda results: all(
            each["train_loss_low"] <= 0 <= each["train_loss_high"]
            for each in (
                comparison(FULL_AT_PLAIN_RATE)(results),
                comparison(AT_PLAIN_RATE)(results),
                rates(NARROW, PLAIN_AT_SE_RATE)(results),
            )
        ),
    ),
    (
        "and leads everywhere",
        lambda results: (
            min(effect(FULL_AT_PLAIN_RATE)(results), effect(AT_PLAIN_RATE)(results)) > 0
            and rates(NARROW, PLAIN_AT_SE_RATE)(results)["difference_pp"] > 0
        ),
    ),
    (
        "may have hidden a small gain. But both estimates share",
        lambda results: (
            finished("full_plain_rate")(results) == [1]
            and min(effect_span(FULL_AT_PLAIN_RATE)(results)) > 0
            and rates(FULL_AT_PLAIN_RATE, "resnet18")(results)["crossed_low"] > 0
            and len(rates_holm()) == 6
            and min(rates_holm()) > 0.05
        ),
    ),
    (
        r"In our first study, \NarrowLongerPairs{} narrow pairs agree",
        lambda results: effect(f"{NARROW}_16_epochs", "high_pp")(results) < 0,
    ),
    (
        "has 20 of 60 runs so far",
        lambda results: (
            [sum(row[key] for row in of("replication", "stages")(results)) for key in ("finished", "planned")]
            == [20, 60]
        ),
    ),
    (
        "No control on the residual branch shows an effect",
        lambda results: (
            all(contrast(number, "p_holm")(results) >= 0.05 for number in range(4))
            and includes_zero(effect_span(f"wide_resnet18{QUARTER}"))(results)
        ),
    ),
    (
        "seeing the image, which SE is for, and the start at one half each bring less than 0.39 points.",
        within(PUBLISHED_GAIN_PP, *map(contrast_span, (0, 2, 3))),
    ),
    (
        "But no row excludes 0.2, the size now in question.",
        lambda results: all(
            span(results)[0] <= 0.2 <= span(results)[1]
            for span in (*map(contrast_span, range(4)), effect_span(f"wide_resnet18{QUARTER}"))
        ),
    ),
    (
        "On the skip path, half scale alone costs",
        lambda results: effect(f"half_scale_skip_resnet18{QUARTER}", "high_pp")(results) < 0,
    ),
    ("and gates there do no worse", lambda results: contrast(3, "difference_pp")(results) >= 0),
    (
        "With all gates fixed at their means after training, narrow networks at 0.2 lose",
        lambda results: all(lesion(kind, "low_pp")(results) > 0 for kind in ("mean", "shuffled")),
    ),
    (
        "But networks trained with static gates do not visibly lose.",
        lambda results: contrast(0, "low_pp")(results) <= 0,
    ),
    (
        "6 and 8 always, 4, 5 and 7 mostly",
        lambda results: constant_runs("se_resnet18")(results) == [0, 0, 0, 7, 7, 10, 6, 10],
    ),
    (
        r"There, indeed, only \ConstantPlainRate{} blocks are constant.",
        lambda results: share(constant_blocks(FULL_AT_PLAIN_RATE)(results)) < 0.25,
    ),
    (
        r"But after sixteen epochs at 0.4 it is \ConstantLonger, so decay is not all.",
        lambda results: (
            share(constant_blocks("se_resnet18", "replication")(results))
            < share(constant_blocks("se_resnet18")(results))
        ),
    ),
    (
        "Exchanging gates visibly hurts blocks 1 to 3.",
        lambda results: [block for block in range(1, 9) if (exchanged(block)(results) or 0) > 0] == [1, 2, 3],
    ),
    (
        "half width, 32 epochs and one of 5 literal pairs are not",
        lambda results: (
            max(finished("half", "longest")(results)) < 1
            and finished("literal")(results) == [4 / 5]
            and min(finished("tuning", "primary", "plain_rate", "narrow", "controls", "length", "se_rate")(results))
            == 1
        ),
    ),
    (
        r"the planned trend from narrow to full width is \WidthTrend{} (\WidthTrendInterval): nothing is shown.",
        lambda results: trend("p_holm")(results) >= 0.05,
    ),
    (
        r"gains at full width (\FullPlainGain) and in narrow networks (\EqualLow) are not told apart",
        lambda results: overlap(effect_span(FULL_AT_PLAIN_RATE)(results), effect_span(AT_PLAIN_RATE)(results)),
    ),
    (
        "In narrow networks the effect instead falls",
        lambda results: trend("high_pp", EPOCHS)(results) < 0,
    ),
    (
        "the planned trend, to 32 epochs, is unfinished",
        lambda results: all("epochs" not in row["trend"] or row["p_value"] is None for row in results["trends"]),
    ),
    (
        "on the 50,000 official training images",
        lambda results: (results["data_source"], results["data_fingerprint"]) == ("cifar10", OFFICIAL_FINGERPRINT),
    ),
    (  # a copy without git's history cannot tell, and need not
        r"The plan, \path{report/preregistration.md}, was committed before the first primary run.",
        lambda results: "preregistered after the first primary run" not in kinds_of_deviations(results),
    ),
]
