# SPDX-License-Identifier: Apache-2.0
"""The usual greedy allocation: the baseline that exact solvers are compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.bound import price_bound
from chipfit.allocate.knapsack import Knapsack
from chipfit.allocate.primal import repair


def solve_greedy(problem: Knapsack, deadline: float) -> tuple[NDArray[np.int64], float]:
    """Start at the most valuable options; give up the least value for the excess taken away.

    One group moves at a time until every budget is kept, and nothing is undone.

    Args:
        problem: What to choose from.
        deadline: Not looked at: there are few steps.

    Returns:
        The options chosen ``(groups,)``, and the value of the best options without any budget.

    Raises:
        InfeasibleBudget: It got stuck above a budget; another choice may be within.
    """
    bound = price_bound(problem, np.zeros(problem.cost.shape[1]))
    rows = repair(problem, problem.best_rows(problem.value), bound)
    if rows is None:
        raise problem.infeasible("greedy moves reach no choice within the budgets")
    return problem.option[rows], bound.value
