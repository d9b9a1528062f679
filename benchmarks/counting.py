# SPDX-License-Identifier: Apache-2.0
"""What a search takes: training images, whose they were, and processor time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chipfit.cost.cost import Cost
from chipfit.cost.table import CostTable
from chipfit.tasks import Task
from chipfit.tasks.base import Batch
from chipfit.tasks.wrapped import WrappedTask
from chipfit.workers import Function


@dataclass
class Count:
    """Training images read so far.

    Args:
        images: In batches for training, learning or judging.
        forward: In batches without labels: statistics of batch norms, weights solved from
            activations, distances of outputs.
        all: Whether those count among ``images``, too.
        proposals: Of ``images``, those that tuned one proposal among others.
        by_weights: Digest of a tuned file: images of its own and its ancestors' tunings.
    """

    images: int = 0
    forward: int = 0
    all: bool = False
    proposals: int = 0
    by_weights: dict[str, int] = field(default_factory=dict)

    def behind(self, weights: Path) -> int:
        """Return how many images a network's weights owe something to.

        These are all that were not spent on a proposal, and the proposals that it descends from.
        """
        own = self.by_weights.get(digest(weights))
        return self.images if own is None else self.images - self.proposals + own


class CountingTask(WrappedTask):
    """A task that counts the training images it hands out.

    Args:
        task: The user's.
        count: Where they are added up.
    """

    def __init__(self, task: Task, count: Count) -> None:
        super().__init__(task)
        self.count = count

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, *, start: int = 0, augment: bool = True
    ) -> Iterator[Batch]:
        """Yield the task's own batches; those that nobody asks for are not counted."""
        found = self._task.train_batches(batch_size, seed, epoch, start=start, augment=augment)
        for batch in found:
            self.count.images += len(batch.inputs)
            yield batch

    def calibration_batches(self, count: int, batch_size: int = 1) -> list[torch.Tensor]:
        """Return the task's calibration batches."""
        found = self._task.calibration_batches(count, batch_size)
        images = sum(map(len, found))
        self.count.forward += images
        self.count.images += images if self.count.all else 0
        return found

    def halves(self, seed: int) -> tuple[Task, Task]:
        """Return the task's own halves, which count together with it."""
        first, second = self._task.halves(seed)
        return CountingTask(first, self.count), CountingTask(second, self.count)


class InProcessPool:
    """The interface of a :class:`~chipfit.workers.WorkerPool` without its processes.

    What it runs is counted and timed with everything else here.

    Args:
        setup: Handed to every function it runs.
        count: Is told which images went to which file of weights, where an item says so.
    """

    def __init__(self, setup: Any, count: Count | None = None) -> None:
        self.count = 1
        self._setup, self._images = setup, count or Count()

    def map(self, function: Function, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Compute ``function(setup, item)`` for every item; yield ``(index, result)`` in order."""
        for i, item in enumerate(items):
            yield i, self._call(function, item)

    def _call(self, function: Function, item: Any) -> Any:
        tuning, count = getattr(item, "tuning", item), self._images
        before = getattr(tuning, "weights_before", None)
        after = getattr(tuning, "weights_after", None)
        inherited = 0
        if before is not None and before.is_file():
            inherited = count.by_weights.get(digest(before), 0)
        start = count.images
        result = function(self._setup, item)
        if after is not None and after.is_file():
            count.proposals += count.images - start
            count.by_weights[digest(after)] = inherited + count.images - start
        return result

    def peak_rss_bytes(self) -> int:
        """Return 0: there are no processes besides this one."""
        return 0

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PricingTable(CostTable):
    """A cost table that tells how long pricing took.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.cpu_s = 0.0

    def fill(self, *arguments: Any, **settings: Any) -> list[Cost]:
        """Return costs as any cost table does."""
        before = cpu_s()
        try:
            return super().fill(*arguments, **settings)
        finally:
            self.cpu_s += cpu_s() - before


def cpu_s() -> float:
    """Return the processor time of this process and of the compilers it has called, in s."""
    return sum(os.times()[:4])


def digest(path: Path) -> str:
    """Return what tells files of weights apart, wherever they are moved."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
