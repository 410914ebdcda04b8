import dataclasses
import functools
import hashlib
import http.server
import multiprocessing
import pickle
import shutil
import socket
import tarfile
import threading
import time
import urllib.request

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from lib import data
from lib.data import human_labels, load_dataset, local_dataset, split_indices
from lib.files import StudyError

ARCHIVE, EXTRACTED = CIFAR10.filename, CIFAR10.base_folder
IMAGES, LABELS = (np.random.default_rng(0).integers(0, *how, np.uint8) for how in ((256, (48, 32, 32, 3)), (10, 48)))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.fixture
def official(monkeypatch, tmp_path):
    """A folder with small files, and their archive, that now count as the official ones."""
    source = tmp_path / "official"
    (source / EXTRACTED).mkdir(parents=True)
    for start, name in zip(range(0, 48, 8), data.BATCHES, strict=True):
        rows = IMAGES[start : start + 8].transpose(0, 3, 1, 2).reshape(8, 3072)  # all red, all green, all blue
        batch = {"data": rows, "labels": LABELS[start : start + 8].tolist()}
        (source / EXTRACTED / name).write_bytes(pickle.dumps(batch))
    with tarfile.open(source / ARCHIVE, "w:gz") as file:
        file.add(source / EXTRACTED, EXTRACTED)
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in source.rglob("*") if path.is_file()}
    monkeypatch.setattr(data, "BATCHES", {name: sums[name] for name in data.BATCHES})
    monkeypatch.setattr(CIFAR10, "tgz_md5", sums[ARCHIVE])
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:9/{ARCHIVE}")  # where no server is
    return source


@pytest.fixture
def folder(official, tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def answers(official, monkeypatch):
    """A server of the official files; the list of its answers so far."""
    answers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            answers.append(self.path)
            time.sleep(0.1)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=official)) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{ARCHIVE}")
        monkeypatch.setattr(data, "CIFAR10H_URL", f"http://127.0.0.1:{server.server_port}/human.npy")
        yield answers
        server.shutdown()


def is_official(dataset):
    expected = data.Dataset("cifar10", IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:])
    return dataset.fingerprint == expected.fingerprint


def test_the_official_files_are_those_of_torchvision():
    assert list(data.BATCHES.items()) == [tuple(each) for each in CIFAR10.train_list + CIFAR10.test_list]


def refusal():
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    return str(caught.value)


def test_digits_are_enlarged_colour_images_of_all_classes():
    digits, original = load_dataset("digits"), load_digits().images.astype(int)
    assert (digits.train_images.shape, digits.test_images.shape) == ((1297, 32, 32, 3), (500, 32, 32, 3))
    found = (np.concatenate([digits.train_images, digits.test_images])[:, ::4, ::4, 0] / 255 * 16).round().astype(int)
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in original)
    assert np.ptp(np.bincount(digits.test_labels)) <= 2 and digits.classes == tuple("0123456789")


def test_held_out_images_are_stratified_disjoint_and_always_the_same():
    labels = np.random.default_rng(0).permutation(np.arange(5000) % 10)
    train, validation = split_indices(labels, 500)
    np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(5000))
    assert set(np.bincount(labels[validation])) == {50} and np.all(np.diff(train) > 0)
    assert np.array_equal(validation, split_indices(labels, 500)[1])
    with pytest.raises(StudyError, match="validation_images = 5000"):
        split_indices(labels, 5000)


def test_extracted_files_are_read_and_stray_files_do_no_harm(official, folder, read_only):
    shutil.copytree(official / EXTRACTED, folder / EXTRACTED)
    for stray in (f"{EXTRACTED}/.DS_Store", "notes.txt", ARCHIVE, "cifar10h-probs.npy"):
        (folder / stray).write_text("stray")
    read_only(folder)
    assert is_official(load_dataset("cifar10")) and human_labels() is None
    dataset = local_dataset("cifar10")
    for array in (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels):
        array.flat[7] ^= 1
        assert not is_official(dataclasses.replace(dataset))
        array.flat[7] ^= 1
    assert is_official(dataset)


