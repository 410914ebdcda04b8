"""The arithmetic of the benchmark, the check of the step, and the notebook itself on a network that takes no time."""

import json

import pandas as pd
import papermill
import pytest
import torch

from lib import benchmark
from lib.files import NOTEBOOKS, ROOT, outputs_folder
from lib.train.trainer import Speedups, Trainer

CPU = torch.device("cpu")
TIMES = pd.DataFrame({"slow": [4.0, 8.0, 4.0], "fast": [1.0, 2.0, 2.0]})


def test_speeds_are_medians_and_ratios_are_taken_within_a_round():
    speeds = benchmark.summarise(TIMES, 8, "slow")
    assert list(speeds.index) == ["slow", "fast"]
    assert speeds["images_per_second"].to_list() == [2, 4]
    assert speeds["times_slow"].to_list() == [1, 4]  # of 4, 4 and 2, where the medians' ratio would be 2
    assert speeds.loc["fast", "times_slow_q1"] == 3
    assert benchmark.time_ratio(TIMES, "slow", "fast") == {"median": 4, "q1": 3, "q3": 4}


def test_contenders_take_turns_back_and_forth_after_a_warm_up():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    *_, times = benchmark.measure(contenders, 3)
    assert calls == list("aaabbb" + "ba" + "ab")
    assert times.to_dict("list") == {"a": [3, 8, 9], "b": [6, 7, 10]}


def test_each_speedup_that_the_device_has_is_taken_away_alone(make_config, monkeypatch):
    everything = Speedups(compiled=True, cuda_graph=True)
    built = []
    monkeypatch.setattr(benchmark, "choose_speedups", lambda *_: everything)
    monkeypatch.setattr(benchmark, "random_trainer", lambda *how: built.append(how))
    names = list(benchmark.contenders(make_config(architecture="resnet18"), 1, CPU, "bf16"))
    taken = [{field for field, has in vars(speedups).items() if not has} for *_, speedups in built]
    assert dict(zip(names, taken, strict=True)) == {
        "ours": set(),
        "ours, SE": set(),
        "without torch.compile": {"compiled"},
        "without CUDA graph": {"cuda_graph"},
        "without fused optimizer": {"fused_optimizer", "cuda_graph"},
        "without channels-last": {"channels_last"},
        "without half precision": set(),
    }
    assert [precision for *_, precision, _ in built] == 6 * ["bf16"] + ["fp32"]


def test_our_steps_stay_close_to_the_reference_and_others_are_found(make_config, monkeypatch):
    assert benchmark.loss_gap(make_config(), CPU, "fp32", steps=4) < 1e-3

    class Wrong(Trainer):
        def _loss(self, order, top, left, flip):
            return super()._loss(order.flip(0) if self.speedups.channels_last else order, top, left, flip)

    monkeypatch.setattr(benchmark, "Trainer", Wrong)
    assert benchmark.loss_gap(make_config(), CPU, "fp32", steps=4) > 1e-3


@pytest.mark.slow
def test_the_notebook_measures_all_contenders_and_writes_its_results(tmp_path):
    tiny = {"width": 1 / 16, "batch_size": 32, "rounds": 2, "steps": 1, "workers": 1}
    notebook = NOTEBOOKS / "benchmark.ipynb"
    papermill.execute_notebook(notebook, None, tiny, kernel_name="python3", cwd=ROOT, progress_bar=False)
    (folder,) = outputs_folder("benchmark").iterdir()
    written = json.loads((folder / "results.json").read_text())
    speeds = written["speeds"]
    assert {"everyday", "resident", "ours", "ours, SE", "without channels-last"} <= set(speeds)
    assert all(speed["images_per_second"] > 0 for speed in speeds.values())
    assert written["speed_ratio"]["ours / everyday"]["median"] == speeds["ours"]["times_everyday"]
    assert list(pd.read_csv(folder / "speeds.csv")["contender"]) == list(speeds)
