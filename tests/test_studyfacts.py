"""Facts of a study as the paper states them, and rows of its results."""

import pytest
from papercases import full_study

from lib.study import load_study
from lib.studyfacts import (
    hidden_units,
    is_preregistered,
    stage_widths,
    table_row,
    table_rows,
    warmup_percent,
    width_name,
)

RESULTS = {"one": [{"arm": "a", "n": 1}, {"arm": "b", "n": 2}], "two": [{"arm": "a", "n": 3}], "none": None}


def test_sizes_are_those_of_the_study_files():
    full, laptop = full_study().run("se_resnet18", 0), load_study("laptop").runs[0]
    assert (width_name(full), width_name(laptop)) == ("full", "eighth")
    assert hidden_units(full) == [4, 8, 16, 32] and list(stage_widths(laptop)) == [8, 16, 32, 64]
    assert warmup_percent(full) == pytest.approx(10)


def test_only_the_study_with_a_preregistration_is_preregistered():
    assert is_preregistered(full_study()) and not is_preregistered(load_study("laptop"))


def test_rows_of_tables_follow_each_other_and_missing_tables_have_none():
    assert [row["n"] for row in table_rows(RESULTS, "two", "missing", "none", "one")] == [3, 1, 2]


def test_a_row_is_found_by_its_values():
    assert table_row(RESULTS, "one", arm="b") == {"arm": "b", "n": 2}
    assert table_row(RESULTS, "one", arm="a", n=2) is None and table_row(RESULTS, "missing", arm="a") is None
