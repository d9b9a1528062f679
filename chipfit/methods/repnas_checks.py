# SPDX-License-Identifier: Apache-2.0
"""What RepNAS refuses before any work: budgets out of reach, options out of range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.errors import InfeasibleBudget
from chipfit.methods.base import Problem
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text, require_predicted


def check_budget(problem: Problem, merged: Cost) -> None:
    """Refuse a budget that the merged network is over.

    Raises:
        BadInput: The budget bounds what is not predicted on the target.
        InfeasibleBudget: The message names what the merged network costs.
    """
    require_predicted(problem, merged)
    if not problem.budget.met(merged):
        raise InfeasibleBudget(
            f"the budget {problem.budget} cannot be met by merging branches: the merged network, "
            f"whichever branches it had, costs {cost_text(merged, problem.budget)}",
            "netadapt can narrow the merged network further",
        )


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``BadInput`` where an option of the method is out of range."""
    shares = [float(share) for share in settings["shares"]]
    betas = [float(beta) for beta in settings["logits_betas"]]
    phases = [float(settings["random_share"]), float(settings["search_share"])]
    ranges = {
        "shares": len(shares) > 0 and all(0 < share <= 1 for share in shares),
        "epochs": float(settings["epochs"]) >= 0,
        "steps": int(settings["steps"]) >= 0,
        "learning_rate": float(settings["learning_rate"]) >= 0,
        "gradient_clip": float(settings["gradient_clip"]) >= 0,
        "random_share": min(phases) >= 0 and sum(phases) < 1,
        "search_share": min(phases) >= 0 and sum(phases) < 1,
        "logits_rate": float(settings["logits_rate"]) > 0,
        "logits_betas": len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        "logits_decay": float(settings["logits_decay"]) >= 0,
        "val_images": int(settings["val_images"]) >= 0,
    }
    require_in_range("repnas", settings, ranges)
