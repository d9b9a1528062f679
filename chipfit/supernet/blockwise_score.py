# SPDX-License-Identifier: Apache-2.0
"""What a replacement does to the loss of the network when all else stays.

Molchanov et al., "LANA: Latency Aware Network Acceleration", ECCV 2022, arXiv 2107.10624, phase 2:
the score of a candidate is the loss of the teacher with this one block replaced, and scores of
several blocks are taken to add up. Scores are not clipped: noise makes some negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from torch import nn

from chipfit.supernet.blockwise_store import ReplacementStore
from chipfit.tasks.base import Batch, Task, evaluating
from chipfit.train.contexts import laid_out


def held_out_batches(task: Task, images: int, batch_size: int = 128) -> list[Batch]:
    """Return the first so many training images of a task, or of a half of one, not augmented."""
    count = min(-(-images // batch_size), task.steps_per_epoch(batch_size))
    return list(islice(task.train_batches(batch_size, 0, 0, augment=False), count))


def mean_loss(net: nn.Module, task: Task, batches: Sequence[Batch]) -> float:
    """Return the task's loss of a network in evaluation mode, averaged over images.

    Lower is better; infinite where it is not a number.
    """
    total, images = 0.0, 0
    with evaluating(net):
        for batch in batches:
            ready = batch._replace(inputs=laid_out(batch.inputs))
            total += float(task.criterion(task.forward(net, ready), ready)) * len(batch.inputs)
            images += len(batch.inputs)
    return total / images if math.isfinite(total) else math.inf


def replacement_losses(
    net: nn.Module, task: Task, store: ReplacementStore, choice: str, operations: Sequence[str],
    batches: Sequence[Batch],
) -> list[float]:  # fmt: skip
    """Return the loss with each operation of one choice, all else the network's own.

    Args:
        net: The network.
        task: Its loss.
        store: The trained operations.
        choice: Name of the choice.
        operations: Names of its operations.
        batches: Held-out images.
    """
    return [
        mean_loss(store.assemble(net, store.alone(choice, operation)), task, batches)
        for operation in operations
    ]
