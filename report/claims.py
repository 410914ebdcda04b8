"""What paper.tex takes from outputs/: its numbers, and what must be true for its sentences to stand.

lib/paper.py reads both. When a claim no longer holds, the sentence is to be rewritten by hand, here and in paper.tex.
"""

import math
from statistics import NormalDist

import pandas as pd

from lib.analyse.statistics import PUBLISHED_GAIN_PP
from lib.data import OFFICIAL_FINGERPRINT
from lib.files import ROOT

STAGES = ("tuning", "primary", "literal", "plain_rate", "narrow", "controls", "half", "length", "longest")


def runs(stage, column):
    """Function of the results: how many runs of the stage are `planned` or `finished`."""
    return lambda results: {row["stage"]: row[column] for row in results["stages"]}[stage]


def macro(stage):
    return stage.title().replace("_", "")


def kinds_of_deviations(results):
    return {row["deviation"] for row in results["deviations"]}


def p_text(p):
    """A p-value for print; None where it is not known yet."""
    return p if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def replicated(column):
    """Function of the results: a number of the replication's primary comparison."""
    return lambda results: results["replication"]["primary"][column]


def replicated_arm(arm, column, factor=1):
    """Function of the results: a number of one arm of the replication."""
    return lambda results: factor * results["replication"]["arms"][arm][column]


def replicated_block(number, column):
    """Function of the results: a number about the gates of one block in the replication."""
    return lambda results: results["replication"]["gate_table"][number - 1][column]


def lesion(kind, block, column):
    """Function of the results: what a lesion of the gates of one block, or of all, costs in the replication."""
    return lambda results: [
        row[column] for row in results["replication"]["lesion_table"] if (row["lesion"], row["block"]) == (kind, block)
    ][0]


def span(kind):
    """Function of the results: the interval of the cost of a lesion of all gates."""
    return lambda results: [lesion(kind, "all", end)(results) for end in ("low_pp", "high_pp")]


def cell(table, **row):
    """Function that finds a number of a table in outputs/: of its one row with these values, the column `column`."""
    column = row.pop("column")

    def find(results):
        found = pd.read_csv(ROOT / "outputs" / table)
        return found.loc[(found[list(row)] == pd.Series(row)).all(axis=1), column].item()

    return find


def tuned(arm, rate):
    return cell("paper/tables/tuning.csv", tuned=arm, learning_rate=rate, column="mean")


def correlation_interval(results):
    """95 % interval of the correlation of accuracies with equal seeds, by Fisher's transformation."""
    z, reach = math.atanh(replicated("seed_correlation")(results)), 1.96 / math.sqrt(replicated("n_pairs")(results) - 3)
    return [math.tanh(z - reach), math.tanh(z + reach)]


def pairs_for_one_gain(results):
    """Among how many pairs of equally good networks one has at least the smallest published gain, by chance."""
    return 1 / (1 - NormalDist(0, replicated("sd_difference_pp")(results)).cdf(PUBLISHED_GAIN_PP))


def replicated_brier(column):
    """Function of the results: the replication's Brier score, or how SE changes it."""
    return lambda results: results["replication"]["primary"]["brier"][column]


def calibration_error(column):
    """Function that finds the replication's calibration error, or how SE changes it, in its table."""
    table = "replication/tables/calibration.csv"
    return cell(table, name="expected calibration error (0 to 1)", column=column)


def pair_differences(choose):
    """Function that chooses among the replication's differences in accuracy, in points."""
    return lambda results: choose(pd.read_csv(ROOT / "outputs/replication/tables/pairs.csv")["difference_pp"])


def recall_differences():
    """By class, with intervals, in points."""
    return pd.read_csv(ROOT / "outputs/replication/tables/recall_by_class.csv", index_col="class")


def worst_share(results):
    """Share of three classes in the loss of accuracy; all classes have equally many test images."""
    losses = recall_differences()["difference_pp"]
    return losses[["cat", "deer", "dog"]].sum() / losses.sum()


def more(column):
    """Function of the results: by which factor a cost of the replication's network is larger with SE, less one."""
    plain, gated = replicated_arm("resnet18", column), replicated_arm("se_resnet18", column)
    return lambda results: gated(results) / plain(results) - 1


CHURN = "replication/tables/churn.csv"

