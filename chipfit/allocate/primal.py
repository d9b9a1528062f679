# SPDX-License-Identifier: Apache-2.0
"""Good choices quickly: repair into the budgets, then climb by single and paired moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.bound import PriceBound, unit_of
from chipfit.allocate.knapsack import Knapsack

#: Options nearest to the best that are tried in pairs; their square is the work of a step.
PAIRED = 300
#: Smallest share of the excess that a move of a repair takes away.
ROOM = 1e-12
#: Steps of a climb, far more than any needs.
STEPS = 1000


def good_choice(problem: Knapsack, bound: PriceBound) -> NDArray[np.int64] | None:
    """Return rows within the budgets, ``(groups,)``; ``None`` where repair found none.

    Args:
        problem: What to choose from.
        bound: Its prices tell which options lie near the optimum.
    """
    start = problem.best_rows(bound.worth)
    found = [
        climb(problem, repaired, bound)
        for rows in (start, cheapest_rows(problem))
        if (repaired := repair(problem, rows, bound)) is not None
    ]
    return max(found, key=problem.total, default=None)


def cheapest_rows(problem: Knapsack) -> NDArray[np.int64]:
    """Return the row of each group whose costs are the smallest share of the budgets."""
    return problem.best_rows(-(problem.cost / _unit(problem)).sum(axis=1))


def repair(
    problem: Knapsack, rows: NDArray[np.int64], bound: PriceBound
) -> NDArray[np.int64] | None:
    """Move one group at a time until every budget is kept; ``None`` where that gets stuck.

    Each move takes away the most excess for the worth (at the bound's prices) that it gives up.
    """
    rows = rows.copy()
    unit = _unit(problem)
    limit = problem.budgets
    for _ in range(len(problem.value)):
        used = problem.used(rows)
        excess = (np.maximum(used - limit, 0) / unit).sum()
        if not excess:
            return rows
        after = used + problem.cost - problem.cost[rows][problem.group]
        left = (np.maximum(after - limit, 0) / unit).sum(axis=1)
        gain = excess - left
        if gain.max() <= ROOM * excess:
            return None
        lost = np.maximum(bound.worth[rows][problem.group] - bound.worth, 0)
        ratio = np.where(gain > ROOM * excess, gain / (np.maximum(lost, 1e-200)), -1.0)
        # Among moves that lose nothing the largest gain counts.
        best = np.lexsort((np.arange(len(gain)), -gain, -ratio))[0]
        rows[problem.group[best]] = best
    return None


def climb(problem: Knapsack, rows: NDArray[np.int64], bound: PriceBound) -> NDArray[np.int64]:
    """Raise the value by moves of one group, or of two at once, within the budgets."""
    rows = rows.copy()
    near = np.lexsort((np.arange(len(bound.option)), -bound.option))[:PAIRED]
    for _ in range(STEPS):
        room = problem.budgets - problem.used(rows)
        gain = problem.value - problem.value[rows][problem.group]
        extra = problem.cost - problem.cost[rows][problem.group]
        fits = (extra <= room).all(axis=1) & (gain > 0)
        if fits.any():
            best = int(np.argmax(np.where(fits, gain, -np.inf)))
            moved = rows.copy()
            moved[problem.group[best]] = best
        else:
            pair = _best_pair(gain[near], extra[near], room, problem.group[near])
            if pair is None:
                return rows
            moved = rows.copy()
            for index in pair:
                moved[problem.group[near[index]]] = near[index]
        if problem.total(moved) <= problem.total(rows) or not problem.within(moved):
            return rows
        rows = moved
    return rows


def _best_pair(
    gain: NDArray[np.float64], extra: NDArray[np.float64], room: NDArray[np.float64],
    group: NDArray[np.int64],
) -> tuple[int, int] | None:  # fmt: skip
    both = gain[:, None] + gain[None, :]
    fits = (group[:, None] != group[None, :]) & (both > 0)
    for resource, left in enumerate(room):
        column = extra[:, resource]
        fits &= column[:, None] + column[None, :] <= left
    if not fits.any():
        return None
    best = int(np.argmax(np.where(fits, both, -np.inf)))
    return best // len(gain), best % len(gain)


def _unit(problem: Knapsack) -> NDArray[np.float64]:
    sizes = np.maximum.reduceat(np.abs(problem.cost), problem.starts, axis=0).sum(axis=0)
    return unit_of(sizes)
