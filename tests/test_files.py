import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from lib import files
from lib.files import ROOT, StudyError, atomic_write, data_folder, lock, outputs_folder, read_json, shown, write_json
from lib.runs import save_arrays


def test_folders_are_in_the_repository_unless_variables_name_others(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # as notebooks run elsewhere
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in {"": ROOT / "outputs", "here": ROOT / "here", "~/there": tmp_path / "there"}.items():
        monkeypatch.setenv("STUDY_OUTPUTS", value)
        assert outputs_folder("paper") == expected / "paper"
    monkeypatch.setenv("STUDY_DATA", "~")
    assert (data_folder(), shown(tmp_path), shown(ROOT / "lib" / "a.py")) == (tmp_path, str(tmp_path), "lib/a.py")
    monkeypatch.setenv("STUDY_DATA", "~nosuch/images")
    with pytest.raises(StudyError, match="STUDY_DATA=~nosuch/images names no folder"):
        data_folder()


def test_an_error_is_its_line_alone_and_names_what_is_near():
    assert StudyError("what to do")._render_traceback_() == ["StudyError: what to do"]
    assert "paper" not in files.suggestion("smok", ["paper", "smoke"])
    assert all(name in files.suggestion("xyz", ["paper", "smoke"]) for name in ("paper", "smoke"))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error, monkeypatch):
    path = tmp_path / "folder" / "result.bin"
    for content in (b"older", b"old"):
        atomic_write(path, content)

    def fail(file):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((StudyError, KeyboardInterrupt), match=r"result\.bin.*free space|^$"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(small_disk):
    noise = np.random.default_rng(0).random(100_000)
    with pytest.raises(StudyError, match=r"cannot write .*logits\.npz: .*STUDY_OUTPUTS"):
        save_arrays(small_disk / "logits.npz", logits=noise)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_folder_is_one_line(tmp_path, read_only):
    (tmp_path / "folder").mkdir()
    folder = read_only(tmp_path / "folder")
    with pytest.raises(StudyError, match="cannot write .*STUDY_OUTPUTS"):
        write_json(folder / "below" / "a.json", {})
    with pytest.raises(StudyError, match="cannot lock .*STUDY_OUTPUTS"), lock(folder, "the run"):
        pass


def test_json_comes_back_and_what_is_damaged_counts_as_missing(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "¼", "values": [1, None]})
    assert read_json(path) == {"name": "¼", "values": [1, None]}
    for damaged in (b"", path.read_bytes()[:-5], b"[1]", b"\xff\x00"):
        path.write_bytes(damaged)
        assert read_json(path) is None
    assert read_json(tmp_path) is read_json(tmp_path / "missing") is None


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path):
    code = "import sys; from lib.files import *\nwith lock(Path(sys.argv[1]), 'a'): print('held', flush=True); input()"
    command = [sys.executable, "-c", code, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StudyError, match="the run .*wait"), lock(tmp_path, "the run"):
            pass
        other.kill()
    with lock(tmp_path, "the run"):
        pass


def test_git_tells_about_our_own_repository_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert files.git("rev-parse", "HEAD") is None  # a copy without history
    (tmp_path / "lib").mkdir()
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init"], [*identity, "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    assert len(files.git("rev-parse", "HEAD")) == 40 and files.git("status", "--porcelain") == ""
    (tmp_path / "lib" / "new.py").touch()
    assert "lib" in files.git("status", "--porcelain")
    monkeypatch.setattr(files, "ROOT", tmp_path / "lib")
    assert files.git("rev-parse", "HEAD") is None  # inside somebody else's repository
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert files.git("rev-parse", "HEAD") is None


def test_what_analyses_does_not_import_torch():
    analyse = [f"lib.analyse.{path.stem}" for path in (ROOT / "lib" / "analyse").glob("[!_]*.py")]
    code = f"import sys, lib.data, lib.paper, {', '.join(analyse)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
