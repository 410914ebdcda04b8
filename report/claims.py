"""What paper.tex takes from outputs/: its numbers, and what must be true for its sentences to stand.

lib/paper.py reads both. When a claim no longer holds, the sentence is to be rewritten by hand, here and in paper.tex.
"""

import functools
import math

import numpy as np
import pandas as pd
from scipy import stats

from lib.analyse.statistics import PUBLISHED_GAIN_PP, crossed_interval, mean_interval
from lib.data import OFFICIAL_FINGERPRINT
from lib.files import ROOT, read_json
from lib.runs import load_logits

SPAN = "{0[0]:+.2f} to {0[1]:+.2f}"
ROW = (
    "{0[0]} & {0[1]:.2f} ({0[2]:.2f}) & {0[3]:.2f} ({0[4]:.2f}) & {0[5]:+.2f} & {0[6]:+.2f} to {0[7]:+.2f} & {0[8]:.2f}"
)
ERROR, PEOPLE = "expected calibration error (0 to 1)", "cross-entropy with people's answers (nats)"
ORIGIN = ("device_name", "precision", "packages", "training_code")  # of environment.json
RUNS = ROOT / "outputs" / "paper" / "runs"
QUARTER, AT_PLAIN_RATE = "__quarter_width", "se_resnet18__quarter_width_plain_rate"


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


def effect(arm, column="difference_pp"):
    """Function of the results: a column of the comparison of an arm with the baseline of its width."""
    return one("effects", column, arm=arm)


def effect_span(arm):
    return lambda results: [effect(arm, end)(results) for end in ("low_pp", "high_pp")]


def row(arm, study="paper"):
    """Function of the results: a row of the table of arms; both accuracies are means over the pairs, in per cent."""

    def find(results):
        results = of(study)(results)
        columns = ("n_pairs", "accuracy_arm", "accuracy_baseline", "difference_pp", "low_pp", "high_pp")
        pairs, accuracy, baseline, *rest = (effect(arm, column)(results) for column in columns)
        own, plain = (results["arms"][each] for each in (arm, effect(arm, "baseline")(results)))
        means = (100 * each for each in (accuracy, own["test_accuracy_sd"], baseline, plain["test_accuracy_sd"]))
        return [pairs, *means, *rest, own["parameters"] / 1e6]

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


def trend(column):
    """Function of the results: a column of the planned trend over the width."""
    return one("trends", column, trend="full − quarter width")


def lesion(kind, column):
    """Function of the results: what a lesion of all gates costs at a quarter of the width and the plain rate."""
    return one("lesion_table", column, arm=AT_PLAIN_RATE, lesion=kind, block="all")


def constant_runs(arm):
    """Function of the results: in how many runs the gates are the same for every image, block by block."""
    return lambda results: [gates["n_constant"] for gates in results["gate_table"] if gates["arm"] == arm]


def pair_folders(arm, baseline):
    """The two run folders of each pair of the study `paper`; a mixed pair, made on two machines, is left out.

    compare.pairs does the same with the table of all runs, which takes longer to read than the paper's tests can wait.
    """
    both = [(folder, RUNS / baseline / folder.name) for folder in sorted((RUNS / arm).glob("seed-*"))]
    made_on = [[read_json(each / "environment.json") or {} for each in pair] for pair in both]
    alike = [all(one.get(key) == other.get(key) for key in ORIGIN) for one, other in made_on]
    return [pair for pair, same in zip(both, alike, strict=True) if same]


def paired(value, arm, baseline):
    """Differences within the pairs of what value(folder of a run) gives, one a seed."""
    return np.array([value(one) - value(other) for one, other in pair_folders(arm, baseline)])


def accuracy(folder):
    """Test accuracy of a run, in per cent."""
    return 100 * read_json(folder / "summary.json")["test_accuracy"]


def last_loss(folder):
    """Training loss of a run in its last epoch, in nats."""
    return pd.read_csv(folder / "metrics.csv")["train_loss"].iloc[-1]


def rate_change():
    """How the rate of 0.4, against 0.2, changes the accuracy of SE at a quarter of the width, in points, by seed."""
    return paired(accuracy, f"se_resnet18{QUARTER}", AT_PLAIN_RATE)


def fit_change():
    """How SE at the plain rate changes the training loss at a quarter of the width, in nats, by seed."""
    return paired(last_loss, AT_PLAIN_RATE, f"resnet18{QUARTER}")


