# SPDX-License-Identifier: Apache-2.0
"""What widths are worth by different criteria; ``auto`` lets short trainings decide between them.

No criterion that looks at the untrained network knows what training gives back, so each makes one
proposal. All are sums over groups, higher is better, for one knapsack under the target's prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chipfit.allocate import solve_coupled
from chipfit.methods.width_table import WidthTable

#: Moves of two groups that are priced in one step: prices may have to be compiled or measured.
PAIRS = 100

Values = list[NDArray[np.float64]]
Rows = NDArray[np.int64]

#: Criteria in the order in which ties are decided; those that choose channels by Taylor importance.
CRITERIA = ("alike", "capacity", "magnitude", "taylor", "measured")
BY_TAYLOR = ("taylor", "measured")


@dataclass(frozen=True)
class Known:
    """What criteria look at.

    Args:
        magnitude: By group, of its channels.
        taylor: By group, of its channels.
        lost: By group, the distance from the original at each of the table's widths.
    """

    magnitude: Mapping[str, Tensor]
    taylor: Mapping[str, Tensor]
    lost: Mapping[str, NDArray[np.float64]]


def proposals(
    names: Sequence[str], table: WidthTable, known: Known, limits: Mapping[str, float],
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Return rows of option indices within the limits by criterion; equal ones only once.

    ``alike`` narrows all groups by one factor; ``capacity`` maximises the sum of the logarithms of
    widths, so that a group narrows the more the more that saves; ``magnitude`` keeps the largest
    sum of weights, each group's relative to its mean; ``taylor`` the most Taylor importance (SMCP's
    criterion); ``measured`` loses the least distance (LANA's, for widths).

    Args:
        names: Of :data:`CRITERIA`.
        table: Prices and options.
        known: What they look at.
        limits: Most of each figure; the narrowest network is within them.
        say: Told what is solved.

    Raises:
        InfeasibleBudget: No widths within the limits were found.
    """
    found: dict[tuple[int, ...], str] = {}
    for name in names:
        row = (
            narrowed_alike(table, limits)
            if name == "alike"
            else _solved(table, limits, values_of(name, table, known), name, say)
        )
        if row is not None:
            found.setdefault(row, name)
    return {name: row for row, name in found.items()}


def values_of(name: str, table: WidthTable, known: Known) -> Values:
    """Return the value of every width of every group by one criterion but ``alike``."""
    values = []
    for choice in table.space:
        widths = np.array(choice.options, np.float64)
        if name == "capacity":
            values.append(np.log(widths / widths[-1]))
        elif name == "measured":
            values.append(-known.lost[choice.name])
        else:
            own = known.magnitude if name == "magnitude" else known.taylor
            ranked = np.sort(own[choice.name].double().numpy())[::-1]
            kept = np.cumsum(ranked)[widths.astype(int) - 1]
            unit = ranked.mean() if name == "magnitude" else 1.0
            values.append(kept / max(unit, 1e-300))
    return values


def narrowed_alike(table: WidthTable, limits: Mapping[str, float]) -> tuple[int, ...] | None:
    """Return all groups narrowed by one factor, the largest within the limits, if there is any."""
    factors = np.linspace(1.0, 0.01, 200)
    nearest = [
        [int(np.argmin([abs(w - f * choice.options[-1]) for w in choice.options]))
         for choice in table.space]
        for f in factors
    ]  # fmt: skip
    rows = np.array(list(dict.fromkeys(map(tuple, nearest))), np.int64)
    inside = (table.many(list(limits))(rows) <= np.array(list(limits.values()))).all(axis=1)
    return tuple(int(i) for i in rows[int(np.argmax(inside))]) if inside.any() else None


def _solved(
    table: WidthTable, limits: Mapping[str, float], values: Values, name: str, say: Any
) -> tuple[int, ...]:
    say(f"solving for {len(values)} widths by {name}")
    cost_of = table.many(list(limits))
    solved = solve_coupled(
        values, cost_of, list(limits.values()), names=list(limits), pairs=PAIRS,
        time_limit_s=math.inf,  # what is chosen must not depend on how busy the machine is
    )  # fmt: skip
    return tuple(solved.choice)
