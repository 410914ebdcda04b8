"""How the paper words numbers, differences and names of arms, as LaTeX text."""

import re

from lib.comparisons import LITERAL
from lib.config import SEPARATOR

STATIC, HALF = "static_gate_resnet18", "half_scale_resnet18"
STATIC_SKIP, HALF_SKIP = "static_gate_skip_resnet18", "half_scale_skip_resnet18"
ARM_NAMES = {
    "resnet18": "baseline",
    "se_resnet18": "SE",
    LITERAL: "SE on skip",
    STATIC: "static gate",
    STATIC_SKIP: "static on skip",
    HALF: "half scale",
    HALF_SKIP: "half on skip",
    "wide_resnet18": "wide",
}
COUNTS = dict(enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=2))
MOST_NAMED = 3  # of differences in one sentence; the figures show all


def arm_name(arm):
    """What an arm is called in the paper; an arm that the paper does not know keeps its own name."""
    base, _, variant = arm.partition(SEPARATOR)
    reduction = re.fullmatch(r"se_resnet18_r(\d+)", base)
    name = f"SE, r = {reduction[1]}" if reduction else ARM_NAMES.get(base, base)
    return f"{name}, {variant.replace('_', ' ')}" if variant else name


def comparison_name(row):
    """A comparison, arm − reference, in the names of the paper."""
    return f"{arm_name(row['arm'])} − {arm_name(row['reference'])}"


def named_effects(rows):
    named = [f"{escaped(comparison_name(row))}, {effect(row)}" for row in rows]
    return "; ".join(first_names(named))


def first_names(names):
    """The first names and how many more there are: a sentence of the paper must not grow without end."""
    rest = len(names) - MOST_NAMED
    return [*names[:MOST_NAMED], *([f"and {rest} more"] if rest > 0 else [])]


def effect(row):
    """A difference with its interval, as LaTeX text."""
    return f"{signed(row['difference_pp'])} ({span([row['low_pp'], row['high_pp']])})"


def excludes_zero(row):
    """Whether the interval of a row is known and excludes zero."""
    return row["low_pp"] is not None and (row["low_pp"] > 0 or row["high_pp"] < 0)


def signed(value, decimals=2):
    """A number with its sign, as LaTeX mathematics."""
    return "--" if value is None else f"${value:+.{decimals}f}$"


def span(interval, decimals=2):
    """An interval, as LaTeX text."""
    return (
        "no interval"
        if interval is None or None in interval
        else " to ".join(signed(end, decimals) for end in interval)
    )


def p_value(value):
    """A p-value with its relation, as LaTeX mathematics."""
    return "$p$ unknown" if value is None else "$p<0.001$" if value < 0.001 else f"$p={value:.3f}$"


def percent(fraction, decimals=2):
    """A fraction in percent, without the sign for it."""
    return "--" if fraction is None else f"{100 * fraction:.{decimals}f}"


def share(fraction):
    """A probability in whole percent, as LaTeX text."""
    return r"less than 1\,\%" if fraction < 0.01 else rf"{100 * fraction:.0f}\,\%"


def escaped(text):
    """Text with the characters that mean something to LaTeX, and the minus sign, made safe."""
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$"}
    return text.translate(str.maketrans(special))


def in_words(count):
    return COUNTS.get(count, str(count))
