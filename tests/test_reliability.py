"""Hard knocks that concern no single module: hostile files, read-only outputs, wrong clocks, two studies at once."""

import ast
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from lib import __main__ as command
from lib import experiment, lossless
from lib.data import load_dataset
from lib.errors import StudyError
from lib.experiment import execute_run
from lib.lossless import load_lossless_test
from lib.madeup import make_up_run
from lib.paths import NOTEBOOKS, ROOT, data_folder, outputs_folder, run_folder
from lib.runs import finished_runs, load_arrays, load_logits, load_runs, read_json, write_json
from lib.study import load_study
from lib.wholeruns import ARMS, write_study

TINY = {"dataset": "digits", "width": 1 / 16, "reduction": 4, "epochs": 1, "warmup_epochs": 1, "batch_size": 64}
TINY |= {"train_fraction": 0.1, "probe_images": 8}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
REQUIRED = {  # keyword and value, as it is written, that a call must have
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
    "torch.load": ("weights_only", "True"),
}
FORBIDDEN_CALLS = {"eval", "exec", "pd.read_pickle", "np.fromregex", "yaml.unsafe_load", "yaml.full_load"}
SAFE_LOADERS = {"_UniqueKeys", "yaml.SafeLoader"}  # the first is made of the second, as a test below shows


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def unsafe_calls(source):
    """What in this code could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ({alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ({node.module.split(".")[0]} & FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            loaders = {ast.unparse(argument) for argument in node.args[1:]} | {given.get("Loader")}
            keyword, value = REQUIRED.get(name, (None, None))
            harmless = (
                name not in FORBIDDEN_CALLS
                and not name.endswith((".extractall", ".unpack_archive"))
                and given.get(keyword) == value
                and (name != "yaml.load" or loaders & SAFE_LOADERS)
                and given.get("shell") != "True"
            )
            if not harmless:
                yield name


UNSAFE = """import pickle
from joblib import load
np.load(path)
np.load(path, allow_pickle=True)
torch.load(path, weights_only=False)
yaml.load(text, yaml.Loader)
archive.extractall(folder)
subprocess.run(text, shell=True)
eval(text)"""


@pytest.mark.parametrize("line", UNSAFE.splitlines())
def test_unsafe_code_is_found(line):
    assert len(list(unsafe_calls(line))) == 1


@pytest.mark.fault(
    "code that would run what a file says (pickles, eval, archives unpacked as they are), looked for in lib/ and the "
    "notebooks",
    "there is none: files are data; torchvision alone unpickles, files of the official checksums",
)
def test_our_code_runs_nothing_that_a_file_says():
    found = {path.name: list(unsafe_calls(path.read_text(encoding="utf-8"))) for path in (ROOT / "lib").glob("*.py")}
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        code = "\n".join(map(TransformerManager().transform_cell, cells))  # lines for the shell become calls
        found[path.name] = list(unsafe_calls(code))
    assert len(found) > 40 and not {name: calls for name, calls in found.items() if calls}


def one_line(caught, name):
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.fault("harmful pickles in test logits and other arrays of a run", "they are not run; one line says so")
def test_hostile_arrays_are_not_loaded(tmp_path):
    path = tmp_path / "test_logits.npz"
    bomb = np.array([Bomb(tmp_path / "harm")], object)
    np.savez(path, allow_pickle=True, logits=bomb, labels=bomb)
    with pytest.raises(StudyError) as caught:
        load_logits(tmp_path)
    one_line(caught, path.name)
    with pytest.raises(StudyError) as caught:
        load_arrays(path, "labels")
    one_line(caught, path.name)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))  # numpy takes such a file for an array
    with pytest.raises(StudyError) as caught:
        load_logits(tmp_path)
    one_line(caught, path.name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.fault("harmful pickles in the original bytes of test images", "they are not run; one line says so")
def test_hostile_original_bytes_are_not_loaded(tmp_path):
    data_folder().mkdir()
    np.savez(data_folder() / lossless.FILE, allow_pickle=True, images=np.array([Bomb(tmp_path / "harm")], object))
    with pytest.raises(StudyError) as caught:
        load_lossless_test(types.SimpleNamespace(source="cifar10-jpeg", test_labels=np.zeros(1)))
    one_line(caught, lossless.FILE)
    assert not (tmp_path / "harm").exists()


@pytest.mark.fault("a harmful pickle as checkpoint, with a right checksum", "it is not run, and the run starts over")
def test_hostile_checkpoint_is_not_loaded(tmp_path, make_config, dataset):
    folder = tmp_path / "run"
    folder.mkdir()
    buffer = io.BytesIO()
    torch.save({"identity": {}, "rows": [], "trainer": Bomb(tmp_path / "harm")}, buffer)
    content = buffer.getvalue()
    (folder / "checkpoint.pt").write_bytes(hashlib.sha256(content).digest() + content)
    torch.load(io.BytesIO(content), weights_only=False)  # would do harm
    (tmp_path / "harm").rmdir()
    began_with = []
    execute_run(make_config(epochs=1, probe_images=8), dataset, folder, lambda rows: began_with.append(len(rows)))
    assert began_with[0] == 0 and (folder / "summary.json").exists()
    assert not (tmp_path / "harm").exists()


@pytest.mark.fault("a study file that asks for a call", "it is refused in one line")
@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.mkdir", "!!python/object/new:set"])
def test_hostile_study_file_is_refused(tmp_path, tag):
    path = tmp_path / "hostile.yaml"
    path.write_text(f"title: {tag} ['{tmp_path / 'harm'}']\n")
    with pytest.raises(StudyError) as caught:
        load_study(str(path))
    one_line(caught, path.name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.fault("JSON of a run that is nested a hundred thousand deep", "it counts as damaged")
def test_deeply_nested_json_is_damaged(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text('{"a":' + "[" * 100_000)
    assert read_json(path) is None


@pytest.fixture
def made_up(tmp_path):
    """A study file of two runs on digits that have both been made up."""
    path = write_study(tmp_path, {"dataset": "digits", "epochs": 3, "warmup_epochs": 1}, seeds=1)
    for config in load_study(str(path)).runs:
        make_up_run(run_folder(path.stem, config.arm, config.seed), config, images=100)
    return path


@pytest.mark.fault(
    "an outputs folder that is read-only",
    "finished runs can be read; a run and the command each stop in one line that names STUDY_OUTPUTS",
)
def test_read_only_outputs(made_up, read_only, monkeypatch, capsys, make_config, dataset):
    monkeypatch.setattr(command, "signal", types.SimpleNamespace(SIGTERM=None, signal=lambda *arguments: None))
    folder = outputs_folder(made_up.stem)
    before = sorted(folder.rglob("*"))
    read_only(folder)
    assert len(load_runs(load_study(str(made_up)))) == 2
    with pytest.raises(StudyError, match="set STUDY_OUTPUTS") as caught:
        execute_run(make_config(), dataset, folder / "runs" / "resnet18" / "seed-07")
    one_line(caught, "seed-07")
    with pytest.raises(StudyError, match="set STUDY_OUTPUTS") as caught:
        write_json(folder / "results.json", {})
    one_line(caught, "results.json")
    assert command.main(["--study", str(made_up)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot write in {folder}: ") and "set STUDY_OUTPUTS" in line
    assert sorted(folder.rglob("*")) == before


class Interruption(Exception):
    pass


def stop_after(epoch):
    def stop(rows):
        if len(rows) == epoch:
            raise Interruption

    return stop


@pytest.mark.fault(
    "a clock that stands before 1980 and goes back an hour at each look, and file times of the past and the future, in "
    "a run that is interrupted and resumed",
    "the run resumes where it was, has the same logits, positive seconds, and counts as complete",
)
def test_a_clock_that_goes_back(tmp_path, monkeypatch, make_config, dataset):
    config = make_config(probe_images=8)
    expected = execute_run(config, dataset, tmp_path / "whole")["logits_sha256"]
    now = [4000 * 3600.0]

    def go_back():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", go_back)
    monkeypatch.setattr(experiment, "_now", lambda: time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(go_back())))
    folder, began_with = tmp_path / "run", []
    with pytest.raises(Interruption):
        execute_run(config, dataset, folder, stop_after(2), checkpoint_seconds=0)
    for seconds in (0, 4e9):
        for path in folder.iterdir():
            os.utime(path, (seconds, seconds))
    summary = execute_run(config, dataset, folder, lambda rows: began_with.append(len(rows)))
    assert began_with[0] == 2 and summary["logits_sha256"] == expected
    assert summary["train_seconds"] > 0 and summary["evaluation_seconds"] > 0
    assert execute_run(config, dataset, folder, stop_after(0)) == summary


def clocks_asked(source):
    """Names in this code whose value goes back with the clock, or is a time of a file."""
    names = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return [name for name in names if name.endswith(("time.time", "time.time_ns", ".st_mtime", ".getmtime"))]


@pytest.mark.fault(
    "a clock that is set while durations are measured, looked for in lib/",
    "no duration, budget or validity is taken from the time of day or from file times",
)
def test_durations_do_not_come_from_the_time_of_day():
    assert len(clocks_asked("age = time.time() - path.stat().st_mtime")) == 2
    assert not [path.name for path in (ROOT / "lib").glob("*.py") if clocks_asked(path.read_text(encoding="utf-8"))]


CHILD = """
import sys
from lib.data import load_dataset
from lib.experiment import execute_run
from lib.paths import run_folder
from lib.study import load_study
study = load_study(sys.argv[1])
for config in study.runs:
    execute_run(config, load_dataset(config.dataset), run_folder(study.name, config.arm, config.seed))
"""


@pytest.mark.fault(
    "two studies of the same arms and seeds at once, with one folder of outputs",
    "each has its own runs, with the logits that it has alone",
)
def test_two_studies_at_once(tmp_path):
    files = []
    for name, rate in (("first", 0.1), ("second", 0.02)):
        (tmp_path / name).mkdir()
        made = write_study(tmp_path / name, TINY | {"learning_rate": rate}, seeds=1)
        files.append(made.rename(tmp_path / f"{name}.yaml"))
    command_line = [sys.executable, "-c", CHILD]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([*command_line, str(path)], env=environment) for path in files]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    hashes = set()
    for path in files:
        found = finished_runs(load_study(str(path)))
        assert [config.arm for config, _, _ in found] == list(ARMS)
        for config, _, summary in found:
            alone = execute_run(config, load_dataset("digits"), Path(tmp_path, "alone", path.stem, config.arm))
            assert summary["logits_sha256"] == alone["logits_sha256"]
            hashes.add(summary["logits_sha256"])
    assert len(hashes) == 4
