# SPDX-License-Identifier: Apache-2.0
"""Ways to choose replacements of blocks that :mod:`benchmarks.lana_claims` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

#: Random networks cost at least this share of the budget, where there are such.
FLOOR = 0.9
#: Random architectures looked at for those within a budget; each may need further prices.
DRAWN = 300
Values = NDArray[np.float64]
Codes = NDArray[np.int64]


def total(tables: Sequence[Values], row: Sequence[int]) -> float:
    """Return the sum of what a row takes of every table."""
    return float(sum(own[i] for own, i in zip(tables, row, strict=True)))


def drawn_rows(values: Sequence[Values], count: int, seed: int) -> list[list[int]]:
    """Return different random architectures, from one replaced block to all of them."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(100 * count):
        replaced = rng.permutation(len(values))[: rng.integers(1, len(values) + 1)]
        row = [0] * len(values)
        for c in replaced:
            options = np.flatnonzero(np.isfinite(values[c]))
            row[c] = int(rng.choice(options))
        if any(row):
            found.setdefault(tuple(row))
        if len(found) == count:
            break
    return [list(row) for row in found]


def greedy_row(
    cost: Callable[[Codes], Values], values: Sequence[Values], limit: float
) -> list[int] | None:
    """Replace one block after the other, the least rise of the loss for what it saves first.

    Args:
        cost: From architectures ``(N, blocks)`` to costs ``(N,)``.
        values: Scores by block; ``-inf`` forbids an operation, index 0 keeps the block.
        limit: Largest cost.

    Returns:
        The architecture, ``None`` where nothing more can be saved above the limit.
    """
    row = [0] * len(values)
    while float(cost(np.array([row]))[0]) > limit:
        now = float(cost(np.array([row]))[0])
        moves = [
            (c, int(i)) for c, own in enumerate(values) for i in np.flatnonzero(np.isfinite(own))
            if i != row[c]
        ]  # fmt: skip
        codes = np.array([[*row[:c], i, *row[c + 1 :]] for c, i in moves])
        saved = now - cost(codes)
        rise = np.array([values[c][row[c]] - values[c][i] for c, i in moves])
        useful = np.flatnonzero(saved > 1e-12)
        if not len(useful):
            return None
        # What costs nothing in loss goes first, by how much it lowers it.
        rate = np.where(rise > 0, rise / np.maximum(saved, 1e-12), rise)
        best = min(useful, key=lambda m: (rate[m] > 0, rate[m], moves[m]))
        row[moves[best][0]] = moves[best][1]
    return row


def random_rows(
    cost: Callable[[Codes], Values], values: Sequence[Values], limit: float, count: int, seed: int
) -> list[list[int]]:
    """Return random architectures within a budget, those near it where there are enough."""
    rng = np.random.default_rng(seed)
    codes = np.stack(
        [rng.choice(np.flatnonzero(np.isfinite(own)), DRAWN) for own in values], axis=1
    )
    costs = cost(codes)
    near = codes[(costs <= limit) & (costs >= FLOOR * limit)]
    rows = near if len(near) >= count else codes[costs <= limit]
    return [list(map(int, row)) for row in rows[:count]]
