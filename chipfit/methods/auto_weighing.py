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
    """How much losses count, and how much capacity counts besides.

    Args:
        losses: By choice, what one unit of its loss counts.
        capacities: By choice, what one unit of ``log(width / full width)`` counts: by that alone a
            group narrows the more, the more it saves. Of a replaced block it is the logarithm of
            the share of its work.
    """

    losses: tuple[float, ...]
    capacities: tuple[float, ...]

    def values(
        self, lost: Sequence[NDArray[np.float64]], shares: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Return the value of every option of every choice, higher is better.

        Args:
            lost: By choice, the loss at each of its options.
            shares: By choice, what is left of the width, or of the work, at each of its options.
        """
        return [
            capacity * np.log(share) - weight * loss
            for weight, capacity, loss, share in zip(
                self.losses, self.capacities, lost, shares, strict=True
            )
        ]

    def changed(self, rng: np.random.Generator) -> Weighing:
        """Return another one nearby; what counts nothing goes on counting nothing."""
        old = np.array([self.losses, self.capacities])
        moved = rng.random(old.shape) < CHANGED
        new = old * np.exp(SPREAD * rng.standard_normal(old.shape) * moved)
        return Weighing(*(tuple(float(v) for v in row) for row in new))


def first_weighings(choices: int) -> dict[str, Weighing]:
    """Return where the search begins: by losses alone, by capacity alone, and by both."""

    def even(losses: float, capacities: float) -> Weighing:
        return Weighing((losses,) * choices, (capacities,) * choices)

    return {"losses": even(1.0, 0.0), "both": even(1.0, 0.2), "capacity": even(0.0, 1.0)}


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
