# SPDX-License-Identifier: Apache-2.0
"""What a training tells while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    ``loss`` is a running average; ``images_per_s`` counts this process only; ``eta_s`` is the
    remaining time at that speed.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_s: float
    eta_s: float


@dataclass(frozen=True)
class TrainResult:
    """What a training did.

    Args:
        steps: Optimizer steps in all.
        images: Images seen in all, repetitions counted.
        loss: Running average of the training loss at the end.
        resumed_at: Step at which this process took over; 0 where it started afresh.
        seconds: Wall-clock time of this process.
    """

    steps: int
    images: int
    loss: float
    resumed_at: int
    seconds: float