@functools.cache
def literal_crossed():
    """The crossed interval of SE on the skip path, in points."""
    pairs = [[load_logits(folder) for folder in pair] for pair in pair_folders("se_skip_resnet18", "resnet18")]
    correct = np.array([[logits.argmax(1) == labels for logits, labels in pair] for pair in pairs])
    return crossed_interval(correct[:, 0], correct[:, 1])


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


def tuned(arm, rate):
    return cell("paper/tables/tuning.csv", "mean", tuned=arm, learning_rate=rate)


def calibration(name, column):
    return cell("paper/tables/calibration.csv", column, name=name)


def churn(pair):
    return cell("paper/tables/churn.csv", "percent", pair=pair)


def recall(name):
    return cell("paper/tables/recall_by_class.csv", "difference_pp", **{"class": name})


def excluded_classes(results):
    """How many of the intervals of the classes exclude zero."""
    recalls = table("paper/tables/recall_by_class.csv")
    return ((recalls["low_pp"] > 0) | (recalls["high_pp"] < 0)).sum()


def correlation_interval(results):
    """95 % interval of the correlation of accuracies with equal seeds, by Fisher's transformation."""
    z, reach = math.atanh(primary("seed_correlation")(results)), 1.96 / math.sqrt(primary("n_pairs")(results) - 3)
    return [math.tanh(z - reach), math.tanh(z + reach)]


def pairs_for_one_gain(results):
    """Among how many pairs of equally good networks one has at least the smallest published gain, by chance."""
    return 1 / stats.t.sf(PUBLISHED_GAIN_PP / primary("sd_difference_pp")(results), primary("n_pairs")(results) - 1)


def more(column):
    """Function of the results: by which factor a cost is larger with SE, less one; measured over 16 epochs."""
    plain, gated = (of("replication", "arms", arm, column) for arm in ("resnet18", "se_resnet18"))
    return lambda results: gated(results) / plain(results) - 1


