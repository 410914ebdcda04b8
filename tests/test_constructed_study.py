"""The analysis notebook on studies whose truth is known: it finds what is there, and nothing where there is nothing."""

import json

import pytest
import yaml

from lib.madeup import make_up_run
from lib.notebooks import NotebookProcess
from lib.paths import NOTEBOOKS, outputs_folder, run_folder
from lib.study import load_study

CONTROLS = ["se_skip_resnet18", "static_gate_resnet18"]


@pytest.fixture
def analyse(tmp_path):
    """Makes up a study with these accuracies of its arms and returns the results.json of its analysis."""

    def analyse(accuracies, seeds):
        arms = list(accuracies)
        content = {
            "title": "Made up",
            "primary": {"arm": "se_resnet18", "baseline": "resnet18"},
            "recipe": {"dataset": "digits", "epochs": 3, "warmup_epochs": 1},
            "arms": {arm: {} for arm in arms},
            "stages": [{"name": "primary", "arms": arms[:2], "seeds": seeds}],
        }
        if arms[2:]:
            content["stages"].append({"name": "controls", "arms": arms[2:], "seeds": seeds})
        path = tmp_path / "constructed.yaml"
        path.write_text(yaml.safe_dump(content))
        for config in load_study(str(path)).runs:
            make_up_run(run_folder("constructed", config.arm, config.seed), config, accuracies[config.arm])
        output = outputs_folder("constructed") / "analysis.ipynb"
        NotebookProcess(NOTEBOOKS / "analysis.ipynb", output, tmp_path / "log", {"study": str(path)}).wait()
        return json.loads((output.parent / "results.json").read_text())

    return analyse


def test_an_effect_that_is_there_is_found_and_laid_at_the_right_door(analyse):
    results = analyse({"resnet18": 0.9, "se_resnet18": 0.91, CONTROLS[0]: 0.9, CONTROLS[1]: 0.91}, seeds=8)
    primary = results["primary"]
    assert primary["decision"] == primary["image_decision"] == "superior"
    assert primary["seed_interval_pp"][0] < 1 < primary["seed_interval_pp"][1]
    assert primary["p_value"] == pytest.approx(2 / 2**8)
    controls = {row["comparison"]: row for row in results["controls"]}
    assert controls["static_gate_resnet18 − resnet18"]["low_pp"] > 0.8
    for nothing in ("se_resnet18 − static_gate_resnet18", "se_skip_resnet18 − resnet18"):
        assert -0.15 < controls[nothing]["low_pp"] < 0 < controls[nothing]["high_pp"] < 0.15
    assert all(row["p_adjusted"] >= row["p_value"] for row in results["controls"])
    json.dumps(results, allow_nan=False)


def test_equal_networks_are_called_equivalent_and_not_merely_not_different(analyse):
    results = analyse({"resnet18": 0.9, "se_resnet18": 0.9}, seeds=8)
    assert results["primary"]["decision"] == "equivalent" and results["primary"]["tost_p"] < 0.05
    assert results["controls"] == []
    churn = results["churn"]
    assert churn["between_arms"] == pytest.approx(churn["between_baselines"], rel=0.2)
    assert results["disagreement"]["ratio"] == pytest.approx(1, abs=0.2)


def test_one_seed_gives_a_difference_and_no_interval(analyse):
    primary = analyse({"resnet18": 0.9, "se_resnet18": 0.91}, seeds=1)["primary"]
    assert primary["difference_pp"] == pytest.approx(1, abs=0.5)
    assert primary["seed_interval_pp"] is None and primary["decision"] is None and primary["p_value"] is None
