"""What the paper says of a study, made from its results.json: macros, a table and figures; no torch."""

from scipy import stats

from lib.errors import StudyError
from lib.paths import outputs_folder, run_folder, shown
from lib.reflectionsentences import PUBLISHED_GAIN_PP
from lib.runs import atomic_write, read_json
from lib.sentences import sentences
from lib.statistics import SMALLEST_EFFECT_PP
from lib.study import load_study
from lib.studyfacts import (
    environment,
    hidden_units,
    is_preregistered,
    stage_widths,
    table_rows,
    warmup_percent,
    width_name,
)
from lib.wording import arm_name, escaped, in_words, p_value, percent, signed, span

REPORTED = ("paper", "laptop")  # the first of these with a complete primary comparison is what the paper reports


def reported_study():
    """The study that the paper reports; raises StudyError where none has finished its primary comparison.

    A run that has diverged for good is settled: the comparison is then of the pairs that are left.
    """
    for name in REPORTED:
        study, results = load_study(name), read_json(outputs_folder(name) / "results.json")
        if results and 0 < results["primary"]["n_pairs"] == _settled_pairs(study):
            return study
    raise StudyError(f"no study has finished its primary comparison yet: ./run_all.sh --study {REPORTED[-1]} does")


def _settled_pairs(study):
    """Finished pairs of the primary comparison; None while a run of it is neither finished nor failed for good."""
    finished = 0
    for seed in max((stage.seeds for stage in study.stages if study.arm in stage.arms), key=len, default=()):
        folders = [run_folder(study.name, arm, seed) for arm in (study.arm, study.baseline)]
        done = [(folder / "summary.json").exists() for folder in folders]
        if not all(ready or (folder / "failure.json").exists() for ready, folder in zip(done, folders, strict=True)):
            return None
        finished += all(done)
    return finished


def write_report(study, folder):
    """Write numbers.tex, table_arms.tex and two figures of a study that has a results.json into `folder`.

    Equal results give equal files. Raises StudyError without results.json and as load_runs does.
    """
    from lib.paperfigures import write_figures  # slow to import, and only needed here

    source = outputs_folder(study.name)
    results = read_json(source / "results.json")
    if results is None:
        raise StudyError(f"{shown(source)}/results.json is missing: ./run_all.sh --study {study.name} writes it")
    lines = [f"\\newcommand\\{name}{{{value}}}" for name, value in macros(study, results).items()]
    _write(
        folder / "numbers.tex", "\n".join(["% Written by lib/report.py from results.json; not to be edited.", *lines])
    )
    # the rule belongs to the rows: after \input a table cannot take one
    _write(folder / "table_arms.tex", arms_table(study, results) + "\n\\bottomrule")
    write_figures(study, results, folder)


def macros(study, results):
    """{macro: LaTeX text} of everything in the paper that depends on the study or its results.

    Names with a capital are numbers and short names; names that end in Sentence are whole sentences, or empty.
    """
    values = _study_facts(study, results) | _primary_numbers(study, results) | sentences(study, results)
    return {name: str(value) for name, value in values.items()}


def _study_facts(study, results):
    config = study.run(study.baseline, 0)
    arms = {row["arm"]: row["parameters"] for row in results["all_arms"]}
    extra = {arm: f"{number - arms[study.baseline]:,}" for arm, number in arms.items()}
    record = environment(study)
    return {
        "Kind": "A Preregistered Test" if is_preregistered(study) else "A Rehearsal",
        "Width": width_name(config),
        "StageWidths": ", ".join(map(str, stage_widths(config))),
        "HiddenUnits": ", ".join(map(str, hidden_units(config))),
        "Reduction": config.reduction,
        "Epochs": in_words(config.epochs),
        "BatchSize": config.batch_size,
        "WarmupShare": f"{warmup_percent(config):.0f}",
        "WeightDecay": "weight decay" + ("" if "weight_decay" in study.tuning.grid else f" {config.weight_decay:g}"),
        "Pairs": results["primary"]["n_pairs"],
        "ControlPairs": _most_pairs(results, "controls"),
        "CurvePairs": _most_pairs(results, "curve_length", "curve_data"),
        "ProbeImages": f"{config.probe_images:,}",
        "Device": escaped(record.get("device_name", "unknown device")),
        "Precision": escaped(record.get("precision", "unknown precision").replace("bf16", "bfloat16")),
        "SeExtra": extra[study.arm],
        "WideExtra": extra.get("wide_resnet18", "not run"),
        "FullSizeCases": f"{1 / (2 * stats.norm.sf(PUBLISHED_GAIN_PP / (SMALLEST_EFFECT_PP * 2**0.5))):.0f}",
    }


def _most_pairs(results, *tables):
    """The largest number of pairs in these tables, in words."""
    return in_words(max((row["n_pairs"] for row in table_rows(results, *tables)), default=0))


def _primary_numbers(study, results):
    primary, secondary = results["primary"], results["secondary"]
    arms = {"Base": results["arms"][study.baseline], "Se": results["arms"][study.arm]}
    return {
        "Difference": signed(primary["difference_pp"]),
        "SeedInterval": span(primary["seed_interval_pp"]),
        "ImageInterval": span(primary["image_interval_pp"]),
        "BothInterval": span(primary["crossed_interval_pp"]),
        "PValue": p_value(primary["p_value"]),
        "TostP": p_value(primary["tost_p"]),
        **{f"Accuracy{name}": percent(arm["test_accuracy_mean"]) for name, arm in arms.items()},
        **{f"Spread{name}": percent(arm["test_accuracy_sd"]) for name, arm in arms.items()},
        "LossDifference": signed(secondary["difference_nats"], 3),
        "LossInterval": span(secondary["seed_interval_nats"], 3),
        "LossP": p_value(secondary["p_value"]),
    }


def arms_table(study, results):
    """Rows of the table of arms: n, accuracy with SD, paired difference from the baseline, and what it comes with.

    The difference is over the seeds that an arm shares with the baseline. Then loss, ECE, accuracy on corrupted images,
    parameters, multiply-adds, seconds.
    """
    differences, lines = _differences(study, results), []
    for row in results["all_arms"]:
        spread = "" if row["test_accuracy_sd"] is None else f" $\\pm$ {percent(row['test_accuracy_sd'])}"
        cells = [
            escaped(arm_name(row["arm"])),
            f"{row['n_runs']}",
            percent(row["test_accuracy_mean"]) + spread,
            "" if row["arm"] == study.baseline else signed(differences.get(row["arm"])),
            f"{row['test_loss_mean']:.3f}",
            percent(row["test_ece_mean"], 1),
            percent(row["corruption_accuracy_mean"], 1),
            f"{row['parameters'] / 1e6:.3f}",
            f"{row['multiply_adds'] / 1e6:.2f}",
            f"{row['train_seconds_median']:.0f}",
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(lines)


def _differences(study, results):
    """{arm: its mean paired difference from the baseline in points}."""
    rows = table_rows(results, "controls", "placement", "sensitivity")
    differences = {row["arm"]: row["difference_pp"] for row in rows if row["reference"] == study.baseline}
    return differences | {study.arm: results["primary"]["difference_pp"]}


def _write(path, text):
    atomic_write(path, lambda file: file.write((text + "\n").encode()))
