"""The numbers of the paper: LaTeX macros, a table and figures, made from the results.json of a study; no torch."""

import shutil

from lib.errors import StudyError
from lib.paths import outputs_folder, shown
from lib.runs import atomic_write, read_json
from lib.study import load_study

REPORTED = ("paper", "laptop")  # the first of these with a complete primary comparison is what the paper reports
LITERAL = "se_skip_resnet18"  # the arm of the literal reading of the brief
FIGURES = ("accuracy_by_seed", "controls", "gates", "curves")
WIDTHS = {1: "full", 0.5: "half", 0.25: "quarter", 0.125: "eighth"}
SOURCES = {
    "cifar10": "the official archive",
    "cifar10-jpeg": "a JPEG copy (quality 75, 4:2:0) of all 60,000 images in official order, not the original pixels, "
    "so that accuracies are below published ones and only differences are meant",
}
STANDING = {
    "paper": "the preregistered study at full width",
    "laptop": "a rehearsal on a CPU, with narrow and briefly trained networks, of a preregistered full-width study "
    "that has not been run yet",
}
SCALE_LIMITS = {
    "paper": "Effects that need longer training or larger inputs cannot show here",
    "laptop": "Narrow gates have few hidden units, and short training leaves gates near where they started; an effect "
    "that needs width or long training cannot show here, and one seen here need not persist there",
}
PUBLISHED_GAIN_PP = 0.39  # WRN-16-8, Hu et al. 2018, table 4
PUBLISHED_ACCURACY = 95.28  # percent, ResNet-18 without Cutout, DeVries & Taylor 2017
DECISIONS = {
    "superior": "SE improved accuracy, by an amount estimated to be large enough to matter",
    "inferior": "SE lowered accuracy, by an amount estimated to be large enough to matter",
    "different but negligible": "SE changed accuracy by less than would matter",
    "equivalent": "SE made no difference that would matter",
    "different, size unclear": "SE changed accuracy, and whether by enough to matter is unclear",
    "inconclusive": "neither an effect of SE nor its absence is shown",
    None: "there are too few seeds to decide",
}


def reported_study():
    """The study that the paper reports; raises StudyError where none has finished its primary comparison."""
    for name in REPORTED:
        study, results = load_study(name), read_json(outputs_folder(name) / "results.json")
        planned = max((len(stage.seeds) for stage in study.stages if study.arm in stage.arms), default=0)
        if results and results["primary"]["n_pairs"] == planned:
            return study
    raise StudyError(f"no study has finished its primary comparison yet: ./run_all.sh --study {REPORTED[-1]} does")


def write_report(study, folder):
    """Write numbers.tex, table.tex and the figures of a study with a results.json into `folder`."""
    source = outputs_folder(study.name)
    results = read_json(source / "results.json")
    if results is None:
        raise StudyError(f"{shown(source)}/results.json is missing: ./run_all.sh --study {study.name} writes it")
    lines = [f"\\newcommand\\{name}{{{value}}}" for name, value in macros(study, results).items()]
    _write(folder / "numbers.tex", "\n".join(["% Written from results.json; not to be edited.", *lines]))
    # the rule belongs to the rows: after \\input a table cannot take one
    _write(folder / "table.tex", arms_table(results) + "\n\\bottomrule")
    for name in FIGURES:
        figure = source / "figures" / f"{name}.pdf"
        if figure.exists():
            shutil.copyfile(figure, folder / figure.name)


