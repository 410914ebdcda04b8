import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lib.config import config_hash
from lib.errors import StudyError
from lib.paths import ROOT, run_folder
from lib.runs import (
    atomic_write,
    finished_runs,
    load_logit_stack,
    load_logits,
    load_metrics,
    load_runs,
    lock,
    read_json,
    read_summary,
    save_logits,
    write_json,
    write_table,
)
from lib.study import Study

LABELS = np.arange(20) % 10
METRICS = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [2.0, 1.5, 1.0]})


def logits_of(predictions):
    return 4.0 * np.eye(10, dtype=np.float32)[predictions]


@pytest.fixture
def study(make_config):
    """Two arms with three seeds, none of them run."""
    runs = [
        make_config(arm=arm, architecture=arm, seed=seed) for seed in range(3) for arm in ("resnet18", "se_resnet18")
    ]
    return Study("mine", "Two arms", "se_resnet18", "resnet18", tuple(runs))


def summary_of(settings, **changes):
    return {
        "config_hash": config_hash(settings),
        "data_source": "digits",
        "data_fingerprint": "f" * 64,
        "precision": "fp32",
        "test_accuracy": 0.5,
        "test_loss": 1.0,
        "parameters": 1000,
        "train_seconds": 10.0,
        **changes,
    }


def finish(study, config, accuracy=0.5, **summary):
    """Writes the complete run folder of a config whose last predictions are off by one class."""
    folder = run_folder(study.name, config.arm, config.seed)
    right = round(accuracy * len(LABELS))
    save_logits(folder / "test_logits.npz", logits_of([*LABELS[:right], *(LABELS[right:] + 1) % 10]), LABELS)
    write_table(folder / "metrics.csv", METRICS)
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "environment.json", {"device_name": "Tesla T4"})
    write_json(folder / "summary.json", summary_of(config.to_dict(), test_accuracy=accuracy, **summary))
    return folder


def finish_held_out(study, config, **changes):
    """Writes the complete run folder of a config with validation images, which has no test results."""
    folder = run_folder(study.name, config.arm, config.seed)
    summary = summary_of(config.to_dict(), val_accuracy=0.75, val_loss=0.9)
    summary = {name: value for name, value in summary.items() if not name.startswith("test_")} | changes
    write_table(folder / "metrics.csv", METRICS)
    write_json(folder / "config.json", config.to_dict())
    write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture
def tuned(study, make_config):
    """The study with a run of the tuning before the others."""
    trial = make_config(arm="tuning__resnet18", architecture="resnet18", seed=9, validation_images=20)
    return dataclasses.replace(study, runs=(trial, *study.runs))


def full_disk(file):
    file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    return path


def test_writing_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second"):
        atomic_write(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_full_disk_leaves_the_old_file_whole(old_file):
    with pytest.raises(
        StudyError, match="cannot write .*result.bin: No space left on device; .*STUDY_OUTPUTS"
    ) as caught:
        atomic_write(old_file, full_disk)
    assert "\n" not in str(caught.value)
    assert old_file.read_bytes() == b"old"
    assert list(old_file.parent.glob("result*")) == [old_file]


@pytest.mark.parametrize("error", [OSError(), OSError("no words"), OSError(errno.EIO, "Input/output error")])
def test_every_failure_of_a_writer_is_one_line(old_file, error):
    def fail(file):
        raise error

    with pytest.raises(StudyError) as caught:
        atomic_write(old_file, fail)
    assert "\n" not in str(caught.value)
    assert old_file.read_bytes() == b"old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a defect")])
def test_other_exceptions_pass_and_leave_the_old_file_whole(old_file, error):
    def fail(file):
        raise error

    with pytest.raises(type(error)):
        atomic_write(old_file, fail)
    assert old_file.read_bytes() == b"old"


def test_reader_never_sees_a_part_of_a_file(old_file):
    def write(file):
        file.write(b"new")
        file.flush()
        assert old_file.read_bytes() == b"old"

    atomic_write(old_file, write)
    assert old_file.read_bytes() == b"new"


@pytest.mark.fault(
    "parts of files left by a process that was killed",
    "the next one that writes the file removes them, but not those of other machines and of processes that live",
)
def test_parts_of_files_of_killed_processes_are_removed(old_file):
    gone = subprocess.Popen(["true"])
    gone.wait()
    here, numbers = socket.gethostname(), (gone.pid, 1, os.getppid())
    dead, *living = (old_file.with_name(f"{old_file.name}.partial-{here}-{number}") for number in numbers)
    others = [old_file.with_name(f"{old_file.name}.partial-elsewhere-{gone.pid}")]
    others += [dead.with_name(f"more-{dead.name}"), dead.with_name(f"{dead.name}-more")]
    for path in (dead, *living, *others):
        path.write_bytes(b"part")
    atomic_write(old_file, lambda file: file.write(b"new"))
    assert set(old_file.parent.iterdir()) == {old_file, *living, *others}


