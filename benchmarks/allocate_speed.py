# SPDX-License-Identifier: Apache-2.0
"""How long the allocation takes, and how much better it is than greedy moves.

    python -m benchmarks.allocate_speed [--groups 50] [--options 200] [--seeds 5] [--limit 10]

Random multiple-choice knapsacks: uncorrelated and correlated ones, whose values follow their costs
closely and which are the hard ones for branch and bound; one, two and three resources. Every row
is one family, one number of resources and one solver, over all seeds and budgets. The last table
is a problem of 10^100 architectures, the size that LANA (arXiv:2107.10624) names.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import chipfit as cf
from benchmarks.output import Report, command, parser, spread
from chipfit.allocate.solve import Backend
from chipfit.errors import InfeasibleBudget

#: Shares of the way from the cheapest to the dearest choice at which budgets are set.
SHARES = (0.1, 0.25, 0.5)
SOLVERS: tuple[Backend, ...] = ("milp", "dynamic-programme", "greedy")
FAMILIES = {
    "uncorrelated": "whole values and costs from 1 to 1000, independent",
    "weakly correlated": "value is the mean cost, off by up to 100 of 1000",
    "strongly correlated": "value is the mean cost and a constant, whole numbers",
    "nearly linear": "value is the mean cost and noise of a thousandth, real numbers",
    "diminishing": "options sorted by cost, value its root and noise: as widths of layers",
}


def instance(
    family: str, groups: int, options: int, resources: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values ``(groups, options)`` and costs ``(resources, groups, options)``."""
    draw = np.random.default_rng([seed, resources, sorted(FAMILIES).index(family)])
    shape = (groups, options)
    cost = draw.integers(1, 1001, (resources, *shape)).astype(float)
    mean = cost.mean(axis=0)
    if family == "uncorrelated":
        return draw.integers(1, 1001, shape).astype(float), cost
    if family == "weakly correlated":
        return np.rint(mean + draw.integers(-100, 101, shape)), cost
    if family == "strongly correlated":
        return np.rint(mean) + 100.0, cost
    cost = draw.uniform(0, 1, (resources, *shape))
    if family == "nearly linear":
        return cost.mean(axis=0) + draw.normal(size=shape) * 1e-3, cost
    cost = np.sort(cost, axis=-1)
    return np.sqrt(cost.mean(axis=0)) + draw.normal(size=shape) * 1e-3, cost


def budgets_of(cost: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return budgets a share of the way from the cheapest to the dearest choice."""
    low, high = cost.min(axis=-1).sum(axis=-1), cost.max(axis=-1).sum(axis=-1)
    return low + share * (high - low)


def solved(
    family: str, size: tuple[int, int, int], seeds: int, limit_s: float
) -> list[dict[str, object]]:
    """Return one row for each solver over all seeds and budgets."""
    answers: dict[Backend, list[cf.allocate.Allocation | None]] = {solver: [] for solver in SOLVERS}
    for seed in range(seeds):
        value, cost = instance(family, *size, seed)
        for share in SHARES:
            for solver in SOLVERS:
                budgets = budgets_of(cost, share)
                try:
                    answers[solver].append(
                        cf.allocate.solve(
                            value, cost, budgets, backend=solver, time_limit_s=limit_s
                        )
                    )
                except InfeasibleBudget:
                    answers[solver].append(None)
    best = [max((a.value for a in each if a), default=math.nan) for each in zip(*answers.values())]
    infeasible = sum(not any(each) for each in zip(*answers.values()))
    rows = []
    for solver, found in answers.items():
        known = [answer for answer in found if answer]
        below = [
            100 * (top - answer.value) / abs(top) for answer, top in zip(found, best) if answer
        ]
        rows.append({
            "family": family, "resources": size[2], "solver": solver, "problems": len(found),
            "proven optimal": sum(answer.status == "optimal" for answer in known),
            "infeasible": infeasible, "stuck": len(found) - len(known) - infeasible,
            "seconds": spread([round(a.seconds, 3) for a in known]) if known else None,
            "% below the best found": spread([round(x, 4) for x in below]) if below else None,
            "largest gap %": max((100 * answer.gap for answer in known), default=None),
        })  # fmt: skip
    return rows


def large(groups: int, options: int, limit_s: float) -> list[dict[str, object]]:
    """Return rows on one problem of ``options ** groups`` architectures, with diverse solutions."""
    value, cost = instance("diminishing", groups, options, 1, seed=0)
    rows = []
    for share in SHARES:
        bounds = budgets_of(cost, share)
        found = cf.allocate.solve(value, cost, bounds, time_limit_s=limit_s)
        start = time.monotonic()
        several = cf.allocate.solve_diverse(value, cost, bounds, 5, 0.7, time_limit_s=limit_s)
        rows.append({
            "architectures": f"10^{groups * np.log10(options):.0f}", "budget": f"{share:.0%}",
            "seconds": found.seconds, "gap": found.gap, "status": found.status,
            "diverse": len(several), "seconds for these": time.monotonic() - start,
            "proven": sum(each.status == "optimal" for each in several),
            "value of the last, %": 100 * several[-1].value / found.value,
        })  # fmt: skip
    return rows


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Solve, compare, print."""
    flags = parser("speed and quality of the allocation")
    flags.add_argument("--groups", type=int, default=50)
    flags.add_argument("--options", type=int, default=200)
    flags.add_argument("--resources", type=int, nargs="+", default=[1, 2, 3])
    flags.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--limit", type=float, default=10.0, help="seconds for each problem")
    given = flags.parse_args(argv)
    # Importing SciPy is not solving.
    cf.allocate.solve([[0.0, 1.0]], [[[0.0, 1.0]]], [1.0])
    report = Report("allocate_speed", vars(given), given.out)
    rows = []
    for resources in given.resources:
        for family in given.families:
            size = (given.groups, given.options, resources)
            rows += solved(family, size, given.seeds, given.limit)
    families = "; ".join(f"{name}: {what}" for name, what in FAMILIES.items())
    report.table(
        f"{given.groups} groups of {given.options} options", rows,
        f"{families}. Budgets at {', '.join(f'{share:.0%}' for share in SHARES)} of the way from "
        "the cheapest to the dearest choice. Resources are drawn independently of each other, "
        "which is harder than latency and size of one network.",
    )  # fmt: skip
    report.table(
        "a search space of LANA's size",
        large(2 * given.groups, 10, given.limit),
        "Diverse: five solutions that share 70 % of the groups' choices at most.",
    )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
