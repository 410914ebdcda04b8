"""Plain facts of a study that the paper states: its kind, size and machine."""

from lib.config import STAGE_WIDTHS, scaled
from lib.deviations import PREREGISTERED
from lib.paths import run_folder
from lib.runs import read_json

COPY = "cifar10-jpeg"  # the data source that is a JPEG copy of CIFAR-10
FRACTIONS = {1: "full", 0.5: "half", 0.25: "quarter", 0.125: "eighth"}


def is_preregistered(study):
    """Whether this is the study with a preregistration, and no rehearsal of it."""
    return study.name == PREREGISTERED


def environment(study):
    """What the baseline's first run ran on, {} where that is unknown."""
    return read_json(run_folder(study.name, study.baseline, 0) / "environment.json") or {}


def width_name(config):
    """The width of a network in words, as in "eighth width"."""
    return FRACTIONS.get(config.width, f"{config.width:g} of the")


def stage_widths(config):
    """Channels of the four stages."""
    return scaled(STAGE_WIDTHS, config.width)


def hidden_units(config):
    """Hidden units of the SE gates in the four stages."""
    return [width // config.reduction for width in stage_widths(config)]


def warmup_percent(config):
    """Share of the updates in which the learning rate rises, in percent."""
    return 100 * config.warmup_epochs / config.epochs


def table_rows(results, *tables):
    """All rows of these tables of results.json, one after the other; none of a table that is not there."""
    return [row for name in tables for row in results.get(name) or []]


def table_row(results, table, **values):
    """The first row of a table of results.json with these values, or None."""
    return next((row for row in table_rows(results, table) if {name: row[name] for name in values} == values), None)