@pytest.mark.fault("a disk that is full when logits are saved", "one line says so, and the older file stays whole")
def test_disk_that_is_really_full(small_disk):
    path = small_disk / "logits.npz"
    save_logits(path, logits_of(LABELS), LABELS)
    before = path.read_bytes()
    random = np.random.default_rng(0).normal(size=(40_000, 10)).astype(np.float32)
    with pytest.raises(StudyError, match="No space left on device") as caught:
        save_logits(path, random, np.zeros(40_000))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in small_disk.iterdir()] == ["logits.npz"]


def test_folder_below_a_regular_file_cannot_be_written(old_file):
    with pytest.raises(StudyError, match="cannot write"):
        atomic_write(old_file / "summary.json", lambda file: file.write(b"new"))
    with pytest.raises(StudyError, match="cannot write in .*STUDY_OUTPUTS"), lock(old_file / "run", "a run"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="Permission denied"):
        atomic_write(tmp_path / "summary.json", lambda file: file.write(b"new"))
    with pytest.raises(StudyError, match="Permission denied"), lock(tmp_path, "a run"):
        pass


def test_json_holds_no_values_that_are_not_numbers(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "summary.json", {"test_loss": float("nan")})
    assert not (tmp_path / "summary.json").exists()


def test_table_is_written_without_its_index(tmp_path):
    write_table(tmp_path / "table.csv", pd.DataFrame({"arm": ["a", "b"], "difference_pp": [0.5, -1.0]}))
    assert (tmp_path / "table.csv").read_text() == "arm,difference_pp\na,0.5\nb,-1.0\n"


def test_lock_is_refused_to_others_and_free_afterwards(tmp_path):
    refusal = pytest.raises(StudyError, match="resnet18 seed 0 is already being worked on")
    with lock(tmp_path, "resnet18 seed 0"), refusal, lock(tmp_path, "resnet18 seed 0"):
        pass
    with lock(tmp_path, "resnet18 seed 0"):
        pass


def test_lock_is_free_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path, "a run"):
        raise ZeroDivisionError
    with lock(tmp_path, "a run"):
        pass