# LaTeX macro: (format, function of the results). A number that is null in results.json has no macro yet.
NUMBERS = {
    **{f"Planned{macro(stage)}": ("{}", runs(stage, "planned")) for stage in STAGES},
    **{f"Finished{macro(stage)}": ("{}", runs(stage, "finished")) for stage in STAGES},
    "PlannedRuns": ("{}", lambda results: sum(row["planned"] for row in results["stages"])),
    "PlannedPairs": ("{}", lambda results: results["primary"]["planned_pairs"]),
    "FinishedPairs": ("{}", lambda results: results["primary"]["n_pairs"]),
    "Difference": ("{:+.2f}", lambda results: results["primary"]["difference_pp"]),
    "SeedInterval": ("{0[0]:+.2f} to {0[1]:+.2f}", lambda results: results["primary"]["seed_interval_pp"]),
    "CrossedInterval": ("{0[0]:+.2f} to {0[1]:+.2f}", lambda results: results["primary"]["crossed_interval_pp"]),
    "PValue": ("{}", lambda results: p_text(results["primary"]["p_value"])),
    "ReplicationPairs": ("{}", replicated("n_pairs")),
    "ReplicationDifference": ("{:+.2f}", replicated("difference_pp")),
    "ReplicationLoss": ("{:.2f}", lambda results: -replicated("difference_pp")(results)),
    "ReplicationLossInterval": (
        "{0[1]:.2f} to {0[0]:.2f}",
        lambda results: [-end for end in replicated("seed_interval_pp")(results)],
    ),
    "ReplicationSeedInterval": ("{0[0]:+.2f} to {0[1]:+.2f}", replicated("seed_interval_pp")),
    "ReplicationCrossedInterval": ("{0[0]:+.2f} to {0[1]:+.2f}", replicated("crossed_interval_pp")),
    "PlannedLengths": ("{}", lambda results: sum(runs(stage, "planned")(results) for stage in ("length", "longest"))),
    "FinishedLengths": ("{}", lambda results: sum(runs(stage, "finished")(results) for stage in ("length", "longest"))),
    "LongerPlainBrier": ("{:.4f}", replicated_brier("baseline")),
    "LongerSEBrier": ("{:.4f}", replicated_brier("arm")),
    "LongerChangeBrier": ("{:+.4f}", replicated_brier("difference")),
    "LongerIntervalBrier": ("{0[0]:+.4f} to {0[1]:+.4f}", replicated_brier("interval")),
    "LongerPlainError": ("{:.4f}", calibration_error("baseline")),
    "LongerSEError": ("{:.4f}", calibration_error("arm")),
    "LongerChangeError": ("{:+.4f}", calibration_error("difference")),
    "LongerIntervalError": (
        "{0[0]:+.4f} to {0[1]:+.4f}",
        lambda results: [calibration_error(end)(results) for end in ("low", "high")],
    ),
    "LongerPlainAccuracy": ("{:.2f}", replicated_arm("resnet18", "test_accuracy_mean", 100)),
    "LongerSEAccuracy": ("{:.2f}", replicated_arm("se_resnet18", "test_accuracy_mean", 100)),
    "LongerPlainSD": ("{:.2f}", replicated_arm("resnet18", "test_accuracy_sd", 100)),
    "LongerSESD": ("{:.2f}", replicated_arm("se_resnet18", "test_accuracy_sd", 100)),
    "LongerPlainParameters": ("{:.2f}", replicated_arm("resnet18", "parameters", 1e-6)),
    "LongerSEParameters": ("{:.2f}", replicated_arm("se_resnet18", "parameters", 1e-6)),
    "LongerChangeParameters": ("{:+.1%}", more("parameters")),
    "LongerPlainSeconds": ("{:.1f}", replicated_arm("resnet18", "train_seconds_mean")),
    "LongerSESeconds": ("{:.1f}", replicated_arm("se_resnet18", "train_seconds_mean")),
    "TimeCost": ("{:.0%}", more("train_seconds_mean")),
    "LargestLoss": ("{:+.2f}", pair_differences(min)),
    "SmallestLoss": ("{:+.2f}", pair_differences(max)),
    "WorstShare": ("{:.0%}", worst_share),
    "ExcludedClasses": ("{}", lambda results: (recall_differences()["high_pp"] < 0).sum()),
    "ReplicationPlain": ("{:.1f}", replicated_arm("resnet18", "test_accuracy_mean", 100)),
    "ReplicationSE": ("{:.1f}", replicated_arm("se_resnet18", "test_accuracy_mean", 100)),
    "ReplicationPlainTrainLoss": ("{:.3f}", replicated_arm("resnet18", "train_loss_mean")),
    "ReplicationSETrainLoss": ("{:.3f}", replicated_arm("se_resnet18", "train_loss_mean")),
    "FirstShare": ("{:.0%}", replicated_block(1, "eta_squared")),
    "SeventhShare": ("{:.0%}", replicated_block(7, "eta_squared")),
    "LesionMean": ("{:.1f}", lesion("mean", "all", "drop_pp")),
    "LesionMeanInterval": ("{0[0]:.1f} to {0[1]:.1f}", span("mean")),
    "LesionShuffled": ("{:.1f}", lesion("shuffled", "all", "drop_pp")),
    "LesionShuffledInterval": ("{0[0]:.1f} to {0[1]:.1f}", span("shuffled")),
    "TunedPlainLow": ("{:.1f}", tuned("resnet18", 0.2)),
    "TunedPlainHigh": ("{:.1f}", tuned("resnet18", 0.4)),
    "TunedSELow": ("{:.1f}", tuned("se_resnet18", 0.2)),
    "TunedSEHigh": ("{:.1f}", tuned("se_resnet18", 0.4)),
    "TunedPlainCost": ("{:.1f}", lambda results: tuned("resnet18", 0.2)(results) - tuned("resnet18", 0.4)(results)),
    "CatDifference": ("{:.1f}", lambda results: recall_differences().loc["cat", "difference_pp"]),
    "ChurnApart": ("{:.1f}", cell(CHURN, pair="SE-ResNet-18 − ResNet-18, different seeds", column="percent")),
    "ChurnSE": ("{:.1f}", cell(CHURN, pair="two runs of SE-ResNet-18", column="percent")),
    "ChurnPlain": ("{:.1f}", cell(CHURN, pair="two runs of ResNet-18", column="percent")),
    "SeedCorrelationInterval": ("{0[0]:.2f} to {0[1]:.2f}", correlation_interval),
    "DifferenceSD": ("{:.2f}", replicated("sd_difference_pp")),
    "SeedCorrelation": ("{:.2f}", replicated("seed_correlation")),
    "ChanceGain": ("{:.0f}", pairs_for_one_gain),
}

