"""The notebooks as files, and analysis.ipynb executed cell by cell over made-up runs."""

import itertools
import os
import subprocess
import sys
import sysconfig

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ENVIRONMENT, write_study
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from made_runs import make_study, small_study
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import log_loss
from traitlets.config import Config

from lib.files import NOTEBOOKS, ROOT, StudyError, git, outputs_folder, read_json, run_folder, write_json
from lib.study import load_study

matplotlib.use("Agg")
LABELS = np.arange(200) % 10
BOTH = ("resnet18", "se_resnet18")


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """execute(study, arm=…) runs the code of analysis.ipynb and returns what it shows, as text, and its variables."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))

    def run(study, **parameters):
        shell.reset()
        for cell in read_notebook("analysis").cells:
            if cell.cell_type == "code":
                shown.append(run_cell(cell.source))
            if "parameters" in cell.metadata.get("tags", ()):
                shell.user_ns.update({"study": study, "arm": "", "baseline": ""} | parameters)
        return "".join(shown), shell.user_ns

    def run_cell(source):
        with capture_output() as captured:
            result = shell.run_cell(source)
        result.raise_error()
        data = [output.data for output in captured.outputs]
        return captured.stdout + "".join(each.get("text/markdown") or each.get("text/html") or "" for each in data)

    shown = []
    yield run
    InteractiveShell.clear_instance()


def read_notebook(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def contents(folder):
    return {path.name: path.read_bytes() for name in ("figures", "tables") for path in (folder / name).iterdir()}


@pytest.mark.parametrize("name", [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_notebooks_are_stripped_short_and_explained(name):
    committed = git("show", f"HEAD:notebooks/{name}.ipynb")  # in JupyterLab, anybody may have saved outputs since
    notebook = nbformat.reads(committed, as_version=4) if committed else read_notebook(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert sum("parameters" in cell.metadata.get("tags", ()) for cell in notebook.cells) == 1
    code = [(before, cell) for before, cell in itertools.pairwise(notebook.cells) if cell.cell_type == "code"]
    assert sum(before.cell_type == "markdown" for before, _ in code) > 0.8 * len(code)
    for _, cell in code:
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 25


def churn_one_by_one(names):
    """The mean shares of images that two runs answer differently, by loops over pairs of runs."""
    baseline, arm = (names["predictions"][each] for each in BOTH)
    different = itertools.permutations(range(len(arm)), 2)
    pairs = [list(zip(arm, baseline, strict=True)), [(arm[i], baseline[j]) for i, j in different]]
    pairs += [list(itertools.combinations(each, 2)) for each in (arm, baseline)]
    return [np.mean([np.mean(a != b) for a, b in runs]) for runs in pairs]


@pytest.mark.slow
def test_what_the_notebook_computes_is_what_results_json_holds_and_the_same_bytes_each_time(execute, tmp_path):
    make_study(small_study(tmp_path), {"se_resnet18": 1.0})
    shown, names = execute(str(tmp_path / "small.yaml"))
    folder = outputs_folder("small")
    primary = read_json(folder / "results.json")["primary"]
    pairs = pd.read_csv(folder / "tables" / "pairs.csv")
    whole = pd.read_csv(folder / "tables" / "whole.csv").iloc[0]
    assert {f"{name}.png" for name in names["drawn"]} <= set(contents(folder))
    assert [names["low"], names["high"]] == pytest.approx(primary["seed_interval_pp"])
    assert pairs["difference_pp"].mean() == pytest.approx(primary["difference_pp"])
    assert [whole["crossed_low"], whole["crossed_high"]] == pytest.approx(primary["crossed_interval_pp"])
    assert pairs["brier_difference"].mean() == pytest.approx(primary["brier"]["difference"])
    assert max(names["above"], names["below"]) == pytest.approx(primary["tost_p"])
    assert names["test"].pvalue == pytest.approx(primary["brier"]["p_value"])
    assert names["churn"]["percent"].tolist() == pytest.approx([100 * share for share in churn_one_by_one(names)])
    calibration = pd.read_csv(folder / "tables" / "calibration.csv").set_index("name")
    probabilities = [softmax(names["logits"][arm].astype(float), -1) for arm in BOTH]
    losses = [[log_loss(names["labels"], run) for run in runs] for runs in probabilities]
    related = stats.ttest_rel(*losses[::-1])
    assert calibration.loc["loss (nats)", ["baseline", "arm"]].tolist() == pytest.approx(np.mean(losses, axis=1))
    assert calibration.loc["loss (nats)", "low"] == pytest.approx(related.confidence_interval().low)
    recalls = pd.read_csv(folder / "tables" / "recall_by_class.csv")
    change = pd.read_csv(folder / "tables" / "confusion_change.csv")
    cats = [names["predictions"][arm][:, names["labels"] == 3] for arm in BOTH]
    assert recalls.loc[3, ["baseline", "arm"]].tolist() == pytest.approx([100 * (each == 3).mean() for each in cats])
    cats_p = stats.ttest_rel(*((each == 3).mean(axis=1) for each in cats)).pvalue
    assert cats_p <= recalls.loc[3, "p_holm"] <= min(1, 10 * cats_p) + 1e-9 and recalls["equal_rates_pp"].isna().all()
    as_dogs = [1000 * (each == 5).mean() for each in cats]  # of 1,000
    assert change.loc[3, change.columns[1 + 5]] == pytest.approx(as_dogs[1] - as_dogs[0])
    low, high = primary["seed_interval_pp"]
    assert f"{low:+.2f} to {high:+.2f}".replace("-", "−") in shown
    first, results = contents(folder), (folder / "results.json").read_bytes()
    assert {"trends.csv", "contrasts.csv", "settings_and_lesions.pdf", "gates.csv", "runs.png"} <= set(first)
    assert "nan" not in shown.lower() and "None" not in shown
    execute(str(tmp_path / "small.yaml"))
    assert contents(folder) == first and (folder / "results.json").read_bytes() == results


@pytest.mark.slow
def test_nothing_shows_the_primary_comparison_before_its_last_pair(execute, tmp_path):
    study = small_study(tmp_path)
    make_study(study, only=lambda config: config.arm not in BOTH or config.seed < 5)
    folder = outputs_folder("small")
    write_json(folder / "figures" / "confusion.png", {})  # of runs that are gone
    shown, _ = execute(str(tmp_path / "small.yaml"))
    assert "5 of 6 pairs" in shown and "contrasts.png" in contents(folder)
    assert not {"runs.png", "confusion.png"} & set(contents(folder))
    summaries = [read_json(folder / "runs" / arm / "seed-00" / "summary.json") for arm in BOTH]
    written = shown + "".join(path.read_text() for path in folder.glob("tables/*.csv"))
    arms = pd.read_csv(folder / "tables" / "arms.csv").set_index("arm")
    assert arms.loc[list(BOTH), "test_accuracy_mean"].isna().all()
    assert not any(str(summary["test_accuracy"]) in written for summary in summaries)
    assert read_json(folder / "results.json")["primary"]["difference_pp"] is None
    shown, _ = execute(str(tmp_path / "small.yaml"), arm=BOTH[0], baseline=BOTH[1])  # the other way round
    assert "5 of 6 pairs" in shown and not any(word in shown for word in ("better", "classifies", "fits"))


@pytest.mark.slow
def test_the_first_finished_run_of_a_study_is_enough(execute):
    with pytest.raises(StudyError, match="no run of 'paper'"):
        execute("paper")
    assert not outputs_folder("paper").exists()
    make_study(load_study("paper"), only=lambda config: config.validation_images or config.seed == 0, labels=LABELS)
    shown, _ = execute("paper")
    assert "1 of 10 pairs" in shown and "learning rate" in shown


@pytest.mark.slow
def test_rows_that_need_missing_data_are_kept_only_while_the_runs_are_the_same(execute, monkeypatch):
    make_study(load_study("laptop"), labels=LABELS)
    people = np.random.default_rng(0).dirichlet(np.full(10, 0.1), len(LABELS))
    monkeypatch.setattr("lib.data.human_labels", lambda: people)
    execute("laptop")
    tables = outputs_folder("laptop") / "tables"
    before = (tables / "calibration.csv").read_bytes()
    monkeypatch.setattr("lib.data.human_labels", lambda: None)  # as without a network
    shown, _ = execute("laptop")
    assert "earlier execution" in shown
    assert (tables / "calibration.csv").read_bytes() == before and b"people's answers" in before
    make_study(load_study("laptop"), {"se_resnet18": 1.0}, labels=LABELS)
    execute("laptop")
    assert "people's answers" not in (tables / "calibration.csv").read_text()


COLAB = "numpy==2.0.2 pandas==2.2.2 scikit-learn==1.6.1 matplotlib==3.10.0 seaborn==0.13.2 scipy==1.16.3"
COLAB += " statsmodels==0.14.5 ipython==7.34.0 jinja2==3.1.6 nbformat pydantic filelock pooch pyyaml tqdm"


@pytest.fixture
def colab(tmp_path):
    """colab(notebook, study) runs the committed one as Colab does: its versions, and an empty folder to clone into."""
    python, content = tmp_path / "colab" / "bin" / "python", tmp_path / "content"
    content.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "colab"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    if not git("rev-parse", "HEAD") or subprocess.run([*pip, *COLAB.split()], env=ENVIRONMENT).returncode:
        pytest.skip("needs the repository's history and the Python package index")
    environment = os.environ | {"COLAB_RELEASE_TAG": "1", "STUDY_REPOSITORY": str(ROOT), "IPYTHONDIR": str(content)}

    def run(name, study):
        code = git("show", f"HEAD:notebooks/{name}.ipynb").replace('study = \\"smoke\\"', f'study = \\"{study}\\"')
        (content / "notebook.ipynb").write_text(code)
        command = [python, "-m", "IPython", "notebook.ipynb"]
        subprocess.run(command, cwd=content, env=environment | {"MPLBACKEND": "agg"}, check=True)

    return run


@pytest.mark.slow
def test_the_notebooks_work_in_colab_and_give_the_same(execute, colab, tmp_path):
    study = load_study("laptop")
    make_study(study, labels=LABELS)
    execute("laptop")
    expected = read_json(outputs_folder("laptop") / "results.json")
    (outputs_folder("laptop") / "results.json").unlink()
    colab("analysis", "laptop")
    found = read_json(outputs_folder("laptop") / "results.json")
    for name in ("seed_interval_pp", "crossed_interval_pp", "sign_flip_p", "tost_p", "log_error_ratio_interval"):
        assert found["primary"][name] == pytest.approx(expected["primary"][name])
    (site,) = (tmp_path / "colab" / "lib").glob("*/site-packages")
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))  # torch, which need not be there twice
    colab("train", write_study(tmp_path))
    assert (run_folder("tiny", "se_resnet18", 0) / "summary.json").exists()


@pytest.mark.slow
def test_any_two_arms_can_be_compared_beside_the_study(execute, tmp_path):
    study = small_study(tmp_path)
    make_study(study, {"se_resnet18__quarter_width": 1.0})
    path, pair = str(tmp_path / "small.yaml"), [f"{arm}_resnet18__quarter_width" for arm in ("se", "static_gate")]
    shown, names = execute(path, arm=pair[0], baseline=pair[1])
    assert "SE-ResNet-18, ¼ width classifies" in shown and names["n"] == 8
    assert "confusion.pdf" in contents(outputs_folder("small") / "-against-".join(pair))
    assert not (outputs_folder("small") / "figures").exists()
    with pytest.raises(StudyError, match="se_resnet18"):
        execute(path, arm="se_resnet81")
    with pytest.raises(StudyError, match="both"):
        execute(path, arm=study.baseline)
