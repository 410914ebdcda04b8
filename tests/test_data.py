import dataclasses
import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socket
import socketserver
import subprocess
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from lib import data
from lib.data import CIFAR10_CLASSES, load_dataset, local_source, split_indices, stratified_order
from lib.errors import StudyError

COUNTS = {"train": 40, "test": 20}


@pytest.fixture
def folder(tmp_path):
    """The data folder, empty."""
    path = tmp_path / "data"
    path.mkdir()
    return path


def labels_of(split):
    return np.random.default_rng(len(split)).integers(0, 10, COUNTS[split])


@pytest.fixture
def image_folder(monkeypatch, folder):
    """A small image folder with 40 training and 20 test images."""
    monkeypatch.setattr(data, "IMAGES", COUNTS)
    root = folder / "cifar10-jpeg"
    generator = np.random.default_rng(0)
    for split in COUNTS:
        for name in CIFAR10_CLASSES:
            (root / split / name).mkdir(parents=True)
        for index, label in enumerate(labels_of(split)):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / CIFAR10_CLASSES[label] / f"{index}.jpg", quality=90)
    return root


def image_path(image_folder, split, index):
    (path,) = (image_folder / split).glob(f"*/{index}.jpg")
    return path


def batch_of(seed, count):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": [int(label) for label in generator.integers(0, 10, count)]}


@pytest.fixture
def batches():
    """The contents of the files of a small official archive."""
    training = {f"data_batch_{number}": batch_of(number, 8) for number in range(1, 6)}
    return {**training, "test_batch": batch_of(6, 20), "batches.meta": {"label_names": list(CIFAR10_CLASSES)}}


def images_of(batches, *names):
    """Images (N, 32, 32, 3) out of the archive's rows of 1,024 red, green and blue values each."""
    rows = np.concatenate([batches[name]["data"] for name in names])
    return np.stack([rows[:, :1024], rows[:, 1024:2048], rows[:, 2048:]], axis=2).reshape(-1, 32, 32, 3)


@pytest.fixture
def archive(monkeypatch, tmp_path, batches):
    """A small official archive in a folder of its own, whose checksums torchvision now expects."""
    path = tmp_path / "server" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    checksums = {}
    with tarfile.open(path, "w:gz") as file:
        for name, content in batches.items():
            raw = pickle.dumps(content)
            checksums[name] = hashlib.md5(raw).hexdigest()
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", checksums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", checksums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    return path


@pytest.fixture
def serve(monkeypatch):
    """Starts a server on this machine with a request handler, and lets torchvision download from it."""
    servers = []

    def start(handler):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_address[1]}/cifar-10-python.tar.gz")

    def stop():
        while servers:
            server = servers.pop()
            server.shutdown()
            server.server_close()

    start.stop = stop
    yield start
    stop()


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class CutFiles(Files):
    """Announces the whole file and hangs up after half of it."""

    def copyfile(self, source, outputfile):
        content = source.read()
        outputfile.write(content[: len(content) // 2])


class Gibberish(socketserver.BaseRequestHandler):
    """What is no web server, or a portal that answers in its place."""

    def handle(self):
        self.request.recv(1000)
        self.request.sendall(b"who is there?\r\n\r\n")


def files_in(path):
    return functools.partial(Files, directory=path)


def assert_small_archive(dataset, batches):
    training = [f"data_batch_{number}" for number in range(1, 6)]
    assert (dataset.source, dataset.classes) == ("cifar10", CIFAR10_CLASSES)
    np.testing.assert_array_equal(dataset.train_images, images_of(batches, *training))
    np.testing.assert_array_equal(dataset.test_images, images_of(batches, "test_batch"))
    np.testing.assert_array_equal(dataset.train_labels, sum((batches[name]["labels"] for name in training), []))
    np.testing.assert_array_equal(dataset.test_labels, batches["test_batch"]["labels"])
    assert {array.dtype for array in dataset.arrays.values()} == {np.dtype(np.uint8)}


def assert_same(one, other):
    assert one.source == other.source
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])