@pytest.mark.fault("kill -9 of a process that holds a lock", "the lock ends with it")
def test_lock_of_another_process_ends_with_its_death(tmp_path):
    code = """
import sys, time
from pathlib import Path
from lib.runs import lock
with lock(Path(sys.argv[1]), "a run"):
    print(flush=True)
    time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"\n"
        with pytest.raises(StudyError, match="already being worked on by another process"), lock(tmp_path, "a run"):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with lock(tmp_path, "a run"):
        pass


@pytest.mark.fault("a disk without file locks", "one line says so")
def test_file_system_without_locks_is_an_error_in_one_line(monkeypatch, tmp_path):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("lib.runs.fcntl.flock", no_locks)
    with pytest.raises(StudyError, match="No locks available"), lock(tmp_path, "a run"):
        pass


def test_summary_of_a_complete_run(study):
    config = study.runs[0]
    assert read_summary(finish(study, config), config)["test_accuracy"] == 0.5


def test_run_without_a_folder_is_not_complete(study, tmp_path):
    assert read_summary(tmp_path / "nothing", study.runs[0]) is None


@pytest.mark.fault(
    "summary.json or config.json missing, empty, cut in half or foreign", "the run does not count as complete"
)
@pytest.mark.parametrize("name", ["summary.json", "config.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "list", "binary"])
def test_run_with_a_damaged_file_is_not_complete(study, name, damage):
    config = study.runs[0]
    path = finish(study, config) / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "list": b"[1]", "binary": b"\xff\x00"}[damage]
        )
    assert read_summary(path.parent, config) is None


def test_complete_run_of_other_settings_is_named_with_what_differs(study, make_config):
    folder = finish(study, study.runs[0])
    config = make_config(arm="resnet18", architecture="resnet18", epochs=2, learning_rate=0.2)
    with pytest.raises(StudyError) as caught:
        read_summary(folder, config)
    message = str(caught.value)
    assert str(folder) in message
    assert "epochs 3 there, 2 here" in message
    assert "learning_rate 0.1 there, 0.2 here" in message
    assert "seed" not in message.split("(")[1].split(")")[0]


def test_summary_that_does_not_belong_to_its_config_is_named(study):
    config = study.runs[0]
    folder = finish(study, config, config_hash="0" * 16)
    with pytest.raises(StudyError, match="summary.json does not belong to config.json"):
        read_summary(folder, config)


def store_as(folder, settings):
    """Makes a complete run one of other settings."""
    write_json(folder / "config.json", settings)
    write_json(folder / "summary.json", summary_of(settings))


@pytest.mark.parametrize("name", ["dropout", "architecture"])
def test_setting_that_only_one_version_knows_is_named_with_the_folder(study, name):
    config = study.runs[0]
    folder = finish(study, config)
    store_as(
        folder, {key: value for key, value in (config.to_dict() | {"dropout": 0.1}).items() if key != "architecture"}
    )
    with pytest.raises(StudyError, match=f"seed-00 .*{name}"):
        read_summary(folder, config)


def test_setting_that_is_newer_than_a_run_counts_as_its_default(study):
    config = study.runs[0]
    folder = finish(study, config)
    store_as(folder, {key: value for key, value in config.to_dict().items() if key != "label_smoothing"})
    assert read_summary(folder, config)["test_accuracy"] == 0.5
    with pytest.raises(StudyError, match="label_smoothing"):
        read_summary(folder, dataclasses.replace(config, label_smoothing=0.1))


def test_summary_without_results_is_not_complete(study):
    config = study.runs[0]
    folder = finish(study, config)
    write_json(folder / "summary.json", {"config_hash": config_hash(config.to_dict())})
    assert read_summary(folder, config) is None


def test_summary_of_a_complete_run_with_held_out_images(tuned):
    config = tuned.runs[0]
    summary = read_summary(finish_held_out(tuned, config), config)
    assert (summary["val_accuracy"], "test_accuracy" in summary) == (0.75, False)


@pytest.mark.parametrize("missing", ["val_accuracy", "val_loss"])
def test_held_out_run_needs_validation_results_and_no_others(tuned, missing):
    config = tuned.runs[0]
    folder = finish_held_out(tuned, config, test_accuracy=0.9, test_loss=0.3)
    summary = read_json(folder / "summary.json")
    write_json(folder / "summary.json", {name: value for name, value in summary.items() if name != missing})
    assert read_summary(folder, config) is None


@pytest.mark.parametrize("missing", ["test_accuracy", "test_loss"])
def test_run_on_the_test_images_needs_test_results(study, missing):
    config = study.runs[0]
    folder = finish(study, config, val_accuracy=0.9, val_loss=0.3)
    summary = read_json(folder / "summary.json")
    write_json(folder / "summary.json", {name: value for name, value in summary.items() if name != missing})
    assert read_summary(folder, config) is None


def test_logits_and_labels_come_back(tmp_path):
    logits = np.random.default_rng(0).normal(0, 5, (20, 10)).astype(np.float32)
    save_logits(tmp_path / "test_logits.npz", logits, LABELS)
    loaded, labels = load_logits(tmp_path)
    assert (loaded.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(loaded, logits.astype(np.float16))
    np.testing.assert_array_equal(labels, LABELS)


def test_logits_of_the_full_test_set_are_small(tmp_path):
    logits = np.random.default_rng(0).normal(0, 5, (10_000, 10))
    save_logits(tmp_path / "test_logits.npz", logits, np.arange(10_000) % 10)
    assert (tmp_path / "test_logits.npz").stat().st_size < 290_000


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "test_logits.npz", logits=logits_of(LABELS).astype(object), labels=LABELS)
    with pytest.raises(StudyError, match="test_logits.npz is damaged"):
        load_logits(tmp_path)


def test_more_arrays_are_kept_beside_the_logits(tmp_path):
    save_logits(tmp_path / "test_logits.npz", logits_of(LABELS), LABELS, indices=np.arange(20))
    with np.load(tmp_path / "test_logits.npz", allow_pickle=False) as stored:
        assert [stored[name].dtype for name in ("logits", "labels")] == [np.float16, np.uint8]
        np.testing.assert_array_equal(stored["indices"], np.arange(20))
    np.testing.assert_array_equal(load_logits(tmp_path)[1], LABELS)


def test_missing_logits_are_named(tmp_path):
    with pytest.raises(StudyError, match="test_logits.npz"):
        load_logits(tmp_path)


@pytest.mark.fault(
    "test logits that are truncated, empty, changed or foreign", "one line names the file and what to do"
)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "no zip", "no labels"])
def test_damaged_logits_are_named(tmp_path, damage):
    path = tmp_path / "test_logits.npz"
    save_logits(path, logits_of(LABELS), LABELS)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 4] ^= 0xFF
    path.write_bytes({"truncated": content[:-100], "emptied": b"", "no zip": b"logits"}.get(damage, bytes(content)))
    if damage == "no labels":
        np.savez(path, logits=logits_of(LABELS))
    with pytest.raises(StudyError, match="test_logits.npz is damaged"):
        load_logits(tmp_path)


def test_finished_runs_are_those_that_are_complete_in_the_order_of_the_study(study):
    for config in (study.runs[4], study.runs[1]):
        finish(study, config)
    (finish(study, study.runs[2]) / "summary.json").unlink()
    assert [config for config, _, _ in finished_runs(study)] == [study.runs[1], study.runs[4]]


def test_runs_of_the_tuning_are_finished_runs_but_not_in_the_table(tuned):
    finish_held_out(tuned, tuned.runs[0])
    assert load_runs(tuned).empty
    finish(tuned, tuned.runs[2], accuracy=0.5)
    assert [config for config, _, _ in finished_runs(tuned)] == [tuned.runs[0], tuned.runs[2]]
    table = load_runs(tuned)
    assert list(table["arm"]) == ["se_resnet18"]
    assert not [name for name in table if name.startswith("val_")]


def test_runs_of_the_tuning_on_other_images_are_not_mixed_with_the_rest(tuned):
    finish_held_out(tuned, tuned.runs[0], data_fingerprint="a" * 64)
    finish(tuned, tuned.runs[1])
    with pytest.raises(StudyError, match=r"digits \(a{12}\).*digits \(f{12}\)"):
        load_runs(tuned)


def test_nothing_run_gives_nothing_finished(study):
    assert finished_runs(study) == []
    assert load_runs(study).empty


def test_runs_on_different_images_are_not_mixed(study):
    finish(study, study.runs[0], data_source="cifar10", data_fingerprint="a" * 64)
    finish(study, study.runs[1], data_source="cifar10-jpeg", data_fingerprint="b" * 64)
    with pytest.raises(StudyError, match=r"cifar10 \(a{12}\).*cifar10-jpeg \(b{12}\)"):
        load_runs(study)


def test_runs_on_two_versions_of_one_source_are_not_mixed(study):
    for config, letter in zip(study.runs, "ab", strict=False):
        finish(study, config, data_fingerprint=letter * 64)
    with pytest.raises(StudyError, match=r"digits \(a{12}\).*digits \(b{12}\)"):
        load_runs(study)


def test_runs_in_two_precisions_are_not_mixed(study):
    for config, precision in zip(study.runs, ("bf16", "fp32"), strict=False):
        finish(study, config, precision=precision)
    with pytest.raises(StudyError, match="bf16.*fp32"):
        load_runs(study)


def test_table_of_runs_has_settings_and_results(study):
    for number, config in enumerate(study.runs):
        finish(study, config, accuracy=number / 10)
    table = load_runs(study)
    assert list(table.index) == list(range(6))
    assert list(table["arm"]) == ["resnet18", "se_resnet18"] * 3
    assert list(table["seed"]) == [0, 0, 1, 1, 2, 2]
    assert list(table["test_accuracy"]) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert set(table["learning_rate"]) == {0.1}
    assert set(table["device_name"]) == {"Tesla T4"}


def test_metrics_of_all_runs_are_one_table(study):
    for config in study.runs[:3]:
        finish(study, config)
    metrics = load_metrics(study)
    assert list(metrics["arm"]) == ["resnet18"] * 3 + ["se_resnet18"] * 3 + ["resnet18"] * 3
    assert list(metrics["seed"]) == [0] * 6 + [1] * 3
    assert list(metrics["epoch"]) == [1, 2, 3] * 3
    assert list(metrics.index) == list(range(9))


CUT_METRICS = (b"epoch,train_loss\n1,2.0\n2,1.5\n", b"epoch,train_loss\n1,2.0\n2,1.5\n3,1", b"epoch,train_loss\n1,2.")


@pytest.mark.fault(
    "metrics that are missing, empty or cut within or between lines", "one line names the file and what to do"
)
@pytest.mark.parametrize("content", [None, b"", *CUT_METRICS])
def test_metrics_that_cannot_be_read_are_named(study, content):
    path = finish(study, study.runs[0]) / "metrics.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=r"metrics\.csv .*delete the folder and run again") as caught:
        load_metrics(study)
    assert "\n" not in str(caught.value)


def test_metrics_of_nothing_run_is_an_error_in_one_line(study):
    with pytest.raises(StudyError, match="mine"):
        load_metrics(study)


def test_predictions_of_one_arm_follow_the_seeds(study):
    for number, config in enumerate(study.runs):
        finish(study, config, accuracy=number / 10)
    logits, labels = load_logit_stack(study, "se_resnet18", [2, 0])
    predictions = logits.argmax(-1)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_allclose((predictions == labels).mean(1), [0.5, 0.1])


def test_predictions_of_a_run_that_is_missing_name_it(study):
    with pytest.raises(StudyError, match="se_resnet18/seed-01"):
        load_logit_stack(study, "se_resnet18", [1])


def test_what_analyses_does_not_import_torch():
    modules = ["study", "tuning", "runs", "statistics", "figures", "analysis", "corruptions", "annotations", "images"]
    code = f"import sys, {', '.join(f'lib.{name}' for name in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
