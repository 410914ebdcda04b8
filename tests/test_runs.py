import numpy as np
import pytest
from made_runs import make_run

from lib import runs
from lib.files import StudyError, read_json, run_folder, shown, write_json
from lib.runs import config_hash, finished_runs, load_logits, load_table, read_summary
from lib.study import load_study


@pytest.fixture
def folder(tmp_path, make_config):
    """The folder of a finished run of make_config()."""
    make_run(tmp_path, make_config())
    return tmp_path


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "pickle": lambda path: runs.save_arrays(path, logits=np.array([{}], object), labels=np.ones(1)),
    "changed": lambda path: path.write_bytes(b"\xff" * 300 + path.read_bytes()[300:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["summary.json", "config.json", "test_logits.npz", "metrics.csv"])
def test_a_damaged_file(folder, make_config, name, damage):
    DAMAGES[damage](folder / name)
    if name.endswith(".json"):  # cut short before it was complete: it is made again
        assert read_summary(folder, make_config()) is None
        return
    with pytest.raises(StudyError, match=rf"^[^\n]*{name} [^\n]*delete its folder and run again$"):
        load_logits(folder) if name.endswith(".npz") else load_table(folder, name)


@pytest.mark.parametrize(("part", "held_out"), [("test", 0), ("val", 20)])
def test_a_run_is_finished_when_its_results_are_there(tmp_path, make_config, part, held_out):
    config = make_config(validation_images=held_out)
    assert read_summary(tmp_path, config) is None
    make_run(tmp_path, config)
    summary = read_summary(tmp_path, config)
    for entry in (f"{part}_accuracy", f"{part}_loss", "config_hash", "data_fingerprint"):
        write_json(tmp_path / "summary.json", {name: summary[name] for name in summary if name != entry})
        assert read_summary(tmp_path, config) is None


def test_a_run_of_other_settings_is_refused_with_what_differs(folder, make_config):
    def store(settings):
        summary = read_json(folder / "summary.json") | {"config_hash": config_hash(settings)}
        write_json(folder / "config.json", settings)
        write_json(folder / "summary.json", summary)

    config = make_config()
    with pytest.raises(StudyError, match="epochs 3 there, 2 here; learning_rate 0.1 there, 0.2 here") as caught:
        read_summary(folder, make_config(epochs=2, learning_rate=0.2))
    assert str(folder) in str(caught.value) and "seed" not in str(caught.value)
    store({name: value for name, value in config.to_dict().items() if name != "momentum"})
    assert read_summary(folder, config)  # the setting is newer than the run: its default was in force
    with pytest.raises(StudyError, match="momentum 0.9 there, 0.5 here"):
        read_summary(folder, make_config(momentum=0.5))
    store(config.to_dict() | {"dropout": 0.1})
    with pytest.raises(StudyError, match="dropout 0.1 there"):
        read_summary(folder, config)
    write_json(folder / "config.json", config.to_dict())
    with pytest.raises(StudyError, match=r"summary\.json .*config\.json"):  # of two different runs
        read_summary(folder, config)


def test_finished_runs_come_in_the_order_of_the_study_and_from_the_same_images():
    study = load_study("smoke")
    folders = [run_folder("smoke", config.arm, config.seed) for config in study.runs]
    for index in (2, 0):
        make_run(folders[index], study.runs[index])
    assert [run[:2] for run in finished_runs(study)] == [(study.runs[index], folders[index]) for index in (0, 2)]
    write_json(folders[2] / "summary.json", read_json(folders[2] / "summary.json") | {"data_fingerprint": "0" * 64})
    with pytest.raises(StudyError, match=f"{shown(folders[2])} .*{shown(folders[0])} .*different images"):
        finished_runs(study)


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_stored_logits_are_close_and_keep_every_prediction(tmp_path, scale):
    logits = np.random.default_rng(0).normal(0, scale, (10_000, 10)).astype(np.float32)
    stored = runs.stored_logits(logits)
    runs.save_arrays(tmp_path / "test_logits.npz", logits=stored, labels=np.arange(10_000, dtype=np.uint16))
    stored, labels = load_logits(tmp_path)
    assert (stored.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(stored.argmax(1), logits.argmax(1))
    best = np.arange(10) == logits.argmax(1)[:, None]
    assert np.abs(stored - logits)[~best].max() <= 1 / 64 and np.abs(stored - logits)[best].max() < 1 / 16