def test_digits_are_small_colour_images():
    digits = load_dataset("digits")
    assert (digits.source, digits.classes) == ("digits", tuple("0123456789"))
    assert digits.train_images.shape == (1297, 32, 32, 3)
    assert digits.test_images.shape == (500, 32, 32, 3)
    assert {array.dtype for array in digits.arrays.values()} == {np.dtype(np.uint8)}
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)


def test_digits_are_enlarged_without_a_change():
    digits, original = load_dataset("digits"), load_digits()
    small = digits.train_images[:, ::4, ::4, 0]
    assert np.array_equal(small.repeat(4, 1).repeat(4, 2)[..., None].repeat(3, 3), digits.train_images)
    ours = {np.round(image / 255 * 16).astype(int).tobytes() for image in small}
    assert ours <= {image.astype(int).tobytes() for image in original.images}


def test_digits_are_all_there_once():
    digits, original = load_dataset("digits"), load_digits()
    both = np.concatenate([digits.train_labels, digits.test_labels])
    np.testing.assert_array_equal(np.bincount(both), np.bincount(original.target))
    shares = np.bincount(digits.test_labels) / np.bincount(both)
    assert np.abs(shares - 500 / 1797).max() < 0.01


def test_digits_are_the_same_each_time():
    assert load_dataset("digits").fingerprint == load_dataset("digits").fingerprint


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_fingerprint_changes_with_one_value(dataset, name):
    array = dataset.arrays[name].copy()
    array.flat[7] ^= 1
    assert dataclasses.replace(dataset, **{name: array}).fingerprint != dataset.fingerprint


def test_fingerprint_changes_with_the_shape(dataset):
    reshaped = dataset.train_images.reshape(96, 64, 16, 3)
    assert dataclasses.replace(dataset, train_images=reshaped).fingerprint != dataset.fingerprint


def test_fingerprint_changes_with_the_split(dataset):
    moved = dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:-1],
        test_images=np.concatenate([dataset.train_images[-1:], dataset.test_images]),
    )
    assert moved.fingerprint != dataset.fingerprint


@pytest.fixture(scope="module")
def cifar_labels():
    return np.random.default_rng(0).permutation(np.arange(50_000) % 10)


def test_stratified_order_holds_each_index_once(cifar_labels):
    np.testing.assert_array_equal(np.sort(stratified_order(cifar_labels)), np.arange(50_000))


def test_every_prefix_holds_the_classes_in_equal_shares(cifar_labels):
    ordered = cifar_labels[stratified_order(cifar_labels)]
    counts = np.cumsum(ordered[:, None] == np.arange(10), axis=0)
    assert np.ptp(counts, axis=1).max() <= 1


def test_every_prefix_of_unequal_classes_is_close_to_their_shares():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    ordered = labels[stratified_order(labels)]
    counts = np.cumsum(ordered[:, None] == np.arange(3), axis=0)
    ideal = np.arange(1, 1001)[:, None] * [0.7, 0.2, 0.1]
    assert np.abs(counts - ideal).max() <= 2


def test_stratified_order_is_the_same_each_time_and_random_within_a_class(cifar_labels):
    order = stratified_order(cifar_labels)
    np.testing.assert_array_equal(order, stratified_order(cifar_labels))
    members = order[cifar_labels[order] == 3]
    assert abs(np.corrcoef(members, np.arange(len(members)))[0, 1]) < 0.05


def test_held_out_split_is_disjoint_complete_and_stratified(cifar_labels):
    train, validation = split_indices(cifar_labels, 1.0, 5000)
    assert (len(train), len(validation)) == (45_000, 5000)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(50_000))
    assert set(np.bincount(cifar_labels[validation])) == {500}
    assert set(np.bincount(cifar_labels[train])) == {4500}
    assert np.all(np.diff(train) > 0) and np.all(np.diff(validation) > 0)


