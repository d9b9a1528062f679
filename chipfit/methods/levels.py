# SPDX-License-Identifier: Apache-2.0
"""The budgets of a family: from the original's cost to the one that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chipfit.cost.cost import Cost
from chipfit.methods.base import Problem
from chipfit.runs.run import Run


def family_levels(
    problem: Problem, run: Run, method: str, count: int, start: Cost
) -> list[dict[str, float]]:
    """Return ``count`` budgets, evenly from a cost to the one asked for, once per run.

    A search that goes on with a tighter budget keeps the levels that it began with.

    Args:
        problem: Its budget is absolute.
        run: Where they are recorded, under ``METHOD/levels``.
        method: Prefix of the record.
        count: Number of budgets.
        start: The original's cost.
    """
    done = run.recall(f"{method}/levels")
    if done is None:
        limits = problem.budget.limits
        levels = [
            {k: max(v, start[k] - (start[k] - v) * i / count) for k, v in limits.items()}
            for i in range(1, count + 1)
        ]
        done = run.record("levels", f"{method}/levels", levels=levels)
    return [dict(level) for level in done["levels"]]


def next_limits(
    problem: Problem, levels: Sequence[Mapping[str, float]], cost: Cost
) -> dict[str, float]:
    """Return the first level that a cost is above, else the budget itself."""
    left = [one for one in levels if any(cost[k] > v for k, v in one.items())]
    return dict(left[0] if left else problem.budget.limits)
