# SPDX-License-Identifier: Apache-2.0
"""Exact dynamic programme over groups, for any number of additive resources with real costs.

Our choice: Pareto sets of partial sums (:mod:`chipfit.allocate.merge`) instead of a table over
discretised costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.knapsack import Knapsack
from chipfit.allocate.merge import merge
from chipfit.allocate.presolve import presolve

#: Partial sums kept at once; beyond it the answer is not proven.
STATES = 200_000


def solve_dynamic_programme(problem: Knapsack, deadline: float) -> tuple[NDArray[np.int64], float]:
    """Return the options of the best choice and a bound on its value.

    Args:
        problem: What to choose from.
        deadline: Of :func:`time.monotonic`; afterwards few partial sums are kept, and the bound
            says what those dropped might have reached.

    Raises:
        InfeasibleBudget: No choice is within the budgets; or none was found in time, which the
            message then says.
    """
    left, bound, best = presolve(problem)
    if bound.value >= best.floor:
        found, lost = merge(left, bound, best.floor, deadline, STATES)
        best.offer(left, found)
    else:
        lost = -np.inf
    if best.option is None:
        raise problem.infeasible("" if np.isneginf(lost) else "no choice was found in time")
    return best.option, lost if lost >= best.floor else best.value
