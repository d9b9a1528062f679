# SPDX-License-Identifier: Apache-2.0
"""``Recipe``: how a network is trained, as plain data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from chipfit.errors import BadInput

SCHEDULES = ("one-cycle", "cosine", "constant")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Args:
        epochs: Passes over the training images, may be a fraction; ignored where ``steps`` is set.
        steps: Optimizer steps.
        batch_size: Images per step.
        learning_rate: The highest of the schedule.
        momentum: Of ``sgd`` (Nesterov's), or the first beta of ``adamw``.
        weight_decay: On weights of convolutions and linear layers only.
        schedule: ``one-cycle`` rises and falls linearly, ``cosine`` rises linearly and falls as a
            half cosine, ``constant`` stays after the warm-up.
        warmup: Share of the steps in which the learning rate rises.
        label_smoothing: Probability mass spread over all classes.
        optimizer: ``sgd`` or ``adamw``.
        gradient_clip: Largest L2 norm of all gradients together; 0 leaves them alone.
        distillation_weight: ``a`` in ``(1 - a) task loss + a distillation``; needs a teacher.
        temperature: ``T`` of the distillation.
        ema_decay: Of the running average of the weights that becomes the result; 0 for none.
        augment: Whether the task may augment the images.

    Raises:
        BadInput: A setting is out of range.
    """

    epochs: float = 8.0
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warmup: float = 0.15
    label_smoothing: float = 0.0
    optimizer: str = "sgd"
    gradient_clip: float = 0.0
    distillation_weight: float = 0.0
    temperature: float = 4.0
    ema_decay: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "epochs": 0 < self.epochs < math.inf,
            "steps": self.steps is None or self.steps > 0,
            "batch_size": self.batch_size > 0,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup <= 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "gradient_clip": self.gradient_clip >= 0,
            "distillation_weight": 0 <= self.distillation_weight <= 1,
            "temperature": self.temperature > 0,
            "ema_decay": 0 <= self.ema_decay < 1,
        }
        for name, good in ranges.items():
            if not good:
                raise BadInput(f"recipe: {name}={getattr(self, name)} is out of range")
        for name, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise BadInput(
                    f"recipe: unknown {name} {getattr(self, name)!r}", f"known: {', '.join(known)}"
                )

    @property
    def distils(self) -> bool:
        """Whether training needs a teacher."""
        return self.distillation_weight > 0

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some settings changed.

        Raises:
            BadInput: No such setting, or a value is out of range.
        """
        unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            raise BadInput(f"recipe: unknown setting {', '.join(unknown)}")
        return dataclasses.replace(self, **changes)

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of ``step`` (from 0) of ``total_steps``; never zero."""
        # Ends count as half steps, so that neither the first nor the last step is wasted.
        done = (step + 0.5) / total_steps
        if done < self.warmup:
            return self.learning_rate * done / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        left = (1.0 - done) / (1.0 - self.warmup) if self.warmup < 1 else 1.0
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1.0 - math.cos(math.pi * left))
        return self.learning_rate * left

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form; ``Recipe(**form)`` restores it."""
        return dataclasses.asdict(self)
