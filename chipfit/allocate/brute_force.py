# SPDX-License-Identifier: Apache-2.0
"""Every choice, one after the other: the oracle that the solvers are tested against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.knapsack import Knapsack
from chipfit.errors import BadInput

#: More choices than that are refused.
CHOICES = 20_000_000
#: Choices summed at once.
CHUNK = 100_000


def solve_brute_force(problem: Knapsack, deadline: float) -> tuple[NDArray[np.int64], float]:
    """Return the options of the best choice and its value; the first of equals.

    Args:
        problem: What to choose from.
        deadline: Not looked at: every choice is tried.

    Raises:
        InfeasibleBudget: No choice is within the budgets.
        BadInput: There are more than :data:`CHOICES`.
    """
    starts = problem.starts
    sizes = np.diff(np.append(starts, len(problem.value)))
    count = float(np.prod(sizes.astype(float)))
    if count > CHOICES:
        raise BadInput(f"brute force over {count:.3g} choices", 'use backend="milp"')
    best, best_value = None, -np.inf
    slack = problem.slack()
    for first in range(0, int(count), CHUNK):
        index = np.arange(first, min(first + CHUNK, int(count)))
        rows = np.stack(np.unravel_index(index, tuple(sizes)), axis=1) + starts
        value = problem.value[rows].sum(axis=1)
        near = (problem.cost[rows].sum(axis=1) <= problem.budgets + slack).all(axis=1)
        near &= value > best_value - 1e-9 * max(1.0, np.abs(value).max())
        for candidate in rows[near][np.argsort(-value[near], kind="stable")]:
            total = problem.total(candidate)
            if total <= best_value:
                break
            if problem.within(candidate):
                best, best_value = candidate, total
    if best is None:
        raise problem.infeasible()
    return problem.option[best], best_value
