# SPDX-License-Identifier: Apache-2.0
"""Image classification on a named data set or a folder of images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from chipfit.errors import BadInput, BadTask
from chipfit.tasks.augment import Augmentation, augment
from chipfit.tasks.base import SPLITS, Batch, Task, evaluating
from chipfit.tasks.data import Dataset, Split, load
from chipfit.tasks.data.dataset import Images
from chipfit.tasks.recipes import defaults_for
from chipfit.train.randomness import generator
from chipfit.train.recipe import Recipe

#: Seed of the validation split; a run's own seed does not move images between splits.
SPLIT_SEED = 0

_EVALUATION_BATCH = 250


class Classification(Task):
    """Cross-entropy and accuracy (a fraction, higher is better) on a :class:`Dataset`.

    Inputs are scaled to 0..1, then normalised by mean and deviation of the training images.

    Args:
        data: The data set.
        validation_fraction: Share of every class of the training split held out for validation.
        augmentation: What to draw for training images; the data set's default where ``None``.
        recipe: How to train from scratch; the data set's default where ``None``.

    Raises:
        BadTask: The data set is too small to be split.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        validation_fraction: float = 0.1,
        augmentation: Augmentation | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        defaults = defaults_for(data.name)
        self.name = data.name
        self.data = data
        self.input_shape = (1, *data.image_shape)
        self.num_classes = len(data.classes)
        self.recipe = recipe or defaults.recipe
        self.augmentation = augmentation or defaults.augmentation
        if not 0.0 < validation_fraction < 1.0:
            raise BadTask(f"validation share {validation_fraction:g} must lie between 0 and 1")
        self.train_indices, self.validation = data.cut_validation(validation_fraction, SPLIT_SEED)
        self.mean, self.std = channel_statistics(data.train_images, self.train_indices)

    @property
    def test_reads(self) -> int:
        """How often the test split was read in this process."""
        return self.data.test_reads

    def halves(self, seed: int) -> tuple[Task, Task]:
        """Return two tasks on one half of the training images each, shuffled anew every epoch."""
        order = torch.randperm(len(self.train_indices), generator=generator(seed)).numpy()
        middle = (len(order) + 1) // 2
        found: list[Task] = []
        for part in (order[:middle], order[middle:]):
            half = copy.copy(self)
            half.train_indices = np.sort(self.train_indices[part])
            # Copies of a task without origin travel with their arrays.
            half._origin = None if self._origin is None else (_half, (self, seed, len(found)))
            found.append(half)
        return found[0], found[1]

    def normalise(self, images: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)``, uint8, to network inputs, float32."""
        mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
        return (images.float() / 255.0 - mean) / std

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of full batches; 1 where there are fewer images than that."""
        return max(1, len(self.train_indices) // batch_size)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Yield the full batches of one epoch in the order of ``(seed, epoch)``."""
        order = torch.randperm(len(self.train_indices), generator=generator(seed, epoch)).numpy()
        for step in range(start, self.steps_per_epoch(batch_size)):
            picked = np.sort(self.train_indices[order[step * batch_size : (step + 1) * batch_size]])
            images = torch.from_numpy(self.data.train_images[picked])
            if augment:
                images = _augment(images, self.augmentation, generator(seed, epoch, step))
            labels = torch.from_numpy(self.data.train_labels[picked])
            yield Batch(self.normalise(images), labels)

    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of logits ``(N, classes)``, averaged over images."""
        return functional.cross_entropy(outputs, batch.targets, label_smoothing=label_smoothing)

    def evaluate(
        self, model: Callable[[Tensor], Tensor], split: str = "val", limit: int | None = None
    ) -> dict[str, float]:
        """Return ``accuracy`` (0..1), ``loss`` (cross-entropy) and ``images`` on a split."""
        images, labels = self._split(split, limit)
        correct, loss = 0, 0.0
        with evaluating(model):
            for first in range(0, len(labels), _EVALUATION_BATCH):
                chunk = slice(first, first + _EVALUATION_BATCH)
                inputs = self.normalise(torch.from_numpy(np.array(images[chunk])))
                targets = torch.from_numpy(np.array(labels[chunk]))
                logits = model(inputs)
                if tuple(logits.shape) != (len(inputs), self.num_classes):
                    raise BadTask(
                        f"the network gives outputs {tuple(logits.shape)} for {len(inputs)} images "
                        f"of {self.name!r}",
                        f"expected {self.num_classes} logits per image",
                    )
                correct += int((logits.argmax(1) == targets).sum())
                loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
        count = len(labels)
        return {"accuracy": correct / count, "loss": loss / count, "images": float(count)}

    def calibration_batches(self, count: int, batch_size: int = 1) -> list[Tensor]:
        """Return batches of training images in a fixed random order."""
        order = torch.randperm(len(self.train_indices), generator=generator(SPLIT_SEED)).numpy()
        picked = self.train_indices[order[: count * batch_size]]
        images = self.normalise(torch.from_numpy(self.data.train_images[picked]))
        return list(images.split(batch_size))

    def test_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the normalised test images ``(N, C, H, W)`` and their labels ``(N,)``."""
        test = self.data.read_test()
        inputs = self.normalise(torch.from_numpy(np.array(test.images)))
        return inputs.numpy(), np.array(test.labels)

    def _split(self, split: str, limit: int | None) -> tuple[Images, NDArray[np.int64]]:
        if split not in SPLITS:
            raise BadInput(f"unknown split {split!r}", f"known: {', '.join(SPLITS)}")
        if limit is not None and limit < 1:
            raise BadInput(f"limit={limit} must be positive")
        if split == "train":
            picked = self.train_indices[:limit]
            return self.data.train_images[picked], self.data.train_labels[picked]
        part: Split = self.validation if split == "val" else self.data.read_test()
        return part.images[:limit], part.labels[:limit]


_augment = augment  # ``train_batches`` has a flag of that name


def channel_statistics(
    images: Images, indices: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of ``images[indices] / 255``.

    Counts of the 256 values are exact integers, so the result does not depend on any order.
    Channels without any variation get the deviation 1.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), np.int64)
    for first in range(0, len(indices), 4096):
        chunk = images[indices[first : first + 4096]]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    values = np.arange(256) / 255.0
    totals = counts.sum(1)
    mean = counts @ values / totals
    variance = counts @ values**2 / totals - mean**2
    std = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 1e-12)), 1.0)
    return tuple(float(m) for m in mean), tuple(float(s) for s in std)


