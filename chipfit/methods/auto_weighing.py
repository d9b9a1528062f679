# SPDX-License-Identifier: Apache-2.0
"""What ``auto`` allocates by: losses of all groups, weighed against each other, and capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipfit.methods.width_table import WidthTable

#: Standard deviation of the logarithm of what a weight is changed by.
SPREAD = 0.5
#: Share of the weights that change at once.
CHANGED = 0.5


@dataclass(frozen=True)
class Weighing:
    """How much a loss counts in each group, and how much capacity counts besides.

    Args:
        losses: By choice, what one unit of its loss counts.
        capacity: What one unit of ``sum log(width / full width)`` counts: by it alone every group
            narrows the more, the more that saves. Of a replaced block it is the share of its work.
    """

    losses: tuple[float, ...]
    capacity: float

    def values(
        self, lost: Sequence[NDArray[np.float64]], shares: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Return the value of every option of every choice, higher is better.

        Args:
            lost: By choice, the loss at each of its options.
            shares: By choice, what is left of the width, or of the work, at each of its options.
        """
        return [
            self.capacity * np.log(share) - weight * loss
            for weight, loss, share in zip(self.losses, lost, shares, strict=True)
        ]

    def changed(self, rng: np.random.Generator) -> Weighing:
        """Return another one nearby."""
        size = len(self.losses) + 1
        moved = rng.random(size) < CHANGED
        moved[int(rng.integers(size))] = True
        factors = np.exp(SPREAD * rng.standard_normal(size) * moved)
        old = np.array([*self.losses, self.capacity])
        new = old * factors
        return Weighing(tuple(float(v) for v in new[:-1]), float(new[-1]))


def first_weighings(choices: int) -> dict[str, Weighing]:
    """Return where the search begins: by losses alone, by capacity alone, and by both."""
    return {
        "losses": Weighing((1.0,) * choices, 0.0),
        "both": Weighing((1.0,) * choices, 0.2),
        "capacity": Weighing((0.0,) * choices, 1.0),
    }


def narrowed_alike(table: WidthTable, limits: Mapping[str, float]) -> tuple[int, ...] | None:
    """Return all groups narrowed by one factor, the largest within the limits, if there is any.

    No block is replaced.
    """
    factors = np.linspace(1.0, 0.01, 200)
    nearest = [
        [_nearest(choice.options, f) if choice.ordered else full
         for choice, full in zip(table.space, table.full, strict=True)]
        for f in factors
    ]  # fmt: skip
    rows = np.array(list(dict.fromkeys(map(tuple, nearest))), np.int64)
    inside = (table.many(list(limits))(rows) <= np.array(list(limits.values()))).all(axis=1)
    return tuple(int(i) for i in rows[int(np.argmax(inside))]) if inside.any() else None


def _nearest(options: Sequence[int], factor: float) -> int:
    return int(np.argmin([abs(option - factor * options[-1]) for option in options]))
