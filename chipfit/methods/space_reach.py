# SPDX-License-Identifier: Apache-2.0
"""Architectures of a block space within a budget, and whether there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import InfeasibleBudget
from chipfit.methods.base import Problem
from chipfit.methods.derive import best_within, cheapest_within_reach
from chipfit.methods.reach import cost_text
from chipfit.methods.space_costs import CostFunction, SpaceCosts

Values = NDArray[np.float64]


class Figures(Protocol):
    """Costs of architectures by key; :class:`~chipfit.methods.space_costs.SpaceCosts` has them."""

    def of(self, key: str) -> CostFunction:
        """Return the function from option indices ``(N, choices)`` to costs ``(N,)``."""
        ...


def check_space(problem: Problem, costs: SpaceCosts) -> None:
    """Refuse a budget that no architecture is within.

    Raises:
        InfeasibleBudget: The message names the cheapest architecture's cost.
        BadInput: A bounded figure is not predicted on the target.
    """
    sizes = [len(choice.options) for choice in costs.space]
    if best_rows(costs, [np.zeros(size) for size in sizes], problem.budget.limits, 1, 0.0):
        return
    row = cheapest_within_reach(sizes, costs.of(problem.budget.keys[0]))
    cheapest = costs.networks([[int(i) for i in row]])[0]
    raise InfeasibleBudget(
        f"the budget {problem.budget} cannot be met in this search space: the cheapest network "
        f"that was found in it costs {cost_text(cheapest, problem.budget)}",
        f"the original costs {cost_text(problem.original_cost, problem.budget)}; offer cheaper "
        "operations, or narrow the layers with netadapt",
    )


def best_rows(
    costs: Figures,
    scores: Sequence[Values],
    limits: Mapping[str, float],
    count: int,
    floor: float,
) -> list[tuple[int, ...]]:
    """Return the architectures of highest total score within the limits, best first.

    Args:
        costs: Of the space.
        scores: By choice, of each option, higher is better; ``-inf`` forbids one.
        limits: By key of cost.
        count: Wanted at most.
        floor: Those that cost at least this share of the first limit are preferred: a budget is
            there to be used. Where there is none, cheaper ones are returned.
    """
    functions = {key: costs.of(key) for key in limits}
    if floor > 0 and limits:
        key = next(iter(limits))
        own = functions[key]
        used = {**functions, "used": lambda codes: -own(codes)}
        rows = best_within(scores, used, {**limits, "used": -floor * limits[key]}, count)
        if len(rows):
            return [tuple(int(i) for i in row) for row in rows]
    rows = best_within(scores, functions, limits, count)
    return [tuple(int(i) for i in row) for row in rows]
