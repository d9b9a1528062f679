# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from chipfit.errors import BadInput, BadTask, UnknownName
from chipfit.tasks.data import DATASETS, Dataset, Split, load
from chipfit.tasks.data.dataset import stratified_cut


def small(count: int = 40, classes: int = 4) -> Dataset:
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, 1)
    labels = np.arange(count) % classes
    names = tuple("abcdefgh"[:classes])
    return Dataset("small", names, Split(images, labels), lambda: Split(images[:8], labels[:8]))


def test_digits_are_the_real_ones():
    data = load("digits")
    test = data.read_test()
    assert data.train_images.shape == (1438, 1, 8, 8)
    assert test.images.shape == (359, 1, 8, 8)
    counts = np.bincount(data.train_labels) + np.bincount(test.labels)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.train_images.max() == 255
    # Row 0 of the source file is a zero whose first row of pixels is 0 0 5 13 9 1 0 0 (of 16).
    first = (np.array([0, 0, 5, 13, 9, 1, 0, 0]) * 255 // 16).astype(np.uint8)
    everything = np.concatenate([data.train_images, test.images])
    assert (everything[:, 0, 0] == first).all(1).any()


def test_test_readings_are_counted_and_nothing_else_reads_it():
    data = small()
    data.cut_validation(0.25, 0)
    assert data.test_reads == 0
    data.read_test()
    data.read_test()
    assert data.test_reads == 2


def test_validation_is_disjoint_stratified_and_repeatable():
    data = small()
    kept, validation = data.cut_validation(0.25, 0)
    held = validation.images[:, 0, 0, 0]
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(40))
    assert np.bincount(validation.labels).tolist() == [2, 2, 2, 2]
    again_kept, again = data.cut_validation(0.25, 0)
    assert np.array_equal(kept, again_kept)
    assert np.array_equal(held, again.images[:, 0, 0, 0])
    _, other = data.cut_validation(0.25, 1)
    assert not np.array_equal(held, other.images[:, 0, 0, 0])


def test_stratified_cut_is_pinned_across_versions():
    kept, held = stratified_cut(np.array([0, 0, 0, 1, 1, 1]), 1 / 3, 7)
    assert held.tolist() == [4, 1]
    assert kept.tolist() == [0, 2, 3, 5]


def test_a_class_never_vanishes_from_training():
    kept, held = stratified_cut(np.array([0, 0, 1, 1, 1, 2]), 0.9, 0)
    assert set(np.array([0, 0, 1, 1, 1, 2])[kept]) == {0, 1, 2}
    assert len(held) == 3


@pytest.mark.parametrize(
    ("images", "labels", "word"),
    [
        (np.zeros((2, 3, 4, 4), np.float32), np.array([0, 1]), "uint8"),
        (np.zeros((2, 4, 4), np.uint8), np.array([0, 1]), "N, C, H, W"),
        (np.zeros((2, 1, 4, 4), np.uint8), np.array([0]), "2 images, 1 labels"),
        (np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 2]), "0..1"),
        (np.zeros((0, 1, 4, 4), np.uint8), np.zeros(0, int), "empty"),
    ],
)
def test_arrays_that_do_not_fit_are_named(images, labels, word):
    with pytest.raises(BadTask, match=word):
        Dataset("odd", ("a", "b"), Split(images, labels), lambda: Split(images, labels))


def test_names_and_options():
    assert {"digits", "mnist", "fashion-mnist", "cifar10", "imagefolder"} <= {
        entry.name for entry in DATASETS
    }
    with pytest.raises(UnknownName, match="fashion-mnist"):
        load("fashion_mnist")
    with pytest.raises(BadInput, match="fixed image size"):
        load("digits", (16, 16))
    with pytest.raises(BadInput, match="no argument"):
        load("digits:/tmp")
