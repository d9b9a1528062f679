# SPDX-License-Identifier: Apache-2.0
"""The knapsack as a mixed-integer linear programme, solved by HiGHS through SciPy.

``max sum v z`` over one-hot ``z`` of every group with ``sum c z <= budget`` for every resource
(LANA, arXiv:2107.10624, equation 4, phase 2). Bounds of the linear relaxation leave few options
before the search starts; a beam of partial choices (:mod:`chipfit.allocate.merge`) gives it a value
to beat and proves most problems with one resource by itself; what HiGHS returns is checked against
the budgets without its tolerances, and cut off where it exceeds them.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.bound import room_beside_cheapest, unit_of
from chipfit.allocate.knapsack import Knapsack
from chipfit.allocate.merge import merge
from chipfit.allocate.presolve import core, presolve
from chipfit.allocate.quiet import without_stray_lines

#: HiGHS's tolerances are absolute, 1e-6: values are scaled so that they mean 1e-10 of the range.
VALUE_RANGE = 1e4
#: And costs, where a choice above a budget is found and cut off afterwards, so that they mean 1e-8.
COST_RANGE = 1e2
#: How often a choice just above a budget is cut off before the solver gives in.
CUTS = 50


class Beam(NamedTuple):
    """Merge partial choices, keeping so many: a value to beat, and often the proof."""

    states: int


class Search(NamedTuple):
    """Let HiGHS branch and cut, over so many nodes at most."""

    nodes: int | None


#: What is tried in turn until the best is proven. Counts, not times, end each but the last, so
#: that the answer does not depend on the load of the machine.
STEPS: tuple[Beam | Search, ...] = (
    Beam(1_000), Beam(8_000), Search(500), Beam(64_000), Search(None),
)  # fmt: skip


def solve_milp(problem: Knapsack, deadline: float) -> tuple[NDArray[np.int64], float]:
    """Return the best rows of ``problem`` and a bound on their value.

    Args:
        problem: What to choose from.
        deadline: Of :func:`time.monotonic`, when to stop with what was found.

    Returns:
        Option indexes as the caller counts them ``(groups,)``, and a value that no choice exceeds.

    Raises:
        InfeasibleBudget: No choice is within the budgets; or none was found in time, which the
            message then says.
    """
    left, bound, best = presolve(problem)
    limit = bound.value
    for step in STEPS:
        if limit < best.floor:
            break
        if isinstance(step, Beam):
            found, reached = merge(left, bound, best.floor, deadline, step.states)
        else:
            found, reached = _search(left, deadline, limit, step.nodes)
        best.offer(left, found)
        limit = min(limit, max(best.value, reached))
        left, bound = core(left, bound, best)
    if best.option is None:
        late = "no choice within the budgets was found in time"
        raise problem.infeasible("" if np.isneginf(limit) else late)
    return best.option, limit if limit >= best.floor else best.value


def _search(
    problem: Knapsack, deadline: float, limit: float, nodes: int | None
) -> tuple[NDArray[np.int64] | None, float]:
    """Return rows that HiGHS found, and a bound on everything left in ``problem``."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    count = len(problem.value)
    top = np.maximum.reduceat(problem.value, problem.starts)
    loss = top[problem.group] - problem.value
    unit = float(unit_of(loss.max())) / VALUE_RANGE
    shifted, room = room_beside_cheapest(problem)
    scale = unit_of(np.maximum(room, shifted.max(axis=0))) / COST_RANGE
    one_each = csr_array((np.ones(count), (problem.group, np.arange(count))))
    rows = [csr_array((shifted / scale).T)]
    above = [np.maximum(room, 0) / scale]
    options = {"mip_rel_gap": 0.0} if nodes is None else {"mip_rel_gap": 0.0, "node_limit": nodes}
    for _ in range(CUTS):
        left = deadline - time.monotonic()
        if left <= 0:
            return None, limit
        with without_stray_lines():
            solved = milp(
                loss / unit, integrality=np.ones(count), bounds=Bounds(0, 1),
                constraints=[
                    LinearConstraint(one_each, 1, 1),
                    LinearConstraint(vstack(rows), -np.inf, np.concatenate(above)),
                ],
                options=options | {"time_limit": left},
            )  # fmt: skip
        if solved.status == 2:
            return None, -np.inf
        if solved.mip_dual_bound is not None and np.isfinite(solved.mip_dual_bound):
            limit = min(limit, float(top.sum() - solved.mip_dual_bound * unit))
        if solved.x is None:
            return None, limit
        found = problem.best_rows(solved.x)
        if problem.within(found):
            return found, problem.total(found) if solved.status == 0 else limit
        cut = _cover(problem, found)
        rows.append(csr_array(cut[None].astype(float)))
        above.append(np.array([problem.groups - 1.0]))
    return None, limit


def _cover(problem: Knapsack, found: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the options as dear as the chosen ones in a resource that these exceed.

    One of each group would exceed it as well, so at most all groups but one may take such.
    """
    over = int(np.argmax(problem.used(found) - problem.budgets > 0))
    return problem.cost[:, over] >= problem.cost[found, over][problem.group]
