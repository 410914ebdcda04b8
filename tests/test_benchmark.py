"""The arithmetic of the benchmark, and the notebook itself on a network that takes no time."""

import json

import pandas as pd
import pytest

from lib import benchmark
from lib.__main__ import main
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS, outputs_folder

TINY = {"width": 1 / 16, "batch_size": 32, "rounds": 2, "workers": 1, "with_compile": False, "dataset": "digits"}


@pytest.fixture
def times():
    seconds = {"slow": [4.0, 8.0, 4.0], "fast": [1.0, 2.0, 2.0]}
    rows = [(turn, name, value) for name, values in seconds.items() for turn, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["round", "contender", "seconds"])


def test_speeds_are_medians_and_ratios_are_taken_within_a_round(times):
    speeds = benchmark.summarise(times, 8, "slow")
    assert list(speeds.index) == ["slow", "fast"]
    assert speeds["images_per_second"].to_list() == [2, 4]
    assert speeds["times_slow"].to_list() == [1, 4]  # of 4, 4 and 2, where the medians' ratio would be 2
    assert speeds.loc["fast", "times_slow_q1"] == 3


def test_images_may_differ_between_contenders(times):
    speeds = benchmark.summarise(times, pd.Series({"slow": 8, "fast": 16}), "slow")
    assert speeds["images_per_second"].to_list() == [2, 8]


def test_step_time_ratio_is_a_median_over_rounds(times):
    assert benchmark.step_time_ratio(times, "slow", "fast") == {"median": 4, "q1": 3, "q3": 4}


def test_contenders_take_turns_back_and_forth_after_a_warm_up():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) or 1.0 for name in "ab"}
    times = benchmark.interleave(contenders, 3)
    assert calls == list("aabb" + "ab" + "ba" + "ab")
    assert times["contender"].to_list() == list("abbaab")
    assert times["round"].to_list() == [0, 0, 1, 1, 2, 2]


def test_growth_is_compared_with_the_first_size(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def measure(size):
        clock[0] += 1 + size  # a fixed cost of one

    table = benchmark.scaling(measure, [1, 3])
    assert table["seconds"].to_list() == [2, 4]
    assert table["relative_to_first"].to_list() == [1, pytest.approx(2 / 3)]


def results(device):
    ratio = {"median": 3.0, "q1": 2.9, "q3": 3.1}
    return {
        "environment": {"device": device},
        "speed_ratio": {name: ratio for name in ("ours / everyday", "ours, SE / everyday, SE", "ours / resident")},
        "share_of_matmul": {"ours": 0.4},
        "se_step_time_ratio": {"ours": {"median": 1.06}},
        "whole_run": {"wall_seconds": 100, "train_seconds": 75},
        "analysis": {"finished_runs": 200, "seconds": 30.0},
    }


@pytest.mark.parametrize(
    ("device", "met"),
    [("cpu", [True, True, False, False, True]), ("cuda", [False, False, True, True, False, False, True])],
)
def test_targets_depend_on_the_device_and_may_be_missed(device, met):
    rows = benchmark.compare_with_targets(results(device))
    assert [row["met"] for row in rows] == met
    assert {row["target"].split()[1] for row in rows} == {"least", "most"}


def test_the_notebook_measures_everything_and_writes_its_results(tmp_path):
    parameters = {**TINY, "finished_runs": 4}
    NotebookProcess(NOTEBOOKS / "benchmark.ipynb", tmp_path / "b.ipynb", tmp_path / "log", parameters).wait()
    (folder,) = outputs_folder("benchmark").iterdir()
    written = json.loads((folder / "results.json").read_text())
    speeds = written["speeds"]
    assert {"ours", "ours, SE", "everyday", "everyday, SE", "resident", "without channels-last"} <= set(speeds)
    assert all(speed["images_per_second"] > 0 for speed in speeds.values())
    assert list(written["images_per_second_at_once"]) == ["1", "2"]
    assert 0 < written["whole_run"]["train_seconds"] < written["whole_run"]["wall_seconds"]
    assert len(written["targets"]) == 5
    assert (folder / "figures" / "speed.png").stat().st_size > 10_000


def test_options_of_a_study_do_not_fit_the_benchmark(capsys):
    assert main(["--study", "benchmark", "--jobs", "2"]) == 1
    assert "the benchmark takes no further options" in capsys.readouterr().err
