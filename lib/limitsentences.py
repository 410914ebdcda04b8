"""Sentences of the paper on what SE costs, and on what the size of the study cannot show."""

from lib.paths import outputs_folder
from lib.runs import read_json
from lib.studyfacts import environment, hidden_units, is_preregistered, width_name
from lib.wording import in_words

PUBLISHED_ACCURACY = 95.28  # ResNet-18 without Cutout, DeVries & Taylor 2017, table 1


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
        longest = max(each.epochs for each in study.runs if each.train_fraction == 1)
        return (
            f"Training lasts {config.epochs} epochs, and {longest} for a few pairs, where 200 are common; effects of "
            "longer training cannot show."
        )
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
