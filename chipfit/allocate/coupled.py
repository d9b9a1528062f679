# SPDX-License-Identifier: Apache-2.0
"""``solve_coupled``: costs that depend on neighbours, such as the widths on both sides of a layer.

Our variant: the costs are linearised around a choice by changing one group at a time, the
knapsack is solved on them, its answer is repaired and improved on the true costs, and the next
round starts there. What is returned was priced by the true costs and keeps every budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chipfit.allocate.allocation import Allocation
from chipfit.allocate.bound import unit_of
from chipfit.allocate.coupled_moves import climb_coupled, repair_coupled
from chipfit.allocate.coupled_problem import PAIRS, UNBUILDABLE, CoupledProblem, read_coupled
from chipfit.allocate.knapsack import Figures
from chipfit.allocate.solve import Backend, solve
from chipfit.errors import BadInput, InfeasibleBudget

#: Tries of one round, each with the budgets moved by what the last one was off.
TRIES = 3


def solve_coupled(
    values: Figures,
    cost_of: Callable[[NDArray[np.int64]], ArrayLike],
    budgets: Figures,
    start: Sequence[int] | None = None,
    rounds: int = 8,
    *,
    maximum: Sequence[int] = (),
    backend: Backend = "milp",
    time_limit_s: float = 10.0,
    names: Sequence[str] | None = None,
    pairs: int = PAIRS,
    everywhere: bool = True,
) -> Allocation:
    """Choose one option of every group where the cost of a choice is known as a whole only.

    Args:
        values: ``values[group][option]``, higher is better; ``-inf`` forbids an option.
        cost_of: From codes ``(N, groups)`` int64, an option's index for each group, to true costs
            ``(N, resources)``. It is asked about thousands of choices, in batches. A figure of the
            whole graph is welcome, such as peak memory; where it is the largest of several places,
            a resource for each place guides the search better than the largest alone.
        budgets: Largest true cost allowed of each resource, kept without tolerance.
        start: Choice around which costs are linearised first; by default the best values.
        rounds: How often to linearise and solve from each starting point.
        maximum: Indexes of the resources that are the largest of several figures and not a sum:
            options that exceed the budget by themselves are forbidden, and the rest is not added
            up.
        backend: Of the linearised problems, as of :func:`chipfit.allocate.solve`.
        time_limit_s: When to stop improving; a choice within the budgets is looked for regardless.
        names: Of the resources, for messages.
        pairs: Moves of two groups whose true cost is asked for in one step, at most; fewer where
            a cost takes long.
        everywhere: Begin at the best values, the least costs and the worst values too, and not at
            ``start`` alone.

    Returns:
        A choice within the budgets. Nothing is proven about costs that could be anything, so the
        gap is to the best values without any budget, and the status ``"feasible"`` unless these
        are what was chosen.

    Raises:
        InfeasibleBudget: No choice within the budgets was found; the message names the cheapest
            found of every resource.
        BadInput: The arguments do not fit together, or ``cost_of`` returns another shape or NaN.
    """
    began = time.monotonic()
    problem = read_coupled(values, cost_of, budgets, maximum, names, began + time_limit_s)
    problem = replace(problem, pairs=pairs)
    best: NDArray[np.int64] | None = None
    for first in _starting_points(problem, start, everywhere):
        rows: NDArray[np.int64] | None = first
        seen: set[bytes] = set()
        for _ in range(max(1, rounds)):
            if rows is None or rows.tobytes() in seen or (best is not None and problem.late()):
                break
            seen.add(rows.tobytes())
            rows = _round(problem, rows, backend)
            if rows is not None and (best is None or problem.total(rows) > problem.total(best)):
                best = rows
    if best is None:
        raise _unreached(problem)
    return problem.allocation(best, time.monotonic() - began)


def _starting_points(
    problem: CoupledProblem, start: Sequence[int] | None, everywhere: bool
) -> list[NDArray[np.int64]]:
    points = []
    if start is not None:
        codes = np.asarray(start, dtype=np.int64).reshape(-1)
        wanted = np.flatnonzero(codes[problem.group] == problem.option) if (
            len(codes) == problem.groups
        ) else np.zeros(0, dtype=np.int64)  # fmt: skip
        if len(wanted) != problem.groups:
            raise BadInput(
                f"start {tuple(start)} is no choice of allowed options",
                f"give an option's index for each of the {problem.groups} groups",
            )
        points = [wanted]
        if not everywhere:
            return points
    high = problem.best_rows(problem.value)
    changed = problem.changed(high)
    unit = unit_of(np.abs(problem.budgets))
    cheap = problem.best_rows(-(changed / unit).sum(axis=1))
    return [*points, high, cheap, problem.best_rows(-problem.value)]


def _round(
    problem: CoupledProblem, rows: NDArray[np.int64], backend: Backend
) -> NDArray[np.int64] | None:
    """Return the best choice within the budgets that linearising around ``rows`` leads to."""
    base = problem.costs(rows[None])[0]
    slope = problem.changed(rows) - base
    found = [climb_coupled(problem, kept)] if (
        (kept := repair_coupled(problem, rows)) is not None
    ) else []  # fmt: skip
    shift = np.zeros(len(base))
    for _ in range(TRIES):
        if (base >= UNBUILDABLE).any():  # nothing can be learnt from differences to that
            break
        guess = _solve_linear(problem, base, slope, shift, backend)
        if guess is None:
            break
        kept = repair_coupled(problem, guess)
        if kept is not None:
            found.append(climb_coupled(problem, kept))
        true = problem.costs(guess[None])[0]
        off = true - (base + slope[guess].sum(axis=0))
        moved = np.where(problem.maximum, 0.0, np.maximum(off, -np.abs(problem.budgets)))
        if problem.late() or np.allclose(moved, shift, rtol=1e-9, atol=0):
            break
        shift = moved
    return max(found, key=problem.total, default=None)


def _solve_linear(
    problem: CoupledProblem, base: NDArray[np.float64], slope: NDArray[np.float64],
    shift: NDArray[np.float64], backend: Backend,
) -> NDArray[np.int64] | None:  # fmt: skip
    sums = ~problem.maximum
    alone = base + slope
    above = (alone > problem.budgets) & (alone > base)
    unbuildable = (alone >= UNBUILDABLE).any(axis=1)
    value = np.where((above & problem.maximum).any(axis=1) | unbuildable, -np.inf, problem.value)
    cut = problem.starts[1:]
    if np.isneginf(np.maximum.reduceat(value, problem.starts)).any():
        return None
    try:
        solved = solve(
            np.split(value, cut),
            [np.split(column, cut) for column in slope[:, sums].T],
            (problem.budgets - base - shift)[sums].tolist(),
            backend=backend, time_limit_s=max(0.1, problem.deadline - time.monotonic()),
        )  # fmt: skip
    except InfeasibleBudget:
        return None
    return problem.starts + np.array(solved.choice)


def _unreached(problem: CoupledProblem) -> InfeasibleBudget:
    cheapest = []
    for resource in range(len(problem.budgets)):
        rows = problem.best_rows(-problem.value)
        least = problem.costs(rows[None])[0, resource]
        while True:
            changed = problem.changed(rows)[:, resource]
            together = problem.best_rows(-changed)
            one = rows.copy()
            one[problem.group[int(np.argmin(changed))]] = int(np.argmin(changed))
            options = np.stack([together, one])
            figures = problem.costs(options)[:, resource]
            if figures.min() >= least:
                break
            rows, least = options[int(np.argmin(figures))], figures.min()
        cheapest.append(least)
    shown = ", ".join(
        f"{name}: budget {budget:.10g}, cheapest found {least:.10g}"
        for name, budget, least in zip(problem.names, problem.budgets, cheapest)
    )
    return InfeasibleBudget(
        f"no choice within the budgets was found ({shown})",
        "raise a budget, or offer cheaper options",
    )
