# SPDX-License-Identifier: Apache-2.0
"""Which sums no other beats in value and in every cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Sums up to which every pair is compared where there are several costs.
PAIRS = 1500
#: Sums that all others are compared with where there are more.
PIVOTS = 150


def undominated(value: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indexes, ascending, of sums that no other equals or beats in everything.

    Of equal sums the first is kept. With one cost at most the result is the Pareto set; with
    several and more than :data:`PAIRS` sums some that are beaten may stay.

    Args:
        value: ``(sums,)``, higher is better.
        cost: ``(sums, resources)``, lower is better.
    """
    count, resources = cost.shape
    if not count:
        return np.zeros(0, dtype=np.int64)
    # Cheapest first, most valuable first among equals: only earlier ones can dominate.
    order = np.lexsort((np.arange(count), -value, *cost.T[::-1]))
    if resources <= 1:
        ordered = value[order] if resources else value[order[:1]]
        before = np.concatenate([[-np.inf], np.maximum.accumulate(ordered)[:-1]])
        return np.sort(order[: len(ordered)][ordered > before])
    while True:
        pivots = np.arange(len(order))
        if len(order) > PAIRS:
            pivots = np.unique(np.linspace(0, len(order) - 1, PIVOTS).astype(int))
        beaten = _beaten(value[order], cost[order], pivots)
        order = order[~beaten]
        if len(beaten) <= PAIRS or beaten.mean() < 0.2:
            return np.sort(order)


def _beaten(
    value: NDArray[np.float64], cost: NDArray[np.float64], pivots: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of the sums, sorted by their first cost, an earlier pivot beats."""
    others = np.ascontiguousarray(cost.T[1:])
    beaten = np.zeros(len(value), dtype=bool)
    for pivot in pivots:
        if beaten[pivot]:
            continue
        worse = value[pivot + 1 :] <= value[pivot]
        for column in others:
            worse &= column[pivot + 1 :] >= column[pivot]
        beaten[pivot + 1 :] |= worse
    return beaten