def macros(study, results):
    """{macro: LaTeX text} of everything in the paper that depends on the results."""
    primary, config = results["primary"], study.runs[-1]
    arms = {"Base": results["arms"][study.baseline], "Se": results["arms"][study.arm]}
    recipe = study.run(study.baseline, 0)
    values = {
        "Standing": STANDING[study.name],
        "DataSource": SOURCES[results["data_source"]],
        "Width": WIDTHS[config.width],
        "Epochs": recipe.epochs,
        "BatchSize": recipe.batch_size,
        "Reduction": recipe.reduction,
        "WarmupShare": f"{100 * recipe.warmup_epochs / recipe.epochs:.0f}",
        "WeightDecay": f"{recipe.weight_decay:g}",
        "Winners": _winners(results["winners"]),
        "Pairs": primary["n_pairs"],
        "ControlPairs": max((row["n_pairs"] for row in results["controls"]), default=0),
        "Difference": signed(primary["difference_pp"]),
        "SeedInterval": span(primary["seed_interval_pp"]),
        "ImageInterval": span(primary["image_interval_pp"]),
        "BothInterval": span(primary["crossed_interval_pp"]),
        "PValue": p_value(primary["p_value"]),
        "TostP": p_value(primary["tost_p"]),
        "SdDifference": f"{primary['sd_difference_pp']:.2f}",
        "Correlation": signed(primary["seed_correlation"]),
        "Detectable": f"{primary['detectable_difference_pp']:.2f}",
        "EquivalencePower": f"{100 * primary['equivalence_power']:.0f}",
        "Wins": primary["wins"],
        "Decision": DECISIONS[primary["decision"]],
        "DecisionName": primary["decision"],
        "PublishedGain": _published_gain(primary["sd_difference_pp"]),
        "ScaleLimit": SCALE_LIMITS[study.name],
        "BaselineGap": _baseline_gap(100 * arms["Base"]["test_accuracy_mean"]),
        "ImageDecision": _image_decision(primary),
        **{f"Accuracy{name}": f"{100 * arm['test_accuracy_mean']:.2f}" for name, arm in arms.items()},
        **{f"Spread{name}": f"{100 * arm['test_accuracy_sd']:.2f}" for name, arm in arms.items()},
        "LossDifference": signed(results["secondary"]["difference_nats"], 3),
        "LossInterval": span(results["secondary"]["seed_interval_nats"], 3),
        "LossP": p_value(results["secondary"]["p_value"]),
        "ChurnArms": f"{results['churn']['between_arms_other_seed']:.1f}",
        "ChurnBase": f"{results['churn']['between_baselines']:.1f}",
        "DisagreementRatio": f"{results['disagreement']['ratio']:.2f}",
        "DisagreementP": p_value(results["disagreement"]["p_value"]),
    }
    return values | _tables(study, results)


def _tables(study, results):
    corruption = next(r for r in results["corruptions"] if r["corruption"] == "mean" and r["severity"] == 0)
    gates = [row for row in results["gates"] if row["arm"] == study.arm]
    lost = {row["intervention"]: row for row in results["interventions"] if row["block"] == "all"}
    classes = [row for row in results["recall_by_class"] if row["p_fdr"] is not None and row["p_fdr"] < 0.05]
    significant = [row for row in results["controls"] if row["p_adjusted"] < 0.05]
    lossless = {row["arm"]: row for row in results["lossless"]}
    literal = next((row for row in results["controls"] if row["arm"] == LITERAL), {})
    ece = next(row for row in results["calibration"] if row["metric"] == "ece")
    return {
        "Corruption": f"{signed(corruption['difference_pp'])} ({span([corruption['low_pp'], corruption['high_pp']])})",
        "GateLow": f"{min(row['mean'] for row in gates):.2f}",
        "GateHigh": f"{max(row['mean'] for row in gates):.2f}",
        "EtaFirst": f"{gates[0]['eta_squared']:.2f}",
        "EtaLast": f"{gates[-1]['eta_squared']:.2f}",
        "LostMean": f"{lost['mean']['drop_pp']:.2f}",
        "LostMeanInterval": span([lost["mean"]["low_pp"], lost["mean"]["high_pp"]]),
        "LostShuffled": f"{lost['shuffled']['drop_pp']:.2f}",
        "LostShuffledInterval": span([lost["shuffled"]["low_pp"], lost["shuffled"]["high_pp"]]),
        "LiteralDifference": signed(literal.get("difference_pp")),
        "LiteralInterval": span([literal.get("low_pp"), literal.get("high_pp")]),
        "ClassesSentence": _classes(classes),
        "ControlsSentence": _controls(significant, results["controls"]),
        "LosslessSentence": _lossless(lossless.get(study.baseline), results["lossless_difference"]),
        "EceDifference": f"{signed(ece['difference'], 3)} ({span([ece['low'], ece['high']], 3)})",
    }


