# SPDX-License-Identifier: Apache-2.0
"""Whether a budget is within reach of a search space."""

from __future__ import annotations

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.methods.base import Problem


def check_reachable(problem: Problem, start: Cost, cheapest: Cost) -> None:
    """Refuse a budget that the narrowest network exceeds, or that no prediction speaks of.

    Args:
        problem: Its budget is absolute.
        start: Predicted cost of the original.
        cheapest: Predicted cost of the narrowest network of the search space.

    Raises:
        BadInput: The budget bounds what is not predicted on the target.
        InfeasibleBudget: The message names the cheapest reachable cost.
    """
    require_predicted(problem, start)
    if not problem.budget.met(cheapest):
        raise InfeasibleBudget(
            f"the budget {problem.budget} cannot be met by narrowing layers: the narrowest "
            f"reachable network costs {cost_text(cheapest, problem.budget)}",
            f"the original costs {cost_text(start, problem.budget)}",
        )


def require_predicted(problem: Problem, cost: Cost) -> None:
    """Refuse a budget on what is not predicted.

    Args:
        problem: Its budget is absolute.
        cost: Any predicted one on its target.

    Raises:
        BadInput: The message names what is predicted.
    """
    missing = [key for key in problem.budget.keys if key not in cost]
    if missing:
        raise BadInput(
            f"this method cannot steer by {', '.join(missing)} on {problem.target.name}",
            f"bound one of: {', '.join(sorted(cost.values))}",
        )


def cost_text(cost: Cost, budget: Budget | None = None) -> str:
    """Return the figures of a cost that matter to ``budget``, else its latency or MACs."""
    keys = budget.keys if budget else ("latency_ms" if "latency_ms" in cost else "macs",)
    return ", ".join(f"{key}={cost[key]:.4g}" for key in keys)
