import contextlib
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest

from lib import annotations
from lib.annotations import ANNOTATIONS, Annotations, fetch_annotations, load_annotations
from lib.paths import ROOT, data_folder


def published():
    """Content of three small files in the published formats, by field."""
    shares = np.zeros((10_000, 10))
    shares[:, 3] = 1
    shares[7, [2, 3]] = 0.5
    shares[8] = 0.1
    array = io.BytesIO()
    np.save(array, shares)
    votes = {
        5: {"given": 2, "guessed": 0, "neither": 0, "both": 3},
        20: {"given": 3, "guessed": 0, "neither": 0, "both": 2},
        9999: {"given": 0, "guessed": 5, "neither": 0, "both": 0},
    }
    return {
        "human_entropy": array.getvalue(),
        "duplicate": b"TestID,TrainID,Distance,Judgment\r\n9,17,0.07,1\r\n0,49999,0.2,2\r\n",
        "label_error": json.dumps([{"id": image, "mturk": vote} for image, vote in votes.items()]).encode(),
    }


@pytest.fixture
def content(monkeypatch):
    """The small files, which now have the expected checksums; their host refuses connections."""
    files = published()
    changed = {
        field: file._replace(url="http://127.0.0.1:9/" + field, sha256=hashlib.sha256(files[field]).hexdigest())
        for field, file in ANNOTATIONS.items()
    }
    monkeypatch.setattr(annotations, "ANNOTATIONS", changed)
    return files