def _published_gain(spread_pp):
    gain = f"The published gain nearest to ours, {PUBLISHED_GAIN_PP} points, is"
    spread = f"the SD of our paired differences, {spread_pp:.2f}"
    if spread_pp > PUBLISHED_GAIN_PP:
        return f"{gain} smaller than {spread}: a single pair shows as much by chance"
    return f"{gain} {PUBLISHED_GAIN_PP / spread_pp:.1f} times {spread}: a single pair is weak evidence for it"


def _baseline_gap(percent):
    return (
        f"the baseline here is {abs(gap := PUBLISHED_ACCURACY - percent):.1f} points {'below' if gap > 0 else 'above'}"
    )


def _image_decision(primary):
    if primary["image_decision"] == primary["decision"]:
        return "The interval over images leads to the same reading"
    return f"The interval over images leads to another reading: {DECISIONS[primary['image_decision']]}"


def _classes(classes):
    if not classes:
        return "No class differs after adjustment for ten classes"
    return "After adjustment, these classes differ: " + ", ".join(
        f"{row['class']} ({signed(row['difference_pp'])})" for row in classes
    )


def _controls(significant, controls):
    if not controls:
        return "The controls have not been run"
    if not significant:
        clear = [row for row in controls if (row["low_pp"] or 0) > 0 or (row["high_pp"] or 0) < 0]
        named = "; ".join(
            f"{escaped(row['comparison'])}, {signed(row['difference_pp'])} ({span([row['low_pp'], row['high_pp']])})"
            for row in clear
        )
        none = "No control comparison is significant after Holm's adjustment"
        return f"{none}; unadjusted intervals that exclude zero: {named}" if clear else none
    return "Significant after Holm's adjustment: " + "; ".join(
        f"{escaped(row['comparison'])} ({signed(row['difference_pp'])})" for row in significant
    )


def _lossless(baseline, difference):
    if baseline is None:
        return "The images are the original ones"
    return (
        "On the test images whose original bytes are at hand, the baseline reaches "
        f"{baseline['accuracy_lossless']:.2f}\\,\\% "
        f"against {baseline['accuracy_copy']:.2f}\\,\\% on their JPEG copies; the difference between the arms there is "
        f"{signed(difference['difference_pp'])} ({span(difference['interval_pp'])})"
    )


def _winners(winners):
    named = {
        arm: ", ".join(f"{escaped(name.replace('_', ' '))} {value:g}" for name, value in cell.items())
        for arm, cell in winners.items()
    }
    if len(set(named.values())) == 1:
        return f"{next(iter(named.values()))} for both arms"
    return "; ".join(f"{cell} for {escaped(arm)}" for arm, cell in named.items())


def arms_table(results):
    """Rows of the table of arms: accuracy and its SD over seeds, loss, ECE, corruptions, size and multiply-adds."""
    lines = []
    for row in results["all_arms"]:
        spread = "" if row["test_accuracy_sd"] is None else f" $\\pm$ {100 * row['test_accuracy_sd']:.2f}"
        cells = [
            escaped(row["arm"].replace("_resnet18", "").replace("resnet18", "baseline")),
            f"{row['n_runs']}",
            f"{100 * row['test_accuracy_mean']:.2f}{spread}",
            f"{row['test_loss_mean']:.3f}",
            f"{100 * row['test_ece_mean']:.1f}",
            f"{100 * row['corruption_accuracy_mean']:.1f}",
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e6:.2f}",
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(lines)


def signed(value, decimals=2):
    """A number with its sign, as LaTeX mathematics."""
    return "--" if value is None else f"${value:+.{decimals}f}$"


def span(interval, decimals=2):
    """An interval, as LaTeX text."""
    return "none" if interval is None or None in interval else " to ".join(signed(end, decimals) for end in interval)


def p_value(value):
    """A p-value with its relation, as LaTeX mathematics."""
    return "$p$ not known" if value is None else "$p<0.001$" if value < 0.001 else f"$p={value:.3f}$"


def escaped(text):
    """Text with LaTeX's underscores and the minus sign made safe."""
    return text.replace("_", r"\_").replace("−", "$-$")


def _write(path, text):
    atomic_write(path, lambda file: file.write((text + "\n").encode()))
