# SPDX-License-Identifier: Apache-2.0
"""``Dataset``: labelled images in memory (or mapped from the cache), with a guarded test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadTask

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)``, uint8, and their class indices ``(N,)``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


class Dataset:
    """Images of ``len(classes)`` classes in a training and a test split.

    The test split is read through :meth:`read_test` only, and every reading is counted, so that a
    run can show that its search never looked at it.

    Args:
        name: What :func:`chipfit.tasks.data.load` was called with.
        classes: Names of the classes, in the order of the labels.
        train: The training split; validation images are cut from it later.
        test: Loads the test split.
        validation: A validation split, where the source has one of its own.

    Raises:
        BadTask: Images and labels do not fit together.
    """

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        train: Split,
        test: Callable[[], Split],
        validation: Split | None = None,
    ) -> None:
        self.name = name
        self.classes = classes
        self.train = _checked(name, "train", train, len(classes))
        self.validation = validation
        if validation is not None:
            _checked(name, "validation", validation, len(classes))
        self._test = test
        self.test_reads = 0

    @property
    def train_images(self) -> Images:
        """Training images ``(N, C, H, W)``, uint8."""
        return self.train.images

    @property
    def train_labels(self) -> Labels:
        """Class indices of the training images ``(N,)``."""
        return self.train.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def read_test(self) -> Split:
        """Return the test split and count the reading in ``test_reads``."""
        self.test_reads += 1
        return _checked(self.name, "test", self._test(), len(self.classes))

    def cut_validation(self, fraction: float, seed: int) -> tuple[NDArray[np.int64], Split]:
        """Cut a validation split from the training images, or return the data set's own.

        Args:
            fraction: Share of the training images of every class that is held out.
            seed: Of the choice; independent of any seed of training.

        Returns:
            Sorted indices of the images that remain for training, and the validation split in
            random order, so that its first images are a sample of it.

        Raises:
            BadTask: The fraction leaves one of the splits without images.
        """
        if self.validation is not None:
            return np.arange(len(self.train)), self.validation
        kept, held = stratified_cut(self.train_labels, fraction, seed)
        if len(held) == 0 or len(kept) == 0:
            raise BadTask(
                f"a validation share of {fraction:g} of {len(self.train)} images in {self.name!r} "
                f"leaves {len(kept)} for training and {len(held)} for validation",
                "use more images or another share",
            )
        return kept, Split(self.train_images[held], self.train_labels[held])


def stratified_cut(
    labels: NDArray[Any], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices ``(kept, held)``: of every class, ``fraction`` of its images is held out.

    ``kept`` is sorted, ``held`` is in random order. Classes of two or more images lose at least one
    and keep at least one.
    """
    # RandomState's stream is frozen, so splits are the same under every NumPy version.
    rng = np.random.RandomState([seed, len(labels)])
    held_parts = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_parts.append(members[: count if fraction > 0 else 0])
    held = rng.permutation(np.concatenate(held_parts)) if held_parts else np.zeros(0, np.int64)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return kept, held


def _checked(name: str, part: str, split: Split, classes: int) -> Split:
    images, labels = split.images, split.labels
    if images.ndim != 4 or images.dtype != np.uint8:
        raise BadTask(
            f"{part} images of {name!r} are {images.dtype} of shape {images.shape}",
            "expected uint8 of shape (N, C, H, W)",
        )
    if len(images) != len(labels):
        raise BadTask(f"{part} split of {name!r}: {len(images)} images, {len(labels)} labels")
    if len(labels) == 0:
        raise BadTask(f"{part} split of {name!r} is empty")
    if labels.min() < 0 or labels.max() >= classes:
        raise BadTask(f"{part} labels of {name!r} are not all in 0..{classes - 1}")
    return split