def machine(start, column):
    """Function of the results: a column of the primary pairs that were made on machines of this name."""
    return lambda results: [row[column] for row in primary("by_kind")(results) if row["kind"].startswith(start)][0]


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
    "CrossedHigh": ("{:.2f}", primary("crossed_interval_pp", 1)),
    "TostP": ("{:.3f}", primary("tost_p")),
    "LargestLoss": ("{:.1f}", negative(primary("seed_interval_pp", 0))),
    "PlainAccuracy": ("{:.2f}", percent(of("paper", "arms", "resnet18", "test_accuracy_mean"))),
    "SEAccuracy": ("{:.2f}", percent(of("paper", "arms", "se_resnet18", "test_accuracy_mean"))),
    "BrierChange": ("{:+.4f}", primary("brier", "difference")),
    "BrierInterval": ("{0[0]:+.4f} to {0[1]:+.4f}", primary("brier", "interval")),
    "OnCPU": ("{:+.2f}", machine("AMD", "difference_pp")),
    "OnGPU": ("{:+.2f}", machine("NVIDIA", "difference_pp")),
    "LiteralLoss": ("{:.2f}", negative(effect("se_skip_resnet18"))),
    "LiteralInterval": (SPAN, effect_span("se_skip_resnet18")),
    "LiteralCrossedInterval": (SPAN, lambda results: literal_crossed()),
    "LiteralPairs": ("{}", effect("se_skip_resnet18", "n_pairs")),
    "LongerLoss": ("{:.2f}", negative(longer("difference_pp"))),
    "LongerCrossedInterval": (SPAN, longer("crossed_interval_pp")),
    "RowSE": (ROW, row("se_resnet18")),
    "RowSkip": (ROW, row("se_skip_resnet18")),
    "RowLonger": (ROW, row("se_resnet18", "replication")),
    "RowNarrow": (ROW, row(f"se_resnet18{QUARTER}")),
    "RowPlainRate": (ROW, row(AT_PLAIN_RATE)),
    "RowStatic": (ROW, row(f"static_gate_resnet18{QUARTER}")),
    "RowHalf": (ROW, row(f"half_scale_resnet18{QUARTER}")),
    "RowWide": (ROW, row(f"wide_resnet18{QUARTER}")),
    "RowNarrowSkip": (ROW, row(f"se_skip_resnet18{QUARTER}")),
    "RowHalfSkip": (ROW, row(f"half_scale_skip_resnet18{QUARTER}")),
    **{
        f"Contrast{name}": ("{0[0]:+.2f} ({0[1]:+.2f} to {0[2]:+.2f}) & {0[3]}", contrast_cell(number))
        for number, name in enumerate(("Image", "Optimisation", "Start", "Skip"))
    },
    "ImageMost": ("{:.2f}", contrast(0, "high_pp")),
    "WideChange": (SPAN, effect_span(f"wide_resnet18{QUARTER}")),
    "WideDifference": ("{:+.2f}", effect(f"wide_resnet18{QUARTER}")),
    "HalfSkipLoss": ("{:.2f}", negative(effect(f"half_scale_skip_resnet18{QUARTER}"))),
    "NarrowDifference": ("{:+.2f}", effect(f"se_resnet18{QUARTER}")),
    "NarrowInterval": (SPAN, effect_span(f"se_resnet18{QUARTER}")),
    "NarrowPairs": ("{}", effect(f"se_resnet18{QUARTER}", "n_pairs")),
    "RateChange": ("{:+.2f}", lambda results: rate_change().mean()),
    "RateChangeInterval": (SPAN, lambda results: mean_interval(rate_change())),
    "LuckyPair": ("{:.1f}", lambda results: paired(accuracy, f"se_resnet18{QUARTER}", f"resnet18{QUARTER}").max()),
    "FitChange": ("{:+.3f}", lambda results: fit_change().mean()),
    "FitInterval": ("{0[0]:+.3f} to {0[1]:+.3f}", lambda results: mean_interval(fit_change())),
    "PeopleGain": ("{:.3f}", negative(calibration(PEOPLE, "difference"))),
    "PeopleInterval": (
        "{0[0]:.3f} to {0[1]:.3f}",
        negative(lambda results: [calibration(PEOPLE, end)(results) for end in ("low", "high")]),
    ),
    "WidthTrend": ("{:+.2f}", trend("estimate_pp")),
    "WidthTrendInterval": (SPAN, lambda results: [trend(end)(results) for end in ("low_pp", "high_pp")]),
    "PlainTrainLoss": ("{:.3f}", of("paper", "arms", "resnet18", "train_loss_mean")),
    "SETrainLoss": ("{:.3f}", of("paper", "arms", "se_resnet18", "train_loss_mean")),
    "PlainError": ("{:.3f}", calibration(ERROR, "baseline")),
    "SEError": ("{:.3f}", calibration(ERROR, "arm")),
    "LesionMean": ("{:.1f}", lesion("mean", "drop_pp")),
    "LesionShuffled": ("{:.1f}", lesion("shuffled", "drop_pp")),
    "TunedPlainCost": ("{:.1f}", lambda results: tuned("resnet18", 0.2)(results) - tuned("resnet18", 0.4)(results)),
    "Birds": ("{:+.1f}", recall("bird")),
    "Horses": ("{:+.1f}", recall("horse")),
    "Ships": ("{:+.1f}", recall("ship")),
    "ExcludedClasses": ("{}", excluded_classes),
    "ChurnApart": ("{:.1f}", churn("SE-ResNet-18 − ResNet-18, different seeds")),
    "ChurnSE": ("{:.1f}", churn("two runs of SE-ResNet-18")),
    "ChurnPlain": ("{:.1f}", churn("two runs of ResNet-18")),
    "DifferenceSD": ("{:.2f}", primary("sd_difference_pp")),
    "SeedCorrelation": ("{:.2f}", primary("seed_correlation")),
    "SeedCorrelationInterval": ("{0[0]:.2f} to {0[1]:.2f}", correlation_interval),
    "ChanceGain": ("{:.0f}", pairs_for_one_gain),
    "MoreTime": ("{:.0%}", more("train_seconds_mean")),
}

