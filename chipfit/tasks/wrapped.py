# SPDX-License-Identifier: Apache-2.0
"""``WrappedTask``: a task that changes one thing about another; and the halves of its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.tasks.base import Batch, Task


class WrappedTask(Task):
    """A task that does what another one does; subclasses say what differs.

    Args:
        task: The user's.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.name, self.metric, self.recipe = task.name, task.metric, task.recipe
        self.higher_is_better, self.input_shape = task.higher_is_better, task.input_shape
        self.num_classes = task.num_classes

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return self._task.steps_per_epoch(batch_size)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Yield the task's own batches."""
        return self._task.train_batches(batch_size, seed, epoch, start=start, augment=augment)

    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the task's loss."""
        return self._task.criterion(outputs, batch, label_smoothing)

    def evaluate(
        self, model: Callable[[Tensor], Tensor], split: str = "val", limit: int | None = None
    ) -> dict[str, float]:
        """Return the task's metrics."""
        return self._task.evaluate(model, split, limit)

    def calibration_batches(self, count: int, batch_size: int = 1) -> list[Tensor]:
        """Return the task's calibration batches."""
        return self._task.calibration_batches(count, batch_size)

    def test_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the task's test split."""
        return self._task.test_arrays()

    @property
    def test_reads(self) -> int:
        """How often the task's test split was read."""
        return self._task.test_reads

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs of ``model`` as the task asks for them."""
        return self._task.forward(model, batch)

    def distillation(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Return the task's distillation loss."""
        return self._task.distillation(student, teacher, temperature)


class EveryOther(WrappedTask):
    """Every second batch of the epoch 0 of a task: one half of its training data.

    The order of the batches never changes, or an image would move from one half to the other.

    Args:
        task: The user's.
        which: 0 or 1.
        seed: Of the order.
    """

    def __init__(self, task: Task, which: int, seed: int) -> None:
        super().__init__(task)
        self._which, self._seed = which, seed

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return half of the task's batches, at least 1."""
        whole = self._task.steps_per_epoch(batch_size)
        return max(1, (whole + 1 - self._which) // 2)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Yield the batches of this half."""
        whole = self._task.steps_per_epoch(batch_size)
        first = min(2 * start + self._which, whole - 1)
        found = self._task.train_batches(batch_size, self._seed, 0, start=first, augment=augment)
        return islice(found, 0, None, 2)
