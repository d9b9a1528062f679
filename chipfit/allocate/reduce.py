# SPDX-License-Identifier: Apache-2.0
"""Options that no optimal choice needs: dominated ones and those that cannot fit."""

from __future__ import annotations

import numpy as np

from chipfit.allocate.knapsack import Knapsack


def without_dominated(problem: Knapsack) -> Knapsack:
    """Leave out options that another of their group beats or equals in value and every cost.

    Of equal options the first stays, so ties end at the lowest index.
    """
    keep = np.ones(len(problem.value), dtype=bool)
    ends = np.append(problem.starts[1:], len(problem.value))
    for start, end in zip(problem.starts, ends):
        value, cost = problem.value[start:end], problem.cost[start:end]
        # Most valuable first, cheapest first among equals: only earlier ones can dominate.
        order = np.lexsort((np.arange(end - start), *cost.T[::-1], -value))
        ahead = np.empty((0, cost.shape[1]))
        for index in order:
            if len(ahead) and (ahead <= cost[index]).all(axis=1).any():
                keep[start + index] = False
            else:
                ahead = np.vstack([ahead, cost[index]])
    reduced = problem.subset(keep)
    return problem if reduced is None else reduced


def without_impossible(problem: Knapsack) -> Knapsack:
    """Leave out options that exceed a budget even beside the cheapest of every other group.

    Raises:
        InfeasibleBudget: A group has no other.
    """
    while True:
        least = np.minimum.reduceat(problem.cost, problem.starts, axis=0)
        beside = least.sum(axis=0) - least[problem.group] + problem.cost
        fits = (beside <= problem.budgets + problem.slack()).all(axis=1)
        reduced = problem.subset(fits)
        if reduced is None:
            raise problem.infeasible()
        if len(reduced.value) == len(problem.value):
            return problem
        problem = reduced
