# SPDX-License-Identifier: Apache-2.0
"""Upper bounds on the value of a knapsack, from prices on its resources.

For prices ``p >= 0`` no choice within the budgets is worth more than ``p . budgets`` plus, for
each group, the largest ``value - p . cost`` (Lagrangian relaxation). The prices of the linear
relaxation make that bound the tightest; any others keep it valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.knapsack import Knapsack

#: Values that differ by less, relative to the sizes summed, count as equal.
PRECISION = 1e-9


@dataclass(frozen=True)
class PriceBound:
    """What prices on the resources prove.

    Args:
        prices: ``(bounded,)``, value per unit of each resource, at least 0.
        value: No choice within the budgets is worth more.
        worth: ``(options,)``, ``value - prices . cost`` of each option.
        option: ``(options,)``: no choice that holds the option is worth more.
    """

    prices: NDArray[np.float64]
    value: float
    worth: NDArray[np.float64]
    option: NDArray[np.float64]


def price_bound(problem: Knapsack, prices: NDArray[np.float64]) -> PriceBound:
    """Return the bound that ``prices``, ``(bounded,)`` and at least 0, give."""
    worth = problem.value - problem.cost @ prices
    best = np.maximum.reduceat(worth, problem.starts)
    value = float(prices @ problem.budgets + best.sum())
    return PriceBound(prices, value, worth, value - (best[problem.group] - worth))


def linear_prices(problem: Knapsack) -> NDArray[np.float64] | None:
    """Return the prices of the linear relaxation; ``None`` where even that has no solution."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    resources = problem.cost.shape[1]
    if not resources:
        return np.zeros(0)
    shifted, room = room_beside_cheapest(problem)
    scale = unit_of(shifted.max(axis=0))
    rows = np.arange(len(problem.value))
    one_each = csr_array((np.ones(len(rows)), (problem.group, rows)))
    best = np.maximum.reduceat(problem.value, problem.starts)
    loss = best[problem.group] - problem.value
    unit = float(unit_of(loss.max()))
    solved = linprog(
        loss / unit, A_ub=(shifted / scale).T, b_ub=np.maximum(room, 0) / scale, A_eq=one_each,
        b_eq=np.ones(problem.groups), bounds=(0, None), method="highs-ds",
    )  # fmt: skip
    if solved.status == 2:
        return None
    if solved.status != 0:  # numerical trouble: prices of 0 are valid, only not tight
        return np.zeros(resources)
    return np.maximum(-solved.ineqlin.marginals, 0.0) * unit / scale


def room_beside_cheapest(problem: Knapsack) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return costs above the cheapest of each group, and what the budgets leave for them."""
    least = np.minimum.reduceat(problem.cost, problem.starts, axis=0)
    return problem.cost - least[problem.group], problem.budgets - least.sum(axis=0)


def unit_of(largest: Any) -> NDArray[np.float64]:
    """Return what to divide figures by, their largest, or 1 where all are 0."""
    return np.where(np.asarray(largest) > 0, largest, 1.0)


def least_gain(problem: Knapsack, bound: float) -> float:
    """Return by how much one value is above another at least, where they are not equal.

    Whole values differ by their common divisor; others are told apart to :data:`PRECISION`.

    Args:
        problem: What to choose from.
        bound: Largest value that any choice may have.
    """
    top = np.maximum.reduceat(problem.value, problem.starts)
    if np.abs(problem.value).max() < 2**52 and (problem.value == np.rint(problem.value)).all():
        apart = np.abs(problem.value - top[problem.group]).astype(np.int64)
        # Bounds carry a rounding error of their own, so a little less than the divisor.
        return max(int(np.gcd.reduce(apart)), 1) * (1 - 1e-6)
    return PRECISION * float(np.abs(top).sum() + max(0.0, top.sum() - bound))
