# SPDX-License-Identifier: Apache-2.0
"""``endless_batches``: training batches for loops that count steps."""

from __future__ import annotations

from collections.abc import Iterator

from chipfit.tasks.base import Batch, Task
from chipfit.train.contexts import laid_out


def endless_batches(task: Task, batch_size: int, seed: int, start: int) -> Iterator[Batch]:
    """Yield training batches for ever, epoch after epoch, images in channels-last layout.

    Args:
        task: Gives them.
        batch_size: Images of one.
        seed: Of their order.
        start: Number of the first one, so that a loop that was stopped continues.
    """
    per_epoch = task.steps_per_epoch(batch_size)
    epoch, first = divmod(start, per_epoch)
    while True:
        for batch in task.train_batches(batch_size, seed, epoch, start=first):
            yield batch._replace(inputs=laid_out(batch.inputs))
        epoch, first = epoch + 1, 0
