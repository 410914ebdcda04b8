"""Sentences of the paper on what was done: what is reported, the plan, the images and the tuning."""

from lib.deviations import PREREGISTERED
from lib.study import load_study
from lib.studyfacts import COPY, is_preregistered, table_rows, warmup_percent, width_name
from lib.wording import escaped, in_words, signed

IMAGES = 50_000  # training images of CIFAR-10


def standing(study, results):
    """What is reported: the preregistered study, or its rehearsal."""
    if not is_preregistered(study):
        config, copy = study.run(study.baseline, 0), ", on a JPEG copy of the images"
        return (
            r"\textbf{We report the rehearsal of a preregistered study} that has not been run at full width yet: "
            f"{width_name(config)} width, {in_words(config.epochs)} epochs{copy * (results['data_source'] == COPY)}. "
            "It tries out the method and settles nothing about full width."
        )
    if results["preregistration"]["older"]:
        return "Question, arms, tests and rules of decision were preregistered."
    return "The plan is not known to be older than the runs, so that all tests count as exploratory."


def preregistration(study, results):
    """Whether the plan is older than the runs; of a rehearsal, what it changes in the plan."""
    record = results["preregistration"]
    if not is_preregistered(study):
        return (
            "The plan for full width is preregistered; the rehearsal keeps its tests, margins and rules and changes "
            f"{_changes(study)}."
        )
    if record["older"] is None:
        return f"Whether the plan is older than the runs is unknown ({escaped(record['unknown_because'])})."
    order = "before" if record["older"] else r"\emph{after}"
    return f"The plan was committed ({record['commit']}) {order} the first run was finished."


def _changes(study):
    """What a rehearsal does otherwise than the preregistered study."""
    full = load_study(PREREGISTERED)
    theirs, ours = ([*each.runs, *each.awaiting][0] for each in (full, study))
    changed = [
        ("width", theirs.width != ours.width),
        (f"length ({theirs.epochs} epochs)", theirs.epochs != ours.epochs),
        (f"warm-up ({warmup_percent(theirs):.0f}\\,\\%)", warmup_percent(theirs) != warmup_percent(ours)),
        (f"$r$ ({theirs.reduction}, too large for these widths)", theirs.reduction != ours.reduction),
        ("the grid (no weight decay)", set(full.tuning.grid) != set(study.tuning.grid)),
        ("the numbers of runs", len(full.stages[0].seeds) != len(study.stages[0].seeds)),
    ]
    *most, last = [name for name, differs in changed if differs]
    return f"{', '.join(most)} and {last}" if most else last


def deviations(study, results):
    """All deviations from the plan."""
    found = results.get("deviations") or []
    if found:
        return escaped(" ".join(["Deviations from the plan:", *found]))
    return "No deviation is on record." if is_preregistered(study) else ""


def data_source(study, results):
    """Which images were used."""
    if results["data_source"] != COPY:
        return "The images are those of the official archive."
    return (
        "The images are a JPEG copy (quality 75, 4:2:0) of all 60,000 in official order, the same for all arms, which "
        "lowers every accuracy."
    )


def tuning(study, results):
    """Grid, budget, scores and winners of the tuning, and whether these lie at the edge of the grid."""
    plan = study.tuning
    grid = " and ".join(
        f"{name.replace('_', ' ')} in {', '.join(f'{value:g}' for value in values)}"
        for name, values in plan.grid.items()
    )
    return (
        f"Both arms are tuned alike: {grid}, {in_words(len(plan.seeds))} seeds each that are used nowhere else, "
        f"{IMAGES - plan.validation_images:,} images to train, {plan.validation_images:,} to judge; the default "
        f"({_cell(study.tuning_default)}) stays unless beaten by the standard error of a difference. "
        f"{_scores(study, results)}{_winners(study, results)}"
    )


def _cell(cell):
    return ", ".join(f"{value:g}" for value in cell.values())


def _scores(study, results):
    """Mean accuracies on the held-out images along the first setting of the grid, at the best of the others."""
    table = table_rows(results, "tuning")
    first, *_ = study.tuning.grid
    values = study.tuning.grid[first]
    best = {
        arm: [max((row[arm] for row in table if row[first] == value), default=None) for value in values]
        for arm in (study.baseline, study.arm)
    }
    if any(score is None for scores in best.values() for score in scores):
        return ""
    base, gated = ("/".join(f"{score:.1f}" for score in best[arm]) for arm in (study.baseline, study.arm))
    gaps = [two - one for one, two in zip(best[study.baseline], best[study.arm], strict=True)]
    better = ", at the better of the other settings for each" if len(study.tuning.grid) > 1 else ""
    return (
        rf"Along the {first.replace('_', ' ')}{better} the baseline scores {base}\,\%, SE {gated}\,\% "
        f"(SE $-$ baseline {', '.join(signed(gap, 1) for gap in gaps)}). "
    )


def _winners(study, results):
    winners = results["winners"]
    named = {
        arm: ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in cell.items())
        for arm, cell in winners.items()
    }
    base, arm = named[study.baseline], named[study.arm]
    won = f"{base} won for both" if base == arm else f"{base} won for the baseline and {arm} for SE"
    edges = [_edges(study.tuning.grid, winners[each]) for each in (study.baseline, study.arm)]
    told = f"at the edge of the grid in {edges[0]}: the best may lie beyond" if edges[0] else ""
    if edges[0] != edges[1]:
        told = "at the edge of the grid in " + " and ".join(
            f"{names} {owner}" for names, owner in zip(edges, ("for the baseline", "for SE"), strict=True) if names
        )
    return f"{won[0].upper()}{won[1:]}{told and f', {told}'}."


def _edges(grid, cell):
    """The settings of a cell that are the smallest or the largest value of the grid, in words."""
    return ", ".join(
        name.replace("_", " ") for name, values in grid.items() if cell[name] in (min(values), max(values))
    )
