# SPDX-License-Identifier: Apache-2.0
"""What networks cost: figures, look-up tables, budgets and predictions of whole networks."""

from chipfit.cost.budget import Budget
from chipfit.cost.cost import COST_KEYS, PROVENANCES, Cost

__all__ = ["COST_KEYS", "PROVENANCES", "Budget", "Cost"]
