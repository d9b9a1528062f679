# SPDX-License-Identifier: Apache-2.0
"""``SearchState``: a search on a supernet under way, and the settings that every search has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.supernet.pressure import Pressure
from chipfit.supernet.relaxations import temperature_at
from chipfit.supernet.supernet import Supernet
from chipfit.tasks.base import Batch, Task
from chipfit.train.randomness import generator


@dataclass(frozen=True)
class LoopSettings:
    """Settings that every search has; the defaults are DARTS's where it says so.

    Args:
        steps: Of the weights.
        batch_size: Images in a batch of either half of the training data.
        learning_rate: Of the weights, at the start of a cosine to 0.
        momentum: Of the weights.
        weight_decay: Of the weights, on matrices and kernels only.
        gradient_clip: Largest norm of the weights' gradient (DARTS: 5).
        architecture_rate: Adam's, for the logits.
        architecture_betas: Adam's; the first is DARTS's 0.5.
        architecture_decay: Adam's weight decay of the logits.
        warmup: Share of the steps in which only weights are trained.
        every: Weight steps for one step of the logits.
        temperatures: At the first and the last step.
        record_steps: Steps between two records for reports.
        checkpoint_steps: Steps between two checkpoints.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    architecture_rate: float = 0.02
    architecture_betas: tuple[float, float] = (0.5, 0.999)
    architecture_decay: float = 0.0
    warmup: float = 0.25
    every: int = 1
    temperatures: tuple[float, float] = (1.0, 1.0)
    record_steps: int = 20
    checkpoint_steps: int = 50

    def __post_init__(self) -> None:
        positive = (self.steps, self.batch_size, self.every, self.record_steps)
        if min(positive) < 1 or not 0 <= self.warmup < 1 or self.learning_rate <= 0:
            raise BadInput(f"a setting of the search is out of range: {self}")


@dataclass
class SearchState:
    """A search under way: what rules read and move.

    Args:
        supernet: Under training.
        task: Loss; its batches are not used.
        pressure: What the budget adds to the loss of the logits.
        settings: Of the loop.
        seed: Of everything random.
        step: Steps done.
        losses: Running averages by name, for reports.
        weight_batch: What the coming step of the weights learns from; steps of the logits before
            it may use it too.
        share_loss: Computes the loss where several processes do so together.
        weight_optimizer: Of the weights.
        architecture_optimizer: Of the logits.
    """

    supernet: Supernet
    task: Task
    pressure: Pressure
    settings: LoopSettings
    seed: int
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    weight_batch: Batch | None = None
    share_loss: Callable[[Batch], Tensor] | None = None
    weight_optimizer: torch.optim.Optimizer = field(init=False)
    architecture_optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.rebuild_optimizers()

    def rebuild_optimizers(self) -> None:
        """Make both optimisers for what is there now; momenta of parameters that stay stay."""
        old = [
            dict(getattr(self, name).state) if hasattr(self, name) else {}
            for name in ("weight_optimizer", "architecture_optimizer")
        ]
        s, weights = self.settings, self.supernet.weights()
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": s.weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.weight_optimizer = torch.optim.SGD(
            groups, lr=s.learning_rate, momentum=s.momentum, foreach=False
        )
        logits = self.supernet.architecture_parameters()
        self.architecture_optimizer = torch.optim.Adam(
            logits, lr=s.architecture_rate, betas=s.architecture_betas,
            weight_decay=s.architecture_decay, foreach=False,
        )  # fmt: skip
        for optimizer, state, parameters in (
            (self.weight_optimizer, old[0], weights),
            (self.architecture_optimizer, old[1], logits),
        ):
            optimizer.state.update({p: state[p] for p in parameters if p in state})

    @property
    def temperature(self) -> float:
        """Of the current step."""
        return temperature_at(self.step, self.settings.steps, *self.settings.temperatures)

    @property
    def warming(self) -> bool:
        """Whether only weights are trained yet."""
        return self.step < self.settings.warmup * self.settings.steps

    def noise(self, purpose: int) -> torch.Generator:
        """Return the source of randomness of this step for one purpose."""
        return generator(self.seed, self.step, purpose)

    def loss(self, batch: Batch) -> Tensor:
        """Return the task's loss of the supernet as its mixtures are."""
        if self.share_loss is not None:
            return self.share_loss(batch)
        outputs = self.task.forward(self.supernet, batch)
        return self.task.criterion(outputs, batch)

    def weight_step(self, batch: Batch) -> float:
        """Take one plain step of the weights, as operations are drawn; return the loss."""
        self.weight_optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        self.step_weights()
        return loss.item()

    def step_weights(self) -> None:
        """Clip the gradient and move the weights."""
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.supernet.weights(), self.settings.gradient_clip)
        self.weight_optimizer.step()
