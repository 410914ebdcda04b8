"""The benchmark's check of the step, and the whole notebook on a network that takes no time."""

import dataclasses
import json
from types import SimpleNamespace

import nbformat
import pandas as pd
import papermill
import pytest

from lib.files import NOTEBOOKS, ROOT, StudyError, outputs_folder
from lib.train.trainer import Speedups, Trainer

NOTEBOOK = NOTEBOOKS / "benchmark.ipynb"
SOURCES = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
TINY = {"width": 1 / 16, "batch_size": 32, "rounds": 2, "steps": 3, "workers": 1}


def check_the_step():
    """Execute the notebook, here, to the end of its check of the step; returns the gaps."""
    names, last = {}, next(index for index, source in enumerate(SOURCES) if "raise StudyError" in source)
    for source in SOURCES[1 : last + 1]:  # the first is for Colab
        exec(source, names)
        if "rounds" in names:
            names.update(TINY)
    return names["gaps"]


def test_our_steps_stay_close_to_the_plain_ones_and_a_wrong_step_ends_the_benchmark(monkeypatch):
    assert set(check_the_step()) == {"resnet18", "se_resnet18"}

    def wrong(self, order, top, left, flip):
        return right(self, order.flip(0) if self.speedups.channels_last else order, top, left, flip)

    right = Trainer._loss
    monkeypatch.setattr(Trainer, "_loss", wrong)
    with pytest.raises(StudyError, match="something else"):
        check_the_step()


@pytest.mark.parametrize(("gpu", "fused", "taken"), [(True, True, 2), (True, False, 1), (False, True, 3)])
def test_each_speedup_that_the_device_has_is_taken_away_alone(gpu, fused, taken):
    (source,) = [source for source in SOURCES if source.startswith("taken_away")]
    device = SimpleNamespace(type="cuda" if gpu else "cpu")
    names = {"device": device, "chosen": Speedups(True, fused, gpu, gpu and fused), "precision": "bf16"}
    names |= {"trainers": {"ours": 0}, "trainer": lambda *_, **how: how, "dataclasses": dataclasses}
    exec(source, names | {"everyday": dict, "resident": dict})
    assert len(names["trainers"]) == 1 + taken


@pytest.mark.slow
def test_the_notebook_measures_all_contenders_and_writes_its_results():
    papermill.execute_notebook(NOTEBOOK, None, TINY, kernel_name="python3", cwd=ROOT, progress_bar=False)
    (folder,) = outputs_folder("benchmark").iterdir()
    written = json.loads((folder / "results.json").read_text())
    speeds = written["speeds"]
    assert {"everyday", "resident", "ours", "ours, SE", "without channels-last"} <= set(speeds)
    assert all(speed["images_per_second"] > 0 for speed in speeds.values())
    assert written["speed_ratio"]["ours / everyday"]["median"] == pytest.approx(speeds["ours"]["times_everyday"])
    assert list(pd.read_csv(folder / "speeds.csv")["contender"]) == list(speeds)
