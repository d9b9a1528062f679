# SPDX-License-Identifier: Apache-2.0
"""``Allocation``: what a solver chose, what it costs, and how sure the solver is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Allocation:
    """One option of every group.

    Args:
        choice: Index of the option of each group, as the caller counts them.
        value: Sum of the values chosen; higher is better.
        cost: Sum of the costs chosen, one for each additive resource, in the resource's own unit.
        gap: How far the value may be below the best possible, relative to it; 0.0 is proven
            optimal.
        status: ``"optimal"``, proven to :data:`chipfit.allocate.bound.PRECISION` of the values; or
            ``"feasible"``, within the budgets and perhaps not the best.
        seconds: Wall time of the solver.
        maximum: Largest figure chosen, one for each max-type resource.
    """

    choice: tuple[int, ...]
    value: float
    cost: tuple[float, ...]
    gap: float
    status: Literal["optimal", "feasible"]
    seconds: float
    maximum: tuple[float, ...] = ()

    def overlap(self, other: Allocation) -> int:
        """Return in how many groups both choose the same option."""
        return sum(mine == theirs for mine, theirs in zip(self.choice, other.choice, strict=True))