def test_no_held_out_images_leaves_all_in_their_order(cifar_labels):
    train, validation = split_indices(cifar_labels, 1.0, 0)
    np.testing.assert_array_equal(train, np.arange(50_000))
    assert len(validation) == 0


def test_fractions_are_nested_and_do_not_meet_the_held_out_images(cifar_labels):
    splits = [split_indices(cifar_labels, fraction, 5000) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert [len(train) for train, _ in splits] == [4500, 11_250, 22_500, 45_000]
    for (small, held_out), (large, same) in zip(splits, splits[1:], strict=False):
        assert set(small) < set(large)
        assert not set(large) & set(held_out)
        np.testing.assert_array_equal(held_out, same)


@pytest.mark.parametrize("validation_images", [100, 101, 150])
def test_holding_out_all_images_or_more_is_refused(validation_images):
    with pytest.raises(StudyError, match="validation_images"):
        split_indices(np.arange(100) % 10, 0.5, validation_images)


def test_image_folder_is_read_in_official_order(image_folder):
    dataset = load_dataset("cifar10")
    assert (dataset.source, dataset.classes) == ("cifar10-jpeg", CIFAR10_CLASSES)
    for split, count in COUNTS.items():
        images, labels = dataset.arrays[f"{split}_images"], dataset.arrays[f"{split}_labels"]
        np.testing.assert_array_equal(labels, labels_of(split))
        assert images.shape == (count, 32, 32, 3)
        for index in range(count):
            expected = np.asarray(Image.open(image_path(image_folder, split, index)))
            np.testing.assert_array_equal(images[index], expected)


def test_grey_image_becomes_a_colour_image(image_folder):
    Image.new("L", (32, 32), 77).save(image_path(image_folder, "train", 3))
    assert set(load_dataset("cifar10").train_images[3].flatten()) == {77}


def test_missing_class_folder_is_named(image_folder):
    shutil.rmtree(image_folder / "test" / "frog")
    with pytest.raises(StudyError, match="test/frog is missing"):
        load_dataset("cifar10")


def test_missing_images_are_counted_and_the_first_is_named(image_folder):
    for index in (17, 9):
        image_path(image_folder, "train", index).unlink()
    with pytest.raises(StudyError, match="2 of 40 images are missing in .*train, the first with index 9:"):
        load_dataset("cifar10")


def test_index_in_two_classes_is_named(image_folder):
    path = image_path(image_folder, "train", 12)
    other = next(name for name in CIFAR10_CLASSES if name != path.parent.name)
    shutil.copy(path, image_folder / "train" / other)
    with pytest.raises(StudyError, match=r"12\.jpg is not expected: .*used once"):
        load_dataset("cifar10")


@pytest.mark.parametrize("name", ["40.jpg", "cat.jpg", "-1.jpg", "7 (copy).jpg", ".hidden.jpg"])
def test_unexpected_name_is_named(image_folder, name):
    shutil.copy(image_path(image_folder, "train", 12), image_folder / "train" / "cat" / name)
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert f"cat/{name} is not expected" in str(caught.value)
    assert "from 0 to 39" in str(caught.value)


def claim_huge_size(content):
    """A JPEG whose header was hit: 65,535 × 65,535 pixels."""
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + b"\xff\xff\xff\xff" + content[start + 4 :]


@pytest.mark.fault("an image that is empty, truncated or claims to be huge", "one line names it")
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"not an image", id="foreign"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(claim_huge_size, id="header"),
    ],
)
def test_unreadable_image_is_named(image_folder, damage):
    path = image_path(image_folder, "test", 5)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StudyError, match=r"/5\.jpg cannot be read .*restore that file") as caught:
        load_dataset("cifar10")
    assert "\n" not in str(caught.value)


def test_image_of_another_size_is_named(image_folder):
    Image.new("RGB", (33, 31)).save(image_path(image_folder, "test", 5))
    with pytest.raises(StudyError, match=r"/5\.jpg is 33×31 pixels, not 32×32"):
        load_dataset("cifar10")