# (sentence as it stands in paper.tex, function of the results that must be true)
CLAIMS = [
    ("The interval includes zero, so no direction is shown.", includes_zero(primary("seed_interval_pp"))),
    (
        "But it lies wholly below $+$0.39: for this training, a gain of the smallest published size is excluded.",
        lambda results: primary("excludes_published_gain")(results) and primary("complete")(results),
    ),
    (
        r"On new images, too, a gain of more than \CrossedHigh{} points would be surprising",
        lambda results: 0 < primary("crossed_interval_pp", 1)(results) < PUBLISHED_GAIN_PP,
    ),
    ("a test of equivalence within 0.25 points fails", lambda results: primary("tost_p")(results) >= 0.05),
    ("The Brier score sees no difference", includes_zero(primary("brier", "interval"))),
    (
        "pairs from the CPU and from the GPU do not visibly differ",
        lambda results: (
            all(row["seed_interval_pp"][0] < primary("difference_pp")(results) for row in primary("by_kind")(results))
            and all(row["seed_interval_pp"][1] > 0 for row in primary("by_kind")(results))
        ),
    ),
    ("Pairing made this fair, but not visibly sharper", includes_zero(correlation_interval)),
    (
        "SE on the skip path loses",
        lambda results: effect("se_skip_resnet18", "high_pp")(results) < 0 and literal_crossed()[1] < 0,
    ),
    (
        r"\textbf{Twice the epochs did not turn it into a gain.}",
        lambda results: longer("complete")(results) and longer("crossed_interval_pp", 1)(results) < 0,
    ),
    (
        "all ten differences are negative",
        lambda results: (longer("difference_pp")(results) < 0, longer("sign_flip_p")(results)) == (True, 2**-9),
    ),
    (
        "The rate 0.2 won for the plain network and 0.4 for SE.",
        lambda results: (
            results["winners"] == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}}
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
        "To halve it, without any gate, costs",
        lambda results: effect(f"half_scale_skip_resnet18{QUARTER}", "high_pp")(results) < 0,
    ),
    (
        "block 5 is then alive in all runs",
        lambda results: of("replication", "gate_table", 4, "n_constant")(results) == 0,
    ),
    (
        "tuning, primary and controls wholly",
        lambda results: all(
            row["planned"] == row["finished"]
            for row in results["stages"]
            if row["stage"] in ("tuning", "primary", "controls")
        ),
    ),
    (
        "Half width and most lengths are missing",
        lambda results: all(
            row["planned"] > 2 * row["finished"] for row in results["stages"] if row["stage"] in ("half", "length")
        ),
    ),
    (
        "Only SE at 0.2 and the plain network at 0.4, at full width, would separate gates from rates.",
        lambda results: (
            not any(row["finished"] for row in of("replication", "stages")(results) if row["stage"] != "primary")
        ),
    ),
    ("and gates there do no worse", lambda results: contrast(3, "difference_pp")(results) >= 0),
    (
        "With all gates fixed at their means, those of a quarter of the width and rate 0.2 lose",
        lambda results: all(lesion(kind, "low_pp")(results) > 0 for kind in ("mean", "shuffled")),
    ),
    (
        "But networks of this size trained with static gates do not visibly lose.",
        lambda results: contrast(0, "low_pp")(results) <= 0,
    ),
    (
        "In blocks 6 and 8 of all ten runs, and in most runs in blocks 4, 5 and 7, the gates are the same",
        lambda results: constant_runs("se_resnet18")(results) == [0, 0, 0, 7, 7, 10, 6, 10],
    ),
    (
        "fewer such blocks are indeed found at 0.2, only the sixth, than at 0.4",
        lambda results: (
            [block for block, runs in enumerate(constant_runs(AT_PLAIN_RATE)(results), start=1) if runs] == [6]
            and sum(runs > 0 for runs in constant_runs(f"se_resnet18{QUARTER}")(results)) > 1
        ),
    ),
    (
        "so SE does not fail by overfitting",
        lambda results: (
            of("paper", "arms", "se_resnet18", "train_loss_mean")(results)
            > of("paper", "arms", "resnet18", "train_loss_mean")(results)
        ),
    ),
    (
        "the direction fits, but nothing is shown",
        lambda results: trend("estimate_pp")(results) < 0 and trend("p_holm")(results) >= 0.05,
    ),
    (
        "more than the primary difference",
        lambda results: NUMBERS["TunedPlainCost"][1](results) > abs(primary("difference_pp")(results)),
    ),
    (
        "so the trend over epochs has no answer yet",
        lambda results: all("epochs" not in row["trend"] or row["p_value"] is None for row in results["trends"]),
    ),
    (
        "all on the official images, and none has diverged",
        lambda results: (
            (results["data_source"], results["data_fingerprint"]) == ("cifar10", OFFICIAL_FINGERPRINT)
            and "diverged and excluded" not in kinds_of_deviations(results)
        ),
    ),
    (  # a copy without git's history cannot tell, and need not
        r"The plan, \path{report/preregistration.md}, was committed before the first primary run.",
        lambda results: "preregistered after the first primary run" not in kinds_of_deviations(results),
    ),
]
