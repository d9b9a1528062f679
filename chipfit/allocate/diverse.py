# SPDX-License-Identifier: Apache-2.0
"""``solve_diverse``: the best choice, then the best that differs enough from those before."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from chipfit.allocate.allocation import Allocation
from chipfit.allocate.knapsack import Figures, Knapsack, read_knapsack
from chipfit.allocate.solve import BACKENDS, Backend, answer
from chipfit.errors import BadInput, InfeasibleBudget, UnknownName


def solve_diverse(
    values: Figures,
    costs: Figures,
    budgets: Figures,
    count: int,
    overlap: float,
    *,
    maxima: Figures | None = None,
    max_budgets: Figures | None = None,
    backend: Backend = "milp",
    time_limit_s: float = 10.0,
    names: Sequence[str] | None = None,
) -> list[Allocation]:
    """Return up to ``count`` choices, each the best that overlaps little with all before it.

    LANA (arXiv:2107.10624, section 3.2) solves its programme again with the constraint that at
    most a share of the layers keeps the option of each earlier solution; here that is one more
    additive resource, which the option of the earlier solution costs 1 of.

    Args:
        values: As of :func:`chipfit.allocate.solve`.
        costs: As there.
        budgets: As there.
        count: How many choices are wanted.
        overlap: Share of the groups, 0 to 1, that may choose as each earlier one did; all groups
            count, and one group differs at least.
        maxima: As there.
        max_budgets: As there.
        backend: As there.
        time_limit_s: For each choice.
        names: As there.

    Returns:
        The choices in the order found; fewer where no more exist. Each is optimal among those that
        differ enough from the choices before it, where its status says so.

    Raises:
        InfeasibleBudget: No choice at all is within the budgets.
        BadInput: The arguments do not fit together.
    """
    if count < 1 or not 0 <= overlap <= 1:
        raise BadInput(
            f"count {count} and overlap {overlap}", "count is 1 or more, overlap from 0 to 1"
        )
    if backend not in BACKENDS:
        raise UnknownName("backend", backend, BACKENDS)
    problem = read_knapsack(values, costs, budgets, maxima, max_budgets, names)
    # A share such as 0.7 times 10 groups must not lose one to rounding.
    alike = min(math.floor(overlap * problem.groups + 1e-9), problem.groups - 1)
    found: list[Allocation] = []
    while len(found) < count:
        start = time.monotonic()
        try:
            found.append(answer(problem, backend, start, start + time_limit_s))
        except InfeasibleBudget:
            if not found:
                raise
            return found
        problem = _apart(problem, found[-1], alike)
    return found


def _apart(problem: Knapsack, earlier: Allocation, alike: int) -> Knapsack:
    same = problem.option == np.array(earlier.choice)[problem.group]
    return replace(
        problem,
        cost=np.column_stack([problem.cost, same.astype(np.float64)]),
        budgets=np.append(problem.budgets, float(alike)),
        names=(*problem.names, "groups that choose as an earlier solution"),
    )
