# SPDX-License-Identifier: Apache-2.0
"""What the exact solvers share: few options left, a good choice known, a bound on the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.bound import PRECISION, PriceBound, least_gain, linear_prices, price_bound
from chipfit.allocate.knapsack import Knapsack
from chipfit.allocate.primal import cheapest_rows, good_choice
from chipfit.allocate.reduce import without_dominated, without_impossible


@dataclass
class Incumbent:
    """The best choice known.

    Args:
        value: Its value; ``-inf`` where none is known.
        option: The caller's option indexes ``(groups,)``.
        gain: A better choice is better by this at least.
    """

    value: float
    option: NDArray[np.int64] | None
    gain: float

    @property
    def floor(self) -> float:
        """Smallest value that counts as better."""
        return self.value + self.gain

    def offer(self, problem: Knapsack, rows: NDArray[np.int64] | None) -> None:
        """Take rows ``(groups,)`` of ``problem`` where they are better."""
        if rows is not None and problem.total(rows) > self.value:
            self.value, self.option = problem.total(rows), problem.option[rows]


def presolve(problem: Knapsack) -> tuple[Knapsack, PriceBound, Incumbent]:
    """Return the problem without options that no better choice needs, its bound, a good choice.

    Where ``bound.value`` is below the incumbent's floor, the incumbent is the best there is.

    Raises:
        InfeasibleBudget: Not even fractions of options keep the budgets.
    """
    reduced = without_hopeless(without_impossible(without_dominated(problem)))
    prices = linear_prices(reduced)
    if prices is None:
        raise problem.infeasible()
    bound = price_bound(reduced, prices)
    best = Incumbent(-np.inf, None, least_gain(reduced, bound.value))
    best.offer(reduced, good_choice(reduced, bound))
    return *core(reduced, bound, best), best


def without_hopeless(problem: Knapsack) -> Knapsack:
    """Leave out options that alone lose more than the cheapest choice does altogether.

    That keeps huge negative values, a usual way to forbid an option, out of the arithmetic.
    """
    rows = cheapest_rows(problem)
    if not problem.within(rows):
        return problem
    top = np.maximum.reduceat(problem.value, problem.starts)
    lost = top[problem.group] - problem.value
    left = problem.subset(lost <= lost[rows].sum() * (1 + PRECISION))
    return problem if left is None else left


def core(problem: Knapsack, bound: PriceBound, best: Incumbent) -> tuple[Knapsack, PriceBound]:
    """Return the options that may be part of something better than ``best``, and their bound."""
    left = problem.subset(bound.option >= best.floor)
    if left is None:  # the bound is below the floor: nothing better exists
        return problem, bound
    return left, price_bound(left, bound.prices)