def test_failed_reading_leaves_no_cache(image_folder, folder):
    image_path(image_folder, "test", 5).unlink()
    with pytest.raises(StudyError):
        load_dataset("cifar10")
    assert not list(folder.glob("cache/*"))


def test_cache_is_used_the_second_time(image_folder, monkeypatch):
    first = load_dataset("cifar10")
    for path in image_folder.glob("*/*/*.jpg"):
        path.write_bytes(b"")
    assert_same(load_dataset("cifar10"), first)


def test_cache_outlives_the_image_folder(image_folder):
    first = load_dataset("cifar10")
    shutil.rmtree(image_folder)
    assert_same(load_dataset("cifar10"), first)


def flip_a_pixel_of_a_valid_cache(path):
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)


@pytest.mark.fault(
    "decoded images that are empty, truncated, foreign or have one wrong pixel", "they are decoded again"
)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1000]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b"cache"), id="foreign"),
        pytest.param(lambda path: np.savez(path, train_images=np.zeros(3)), id="other arrays"),
        pytest.param(lambda path: np.savez(path, fingerprint=np.array([{}], dtype=object)), id="pickle"),
        pytest.param(flip_a_pixel_of_a_valid_cache, id="one pixel"),
    ],
)
def test_damaged_cache_is_rebuilt(image_folder, folder, damage):
    first = load_dataset("cifar10")
    path = folder / "cache" / "cifar10-jpeg.npz"
    damage(path)
    damaged = path.read_bytes()
    assert_same(load_dataset("cifar10"), first)
    assert path.read_bytes() != damaged
    with np.load(path, allow_pickle=False) as stored:
        assert str(stored["fingerprint"]) == first.fingerprint
    assert list(path.parent.iterdir()) == [path]


def test_cache_folder_that_cannot_be_written_is_an_error_in_one_line(image_folder, folder):
    (folder / "cache").write_text("a file")
    with pytest.raises(StudyError, match="cannot write .*cache.*; free space or set STUDY_DATA"):
        load_dataset("cifar10")


@pytest.mark.fault(
    "a disk that is full when decoded images are saved", "one line says so, and no part of a file is left"
)
def test_full_disk_while_caching_leaves_no_part_of_a_file(image_folder, monkeypatch, small_disk):
    (small_disk / "cifar10-jpeg").symlink_to(image_folder)
    monkeypatch.setenv("STUDY_DATA", str(small_disk))
    with pytest.raises(StudyError, match="cannot write .*cache.*: No space left on device; .*STUDY_DATA"):
        load_dataset("cifar10")
    assert list((small_disk / "cache").iterdir()) == []


def test_official_images_go_before_the_image_folder(folder):
    sources = [local_source()]
    for name in ("cifar10-jpeg", "cifar-10-batches-py"):
        (folder / name).mkdir()
        sources.append(local_source())
    assert sources == [None, "cifar10-jpeg", "cifar10"]


@pytest.mark.parametrize(("size", "source"), [(None, "cifar10"), (3000, "cifar10-jpeg"), (0, "cifar10-jpeg")])
def test_archive_goes_before_the_image_folder_where_it_is_whole(archive, folder, size, source):
    (folder / "cifar10-jpeg").mkdir()
    (folder / archive.name).write_bytes(archive.read_bytes()[:size])
    assert local_source() == source


def test_archive_is_downloaded_where_there_is_none(archive, serve, batches):
    serve(files_in(archive.parent))
    assert_small_archive(load_dataset("cifar10"), batches)


def test_downloaded_archive_is_needed_once(archive, serve, folder, batches):
    serve(files_in(archive.parent))
    load_dataset("cifar10")
    serve.stop()
    shutil.rmtree(folder / "cifar-10-batches-py")
    (folder / "cifar-10-python.tar.gz").unlink()
    assert_small_archive(load_dataset("cifar10"), batches)