@contextlib.contextmanager
def host(monkeypatch, files):
    """A host on this machine with the files {field: bytes}; yields the list of paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = files.get(self.path.strip("/"))
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]
        changed = {
            field: file._replace(url=f"http://127.0.0.1:{port}/{field}")
            for field, file in annotations.ANNOTATIONS.items()
        }
        monkeypatch.setattr(annotations, "ANNOTATIONS", changed)
        yield asked
        server.shutdown()


def store(files):
    data_folder().mkdir(exist_ok=True)
    for field, body in files.items():
        (data_folder() / ANNOTATIONS[field].name).write_bytes(body)


def test_every_field_has_its_file():
    assert set(ANNOTATIONS) == set(Annotations._fields)


def test_annotations_are_read_in_official_order(content):
    store(content)
    entropy, duplicate, label_error = load_annotations()
    assert entropy.shape == duplicate.shape == label_error.shape == (10_000,)
    assert (entropy.dtype, duplicate.dtype, label_error.dtype) == (float, bool, bool)
    assert np.flatnonzero(entropy).tolist() == [7, 8]
    assert entropy[[7, 8]] == pytest.approx([np.log(2), np.log(10)])
    assert np.flatnonzero(duplicate).tolist() == [0, 9]


def test_label_error_is_an_image_whose_label_three_of_five_raters_do_not_choose(content):
    store(content)
    assert np.flatnonzero(load_annotations().label_error).tolist() == [5, 9999]


def test_missing_files_are_none(content):
    assert load_annotations() == (None, None, None)
    store({"duplicate": content["duplicate"]})
    assert [values is not None for values in load_annotations()] == [False, True, False]


@pytest.mark.fault("an annotation file with a wrong checksum", "it is not used, named in one line and left alone")
def test_file_with_a_wrong_checksum_is_not_used_and_named_and_left_alone(content, monkeypatch):
    store(content | {"duplicate": content["duplicate"] + b"10,3,0.2,1\r\n"})
    assert load_annotations().duplicate is None
    with host(monkeypatch, content) as asked:
        (note,) = fetch_annotations()
    assert asked == []
    assert note.startswith("cifair10-duplicates.csv has a wrong checksum and is not used: delete it")
    assert (data_folder() / "cifair10-duplicates.csv").read_bytes().endswith(b"10,3,0.2,1\r\n")


@pytest.mark.fault("a harmful pickle as annotation, with a right checksum", "it is not run")
def test_pickled_content_is_never_run(monkeypatch):
    class Harmful:
        def __reduce__(self):
            return (os.mkdir, (str(data_folder() / "harm"),))

    array = io.BytesIO()
    np.save(array, np.array([Harmful()], object), allow_pickle=True)
    file = ANNOTATIONS["human_entropy"]._replace(sha256=hashlib.sha256(array.getvalue()).hexdigest())
    monkeypatch.setattr(annotations, "ANNOTATIONS", ANNOTATIONS | {"human_entropy": file})
    store({"human_entropy": array.getvalue()})
    with pytest.raises(ValueError, match="allow_pickle"):
        load_annotations()
    assert not (data_folder() / "harm").exists()


def test_missing_files_are_downloaded_whole_and_nothing_else_is_left(content, monkeypatch):
    with host(monkeypatch, content):
        assert fetch_annotations() == []
    assert {path.name for path in data_folder().iterdir()} == {file.name for file in ANNOTATIONS.values()}
    for field, file in ANNOTATIONS.items():
        assert (data_folder() / file.name).read_bytes() == content[field]


def test_only_missing_files_are_downloaded(content, monkeypatch):
    store({field: content[field] for field in ("duplicate", "label_error")})
    with host(monkeypatch, content) as asked:
        assert fetch_annotations() == []
    assert asked == ["/human_entropy"]


@pytest.mark.fault(
    "no network when annotations are to be downloaded",
    "each missing file is named with its address, and the analysis goes on",
)
def test_without_a_network_each_missing_file_is_named_with_its_address(content):
    store({"duplicate": content["duplicate"]})
    notes = fetch_annotations()
    assert [note.split()[0] for note in notes] == ["cifar10h-probs.npy", "cifar10-label-errors.json"]
    for note, field in zip(notes, ("human_entropy", "label_error"), strict=True):
        assert "is missing and cannot be downloaded (" in note and "refused" in note and "\n" not in note
        assert note.endswith(f"put it into {data_folder()}/ under this name from http://127.0.0.1:9/{field}")


def test_file_that_the_host_has_not_is_named(content, monkeypatch):
    with host(monkeypatch, {field: content[field] for field in ("human_entropy", "duplicate")}):
        (note,) = fetch_annotations()
    assert note.startswith("cifar10-label-errors.json is missing and cannot be downloaded (Not Found)")
    assert load_annotations().label_error is None


@pytest.mark.fault("an annotation download with a wrong checksum", "it is not stored")
def test_download_with_a_wrong_checksum_is_not_stored(content, monkeypatch):
    with host(monkeypatch, content | {"human_entropy": content["human_entropy"][:-1]}):
        (note,) = fetch_annotations()
    assert note.startswith("cifar10h-probs.npy is missing and its download has a wrong checksum: put it into")
    assert not (data_folder() / "cifar10h-probs.npy").exists()


@pytest.mark.fault("hosts that never answer", "they are given up together, after seconds")
def test_hosts_that_never_answer_are_given_up_together(content, monkeypatch):
    monkeypatch.setattr(annotations, "TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        changed = {
            field: file._replace(url=f"http://127.0.0.1:{port}/") for field, file in annotations.ANNOTATIONS.items()
        }
        monkeypatch.setattr(annotations, "ANNOTATIONS", changed)
        start = time.monotonic()
        notes = fetch_annotations()
    assert len(notes) == 3 and all("(timed out)" in note for note in notes)
    assert time.monotonic() - start < 1.2


@pytest.mark.fault("a data folder that cannot be written", "it is named, and the analysis goes on")
def test_folder_that_cannot_be_written_is_named(content, monkeypatch):
    data_folder().write_text("a file where the folder should be")
    with host(monkeypatch, content):
        notes = fetch_annotations()
    assert len(notes) == 3 and all(f"{data_folder()}/ cannot be written" in note for note in notes)
    assert load_annotations() == (None, None, None)


HERE = [ROOT / "data" / file.name for file in ANNOTATIONS.values()]


@pytest.mark.skipif(not all(path.exists() for path in HERE), reason="the published files are not in data/")
def test_published_files_hold_what_the_documentation_says():
    data_folder().mkdir()
    for path in HERE:
        shutil.copy(path, data_folder())
    entropy, duplicate, label_error = load_annotations()
    assert (duplicate.sum(), label_error.sum(), (entropy == 0).sum()) == (286, 54, 4393)
    assert entropy.min() == 0 and entropy.max() < np.log(10)
    assert np.flatnonzero(duplicate)[[0, -1]].tolist() == [31, 9951]
