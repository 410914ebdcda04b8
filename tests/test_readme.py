"""The README says what the results say, and its links lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from lib.analysis import conclusion
from lib.models import ARCHITECTURES, build_model
from lib.paths import ROOT
from lib.study import load_study

BENCHMARKS = sorted(ROOT.glob("outputs/benchmark/*/results.json"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_result_is_the_one_in_results_json():
    results = json.loads((ROOT / "outputs" / "laptop" / "results.json").read_text())
    assert f"> {conclusion(results['primary'])}\n" in README
    assert results["data_source"] == "cifar10-jpeg" and "JPEG copy" in README


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_study_table_agrees_with_the_study_files():
    laptop, smoke, paper = (load_study(name) for name in ("laptop", "smoke", "paper"))
    assert "2 arms × 2 seeds" in README and len(smoke.runs) == 4
    for study, width in ((laptop, "eighth"), (paper, "full")):
        arms = {arm for stage in study.stages for arm in stage.arms}
        seeds = [len(stage.seeds) for stage in study.stages]
        epochs = (*study.runs, *study.awaiting)[0].epochs
        said = f"{len(arms)} arms, {min(seeds)} to {max(seeds)} seeds, {width} width, {epochs} epochs"
        assert f"| `{study.name}` | {said} |" in README


def test_the_difference_in_the_readme_follows_from_the_logits(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(import numpy.*?)```", README, re.DOTALL)[1]
    exec(code, {})  # as a reader would run it
    results = json.loads((ROOT / "outputs" / "laptop" / "results.json").read_text())
    assert f"{results['primary']['difference_pp']:+.2f} percentage points" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("outputs/benchmark/*/results.json")), ids=lambda path: path.parent.name
)
def test_each_benchmark_is_in_the_readme_as_it_was_measured(path):
    results = json.loads(path.read_text())
    for row in results["targets"]:
        verdict = "met" if row["met"] else "missed"
        assert f"| {row['what']} | {row['measured']:.2f} | {row['target']}: {verdict} |" in README
    environment = results["environment"]
    assert (
        f"{environment['device_name']}, {environment['precision']}, torch {environment['packages']['torch']}" in README
    )
    assert not environment["uncommitted_changes"]


def test_there_is_a_benchmark():
    assert BENCHMARKS


@pytest.fixture(scope="module")
def recipe():
    """The section of the README on a new architecture."""
    return README.split("## Add an architecture")[1].split("\n## ")[0]


def test_a_new_architecture_by_the_recipe_gets_its_comparison(recipe, tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("lib", "notebooks", "report"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", checkout)

    models = checkout / "lib" / "models.py"
    function = textwrap.dedent(re.search(r"```python\n(.*?)```", recipe, re.DOTALL)[1])
    line = re.search(r"give it a line there: `(.*?)`", recipe)[1]
    above, below = models.read_text().split("ARCHITECTURES = {\n")
    models.write_text(f"{above}{function}\n\nARCHITECTURES = {{\n    {line}\n{below}")
    source, copy = re.search(r"Copy `(\S+)` to `(\S+)`", recipe).groups()
    old, new = re.search(r"put `(\w+)` in the places of `(\w+)`", recipe).groups()[::-1]
    study = (checkout / source).read_text().replace(old, new)
    (checkout / copy).write_text(re.sub("title: .*", "title: Another gate", study))

    name = re.search(r"`\./run_all\.sh --study (\w+)`", recipe)[1]
    command = [sys.executable, "-m", "lib", "--study", name, "--jobs", "2"]
    environment = {variable: value for variable, value in os.environ.items() if variable != "STUDY_OUTPUTS"}
    environment |= {"PYTHONPATH": str(checkout)}
    finished = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((checkout / "outputs" / name / "results.json").read_text())
    assert results["primary"]["arm"] == new and results["primary"]["n_pairs"] == 2
    assert (checkout / "outputs" / name / "html" / "index.html").exists()


def test_the_recipe_works_in_a_cell_too(recipe, make_config, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "max_resnet18", None)  # and so taken out again
    first, last = re.search(r"with `(from lib.models import \*)` and\s+`(ARCHITECTURES.*?)`", recipe).groups()
    function = textwrap.dedent(re.search(r"```python\n(.*?)```", recipe, re.DOTALL)[1])
    exec(f"{first}\n{function}\n{last}", {})
    with torch.no_grad():
        model = build_model(make_config(architecture="max_resnet18"), 10)
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_times_of_many_runs_are_those_of_the_run_that_is_named():
    path = re.search(r"took (\d+) s in \[its notebook\]\((\S+)\)", README)
    seconds = json.loads((ROOT / path[2]).read_text())["metadata"]["papermill"]["duration"]
    assert int(path[1]) == round(seconds)
    units = {"minutes": 60, "hours": 3600, "days": 86400}
    for runs, cells in re.findall(r"^\| (200|10,000) \|(.*)\|$", README, re.MULTILINE):
        for workers, cell in zip((1, 4, 100), cells.split("|"), strict=True):
            number, unit = cell.split()
            expected = -(-int(runs.replace(",", "")) // workers) * seconds / units[unit]
            assert float(number) == pytest.approx(expected, abs=0.05), (runs, workers)
