# SPDX-License-Identifier: Apache-2.0
"""``solve``: one option of every group, worth the most within the budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.allocation import Allocation
from chipfit.allocate.brute_force import solve_brute_force
from chipfit.allocate.dynamic_programme import solve_dynamic_programme
from chipfit.allocate.greedy import solve_greedy
from chipfit.allocate.knapsack import Figures, Knapsack, read_knapsack
from chipfit.allocate.milp import solve_milp
from chipfit.errors import UnknownName

Backend = Literal["milp", "dynamic-programme", "brute-force", "greedy"]
#: Each returns the options chosen ``(groups,)`` and a bound on the value, by a deadline.
BACKENDS: dict[str, Callable[[Knapsack, float], tuple[NDArray[np.int64], float]]] = {
    "milp": solve_milp,
    "dynamic-programme": solve_dynamic_programme,
    "brute-force": solve_brute_force,
    "greedy": solve_greedy,
}


def solve(
    values: Figures,
    costs: Figures,
    budgets: Figures,
    *,
    maxima: Figures | None = None,
    max_budgets: Figures | None = None,
    backend: Backend = "milp",
    time_limit_s: float = 10.0,
    names: Sequence[str] | None = None,
) -> Allocation:
    """Choose one option of every group: a multiple-choice knapsack.

    >>> answer = solve([[1.0, 3.0], [0.0, 2.0]], [[[1, 5], [1, 2]]], [7.0])
    >>> answer.choice, answer.value, answer.cost, answer.gap
    ((1, 1), 5.0, (7.0,), 0.0)

    Args:
        values: ``values[group][option]``, higher is better, of any sign; ``-inf`` forbids one.
            Groups may have different numbers of options.
        costs: ``costs[resource][group][option]``, added up over groups; ``inf`` forbids an option.
        budgets: Largest sum allowed of each resource, kept without tolerance; ``inf`` for none.
        maxima: ``maxima[resource][group][option]``, of which the largest chosen counts.
        max_budgets: Largest figure allowed of each resource of ``maxima``.
        backend: ``"milp"`` (HiGHS), ``"dynamic-programme"``, ``"brute-force"`` or ``"greedy"``;
            all but the last prove what they find. Equal arguments give equal answers as long as
            the time limit is not reached.
        time_limit_s: When to stop with the best that was found.
        names: Of the resources, additive ones first, for messages.

    Raises:
        InfeasibleBudget: No choice is within the budgets; the message names the cheapest reachable
            cost of every resource.
        BadInput: The arguments do not fit together.
        UnknownName: There is no such backend.
    """
    start = time.monotonic()
    if backend not in BACKENDS:
        raise UnknownName("backend", backend, BACKENDS)
    problem = read_knapsack(values, costs, budgets, maxima, max_budgets, names)
    return answer(problem, backend, start, start + time_limit_s)


def answer(problem: Knapsack, backend: str, start: float, deadline: float) -> Allocation:
    """Return what ``backend`` chooses; times are of :func:`time.monotonic`."""
    chosen, bound = BACKENDS[backend](problem, deadline)
    rows = np.searchsorted(
        problem.group * (problem.option.max() + 1) + problem.option,
        np.arange(problem.groups) * (problem.option.max() + 1) + chosen,
    )
    return problem.allocation(rows, bound, time.monotonic() - start)


def dynamic_programme(*arguments: Any, **settings: Any) -> Allocation:
    """Call :func:`solve` with the dynamic programme."""
    return solve(*arguments, **settings, backend="dynamic-programme")


def brute_force(*arguments: Any, **settings: Any) -> Allocation:
    """Call :func:`solve` with the enumeration of every choice: the oracle of tests."""
    return solve(*arguments, **settings, backend="brute-force")