def test_an_archive_in_a_folder_that_nobody_may_write_in_asks_for_another_folder(official, folder, read_only):
    shutil.copy(official / ARCHIVE, folder)
    read_only(folder)
    assert "set STUDY_DATA to a folder that you may write in" in refusal() and f"put {ARCHIVE}" not in refusal()


def test_one_line_says_what_to_do_and_the_whole_archive_mends_what_is_damaged(official, folder):
    assert all(part in refusal() for part in (str(folder), ARCHIVE, "smoke")) and "\n" not in refusal()
    shutil.copytree(official / EXTRACTED, folder / EXTRACTED)
    (folder / EXTRACTED / "data_batch_3").write_bytes(pickle.dumps(Bomb()))
    (folder / ARCHIVE).write_bytes(b"half an archive")
    assert "data_batch_3" in refusal() and "data_batch_2" not in refusal() and local_dataset("cifar10") is None
    shutil.copy(official / ARCHIVE, folder)
    assert is_official(load_dataset("cifar10"))
    shutil.rmtree(folder / EXTRACTED)
    (folder / EXTRACTED).mkdir()
    assert is_official(local_dataset("cifar10"))


def test_an_archive_is_downloaded_and_opened_only_with_the_official_checksum(folder, answers, monkeypatch, capfd):
    (folder / ARCHIVE).write_bytes(b"half an archive")
    monkeypatch.delitem(data.sys.modules, "ipykernel", raising=False)  # this is no notebook, and no terminal either
    assert is_official(load_dataset("cifar10"))
    assert capfd.readouterr().err == ""  # no bar
    shutil.rmtree(folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    assert ARCHIVE in refusal() and not (folder / EXTRACTED).exists()


def test_downloads_go_through_the_proxies_that_are_set(folder, answers, monkeypatch):
    for owner, name in ((CIFAR10, "url"), (data, "CIFAR10H_URL")):
        server, file = getattr(owner, name).rsplit("/", 1)
        monkeypatch.setenv("http_proxy", server)
        monkeypatch.setattr(owner, name, f"http://files.invalid/{file}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the first download
    assert refusal() and human_labels() is None  # since this one answers as a server does
    assert {f"http://files.invalid/{name}" for name in (ARCHIVE, "human.npy")} <= set(answers)


def test_a_server_that_never_answers_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(data, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for owner, name in ((CIFAR10, "url"), (data, "CIFAR10H_URL")):
            monkeypatch.setattr(owner, name, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        start = time.monotonic()
        assert "timed out" in refusal() and human_labels() is None
        assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None


def test_two_processes_at_once_download_once(folder, answers):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        both = [pool.apply_async(load_dataset, ["cifar10"]) for _ in range(2)]
        assert all(is_official(each.get(30)) for each in both)
    assert len(answers) == 2  # torchvision asks for a redirect first


def test_what_is_not_here_is_neither_downloaded_nor_an_error(folder, answers, monkeypatch):
    assert local_dataset("digits") and local_dataset("cifar10") is None
    (folder / "file").touch()
    monkeypatch.setenv("STUDY_DATA", str(folder / "file"))
    assert local_dataset("cifar10") is None and answers == []


def test_human_labels_are_downloaded_once_and_verified(official, answers, monkeypatch, capfd):
    np.save(official / "human.npy", np.eye(10))
    assert human_labels() is None  # other labels than the published ones
    monkeypatch.setattr(data, "CIFAR10H_SHA256", hashlib.sha256((official / "human.npy").read_bytes()).hexdigest())
    assert all(np.array_equal(human_labels(), np.eye(10)) for _ in range(2)) and len(answers) == 2
    assert "ownloading" not in capfd.readouterr().err