def classification(
    data: str | Dataset,
    *,
    image_size: tuple[int, int] | None = None,
    validation_fraction: float = 0.1,
    augmentation: Augmentation | None = None,
    recipe: Recipe | None = None,
) -> Classification:
    """Make a classification task.

    Args:
        data: A name from ``chipfit data``, ``imagefolder:DIR``, or a data set of your own.
        image_size: ``(H, W)``, for ``imagefolder`` only.
        validation_fraction: Share of every class of the training split held out for validation.
        augmentation: What to draw for training images; the data set's default where ``None``.
        recipe: How to train from scratch; the data set's default where ``None``.

    Raises:
        UnknownName: No such data set.
        DataUnavailable: It is neither cached nor reachable.
        BadTask: Its files cannot be used.

    Example:
        >>> classification("digits").input_shape
        (1, 1, 8, 8)
    """
    dataset = load(data, image_size) if isinstance(data, str) else data
    task = Classification(
        dataset,
        validation_fraction=validation_fraction,
        augmentation=augmentation,
        recipe=recipe,
    )
    if isinstance(data, str):
        task.made_by(_again, data, image_size, validation_fraction, augmentation, recipe)
    return task


def _again(
    data: str,
    image_size: tuple[int, int] | None,
    validation_fraction: float,
    augmentation: Augmentation | None,
    recipe: Recipe | None,
) -> Classification:
    return classification(
        data,
        image_size=image_size,
        validation_fraction=validation_fraction,
        augmentation=augmentation,
        recipe=recipe,
    )


def _half(task: Classification, seed: int, which: int) -> Task:
    return task.halves(seed)[which]