def test_archive_put_there_by_hand_needs_no_network(archive, folder, batches):
    shutil.copy(archive, folder)
    assert_small_archive(load_dataset("cifar10"), batches)


def test_unpacked_archive_put_there_by_hand_needs_no_network(archive, folder, batches):
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    assert_small_archive(load_dataset("cifar10"), batches)


@pytest.mark.fault("an archive whose unpacking was cut short", "it is unpacked again")
def test_unpacking_that_was_cut_short_is_repeated(archive, folder, batches):
    shutil.copy(archive, folder)
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    path = folder / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:1000])
    assert_small_archive(load_dataset("cifar10"), batches)


def assert_says_what_to_do(caught, folder):
    message = str(caught.value)
    assert str(folder) in message
    assert "cifar-10-python.tar.gz" in message and "cifar10-jpeg/" in message
    assert "smoke" in message
    assert "\n" not in message


@pytest.mark.fault("no network when the archive is to be downloaded", "one line says what to do")
def test_no_server_is_an_error_that_says_what_to_do(archive, folder):
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)
    assert not (folder / "cache").exists()


@pytest.mark.parametrize("handler", [files_in("/nowhere"), Gibberish], ids=["404", "gibberish"])
def test_server_without_the_archive_is_an_error_that_says_what_to_do(archive, serve, folder, handler):
    serve(handler)
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)


@pytest.mark.fault("a download that was cut short", "one line says so, and the next start repeats it")
def test_download_that_was_cut_short_is_repeated(archive, serve, folder, batches):
    serve(functools.partial(CutFiles, directory=archive.parent))
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)
    serve.stop()
    serve(files_in(archive.parent))
    assert_small_archive(load_dataset("cifar10"), batches)


@pytest.mark.fault("a truncated archive", "it is downloaded again")
def test_truncated_archive_is_downloaded_again(archive, serve, folder, batches):
    (folder / archive.name).write_bytes(archive.read_bytes()[:3000])
    serve(files_in(archive.parent))
    assert_small_archive(load_dataset("cifar10"), batches)


@pytest.mark.fault("a truncated archive and no network", "one line says what to do")
def test_truncated_archive_without_a_server_is_an_error_that_says_what_to_do(archive, folder):
    (folder / archive.name).write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)


@pytest.mark.fault("an archive with a wrong checksum", "it is never unpacked")
def test_archive_with_another_checksum_is_never_unpacked(archive, serve, folder, monkeypatch):
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    serve(files_in(archive.parent))
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)
    assert not (folder / "cifar-10-batches-py").exists()
    assert not (folder / "cache").exists()


