# SPDX-License-Identifier: Apache-2.0
"""A bound as a constraint of a training, not as a term with a factor tuned by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AugmentedLagrangian(nn.Module):
    """Penalty of constraints ``c <= 0`` whose multipliers find themselves.

    ``L = sum (max(0, m + r c)^2 - m^2) / 2 r`` and, after every step, ``m <- max(0, m + r c)``
    (Nocedal and Wright, Numerical Optimization, 2nd edition, section 17.4). The multipliers are a
    buffer, so that a training that is cut off continues with them.

    Args:
        count: Number of constraints.
        rate: ``r``: how fast multipliers grow while a constraint is violated.
    """

    multipliers: Tensor

    def __init__(self, count: int, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("multipliers", torch.zeros(count))

    def forward(self, violations: Tensor) -> Tensor:
        """Return the penalty, a scalar, of violations ``(count,)``; negative ones are slack."""
        pushed = torch.relu(self.multipliers + self.rate * violations)
        return ((pushed**2 - self.multipliers**2) / (2 * self.rate)).sum()

    @torch.no_grad()
    def update(self, violations: Tensor, share: float = 1.0) -> None:
        """Move the multipliers; ``share`` below 1 moves them so much less."""
        moved = self.multipliers + share * self.rate * violations.detach()
        self.multipliers.copy_(torch.relu(moved))
