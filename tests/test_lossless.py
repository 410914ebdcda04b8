import dataclasses
import io

import numpy as np
import pytest

from lib.errors import StudyError
from lib.lossless import FILE, load_lossless_test
from lib.paths import data_folder

INDICES = np.array([0, 3, 17, 38])


@pytest.fixture
def copy(dataset):
    """The tiny data set as if it were a JPEG copy."""
    return dataclasses.replace(dataset, source="cifar10-jpeg")


def arrays_of(dataset, **changes):
    originals = 255 - dataset.test_images[INDICES]
    return {"images": originals, "labels": dataset.test_labels[INDICES], "indices": INDICES} | changes


def store(arrays):
    data_folder().mkdir(parents=True, exist_ok=True)
    np.savez_compressed(data_folder() / FILE, **arrays)


def test_original_images_come_with_their_labels_and_places(copy):
    arrays = arrays_of(copy)
    store(arrays)
    found = load_lossless_test(copy)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(found, name), array)
    assert found.images.dtype == np.uint8


def test_missing_file_is_none(copy):
    assert load_lossless_test(copy) is None


@pytest.mark.parametrize("source", ["cifar10", "digits"])
def test_file_says_nothing_of_other_images(dataset, source):
    store(arrays_of(dataset))
    assert load_lossless_test(dataclasses.replace(dataset, source=source)) is None


def one_line(copy):
    with pytest.raises(StudyError, match=rf"{FILE} .*restore or delete it") as caught:
        load_lossless_test(copy)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_labels_are_refused(copy):
    labels = copy.test_labels[INDICES].copy()
    labels[2] = (labels[2] + 1) % 10
    store(arrays_of(copy, labels=labels))
    assert "does not hold these test images" in one_line(copy)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"images": np.zeros((4, 32, 32), np.uint8)}, id="grey"),
        pytest.param({"images": np.zeros((3, 32, 32, 3), np.uint8)}, id="one too few"),
        pytest.param({"images": np.zeros((4, 32, 32, 3), np.float32)}, id="floats"),
        pytest.param({"labels": np.zeros(3, np.uint8)}, id="labels of others"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused(copy, changes):
    store(arrays_of(copy, **changes))
    assert "does not hold these test images" in one_line(copy)


@pytest.mark.parametrize("indices", [np.array([0, 3, 17, 40]), np.array([0.0, 3.0, 17.0, 38.0])])
def test_places_that_are_none_are_one_line(copy, indices):
    store(arrays_of(copy, indices=indices))
    one_line(copy)


@pytest.mark.fault("original bytes of test images that are empty, truncated or foreign", "one line names the file")
@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "no labels", "pickle"])
def test_damaged_file_is_one_line(copy, damage):
    arrays = arrays_of(copy)
    if damage == "no labels":
        del arrays["labels"]
    if damage == "pickle":
        arrays["labels"] = arrays["labels"].astype(object)
    store(arrays)
    path = data_folder() / FILE
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": content[:-200], "foreign": b"not an archive"}.get(damage, content))
    one_line(copy)


def test_single_array_instead_of_an_archive_is_one_line(copy):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    data_folder().mkdir(parents=True)
    (data_folder() / FILE).write_bytes(buffer.getvalue())
    one_line(copy)