def test_data_folder_that_cannot_be_made_is_an_error_in_one_line(monkeypatch, archive, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert str(tmp_path / "file" / "data") in str(caught.value)


class SlowFiles(Files):
    """Counts its answers and takes its time in the middle of each."""

    served = 0

    def copyfile(self, source, outputfile):
        type(self).served += 1
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        outputfile.flush()
        time.sleep(0.3)
        outputfile.write(content[len(content) // 2 :])


@pytest.mark.fault(
    "images asked for twice at once where there are none (by two threads: the lock is the one between processes)",
    "they are downloaded and decoded once, and both get the same",
)
def test_two_that_need_the_images_at_once_download_them_once(archive, serve, folder, batches, monkeypatch):
    monkeypatch.setattr(SlowFiles, "served", 0)
    serve(functools.partial(SlowFiles, directory=archive.parent))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(load_dataset, ["cifar10"] * 2))
    for dataset in both:
        assert_small_archive(dataset, batches)
    of_both = SlowFiles.served  # a look for a redirect is an answer too
    shutil.rmtree(folder)
    load_dataset("cifar10")
    assert SlowFiles.served == 2 * of_both


@pytest.mark.fault(
    "a data folder that is read-only, with decoded images in it and without",
    "the decoded images are used; without them one line says what cannot be written",
)
def test_read_only_data_folder(image_folder, folder, read_only, monkeypatch, tmp_path):
    expected = load_dataset("cifar10")
    decoded = folder / "cache" / "cifar10-jpeg.npz"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(image_folder, elsewhere / "cifar10-jpeg")
    for each in (read_only(folder), read_only(elsewhere)):
        monkeypatch.setenv("STUDY_DATA", str(each))
        if decoded.is_relative_to(each):
            assert_same(load_dataset("cifar10"), expected)
        else:
            with pytest.raises(StudyError, match="cannot write .*cifar10-jpeg.npz: .*set STUDY_DATA"):
                load_dataset("cifar10")


@pytest.mark.fault(
    "a process killed while it cached the images, and file times of the past and the future",
    "its part of a file is removed by the next one that writes there, and file times mean nothing",
)
def test_part_of_a_cache_and_file_times(image_folder, folder):
    expected = load_dataset("cifar10")
    cache = folder / "cache" / "cifar10-jpeg.npz"
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = cache.with_name(f"{cache.name}.partial-{socket.gethostname()}-{gone.pid}")
    left.write_bytes(b"half")
    for seconds in (0, 4e9):
        for path in (cache, image_folder, *image_folder.glob("*/*/*.jpg")):
            os.utime(path, (seconds, seconds))
        assert_same(load_dataset("cifar10"), expected)
    cache.write_bytes(cache.read_bytes()[:-1000])
    assert_same(load_dataset("cifar10"), expected)
    assert list(cache.parent.iterdir()) == [cache]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def hostile_members(outside):
    """Members of an archive that would write or link to `outside`, or make a folder there when they are loaded."""
    bomb = pickle.dumps(Bomb(outside / "unpickled"))
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        yield tarfile.TarInfo(f"cifar-10-batches-py/{name}"), bomb
    yield tarfile.TarInfo("../outside/above"), b"harm"
    yield tarfile.TarInfo(str(outside / "absolute")), b"harm"
    link = tarfile.TarInfo("cifar-10-batches-py/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    yield link, b""
    yield tarfile.TarInfo("cifar-10-batches-py/link/through"), b"harm"
    hard = tarfile.TarInfo("cifar-10-batches-py/hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../outside/above"
    yield hard, b""


@pytest.fixture
def hostile(tmp_path):
    """A hostile archive of the official name, and the folder that it tries to write to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "hostile" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for member, content in hostile_members(outside):
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path, outside


@pytest.mark.fault(
    "an archive of the official name with path traversal, links and harmful pickles, put there by hand or downloaded",
    "its checksum is wrong, so it is neither unpacked nor loaded, nothing is written outside, and one line says so",
)
@pytest.mark.parametrize("downloaded", [False, True])
def test_hostile_archive_is_not_unpacked(archive, hostile, serve, folder, downloaded):
    path, outside = hostile
    if downloaded:
        serve(files_in(path.parent))
    else:
        shutil.copy(path, folder)
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert not list(outside.iterdir())


@pytest.mark.fault(
    "harmful pickles in place of the files of the unpacked official archive",
    "their checksums are wrong, so they are not loaded, and one line says so",
)
def test_hostile_unpacked_archive_is_not_loaded(archive, folder, tmp_path):
    (folder / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    with pytest.raises(StudyError) as caught:
        load_dataset("cifar10")
    assert_says_what_to_do(caught, folder)
    assert not (tmp_path / "harm").exists()


@pytest.mark.fault("a harmful pickle in the decoded images", "it is not run, and the images are decoded again")
def test_hostile_cache_is_rebuilt(image_folder, folder, tmp_path):
    expected = load_dataset("cifar10")
    cache = folder / "cache" / "cifar10-jpeg.npz"
    for name in ("fingerprint", "train_images"):
        np.savez(cache, allow_pickle=True, **{name: np.array([Bomb(tmp_path / "harm")], object)})
        assert_same(load_dataset("cifar10"), expected)
    assert not (tmp_path / "harm").exists()