# (sentence as it stands in paper.tex, function of the results that must be true)
CLAIMS = [
    (
        r"The comparison is not complete; the number of finished pairs is \FinishedPairs{} of \PlannedPairs{}",
        lambda results: results["primary"]["n_pairs"] < results["primary"]["planned_pairs"],
    ),
    (
        "The primary comparison is not complete yet, and its difference has not been computed.",
        lambda results: not results["primary"]["complete"] and results["primary"]["difference_pp"] is None,
    ),
    (
        "SE at its rate of 0.4 did worse than the plain network at 0.2, on these test images",
        lambda results: (
            replicated("complete")(results)
            and replicated("seed_interval_pp")(results)[1] < 0
            and replicated("crossed_interval_pp")(results)[1] < 0
        ),
    ),
    (
        r"Orange: our ten longer pairs (Section~\ref{sec:longer}), with intervals over seeds",
        lambda results: all(runs(stage, "finished")(results["replication"]) == 0 for stage in ("short", "controls")),
    ),
    (
        "all ten differences are negative",
        lambda results: (replicated("difference_pp")(results) < 0, replicated("sign_flip_p")(results)) == (True, 2**-9),
    ),
    (
        "so the worse test accuracy is not overfitting",
        lambda results: (
            replicated_arm("se_resnet18", "train_loss_mean")(results)
            > replicated_arm("resnet18", "train_loss_mean")(results)
        ),
    ),
    (
        "In blocks 6 and 8 of all ten runs, in block 4 of seven and in block 7 of four, the gates are one half",
        lambda results: (
            [replicated_block(block, "n_constant")(results) for block in range(1, 9)] == [0, 0, 0, 7, 0, 10, 4, 10]
        ),
    ),
    (
        "Block by block, a loss is visible only in the first three",
        lambda results: (
            [block for block in range(1, 9) if (lesion("shuffled", f"block{block}", "low_pp")(results) or 0) > 0]
            == [1, 2, 3]
        ),
    ),
    (
        "In block 7 of the other six runs the gates follow the class most closely",
        lambda results: (
            max(results["replication"]["gate_table"], key=lambda row: row["eta_squared"] or 0)["block"] == "block7"
        ),
    ),
    (
        "Yet no loss is visible when they are fixed there.",
        lambda results: lesion("mean", "block7", "low_pp")(results) <= 0,
    ),
    (
        "no gain in precision is visible",
        lambda results: correlation_interval(results)[0] < 0 < correlation_interval(results)[1],
    ),
    (
        "Neither has enough runs yet.",
        lambda results: not results["trends"],
    ),
    (
        "The literal reading, in which the gate scales the skip path, remains open.",
        lambda results: runs("literal", "finished")(results) == 0,
    ),
    (
        "The Brier score agrees with the accuracy.",
        lambda results: replicated_brier("interval")(results)[0] > 0,
    ),
    (
        "It is exploratory, and none of its runs is finished.",
        lambda results: runs("plain_rate", "finished")(results["replication"]) == 0,
    ),
    (
        "Ten pairs remain planned.",
        lambda results: results["primary"]["planned_pairs"] == 10,
    ),
    (
        "The rate 0.2 won for the plain network and 0.4 for SE.",
        lambda results: (
            results["winners"] == {"resnet18": {"learning_rate": 0.2}, "se_resnet18": {"learning_rate": 0.4}}
        ),
    ),
    (
        "All runs read the official CIFAR-10 images, and none has diverged.",
        lambda results: (
            (results["data_source"], results["data_fingerprint"]) == ("cifar10", OFFICIAL_FINGERPRINT)
            and "diverged and excluded" not in kinds_of_deviations(results)
        ),
    ),
    (  # a copy without git's history cannot tell, and need not
        r"The plan, \path{report/preregistration.md}, was committed before the first primary run.",
        lambda results: "preregistered after the first primary run" not in kinds_of_deviations(results),
    ),
    (
        r"\caption{The stages of the preregistered study, in the order in which they are run.}",
        lambda results: tuple(row["stage"] for row in results["stages"]) == STAGES,
    ),
]
