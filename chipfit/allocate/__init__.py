# SPDX-License-Identifier: Apache-2.0
"""Solve for all places of a network at once: a multiple-choice knapsack under budgets."""

from chipfit.allocate.allocation import Allocation
from chipfit.allocate.coupled import solve_coupled
from chipfit.allocate.diverse import solve_diverse
from chipfit.allocate.solve import brute_force, dynamic_programme, solve

__all__ = [
    "Allocation", "brute_force", "dynamic_programme", "solve", "solve_coupled", "solve_diverse",
]  # fmt: skip
