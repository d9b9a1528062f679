# SPDX-License-Identifier: Apache-2.0
"""Partial choices, group after group: the Pareto set of their sums, cut by bounds.

Nemhauser and Ullmann's lists of undominated sums instead of a grid of costs, so costs need not be
whole numbers and may be several. A sum is dropped where its bound does not reach a value already
known; where too many are left the least promising go, and what they might have reached is told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.bound import PriceBound
from chipfit.allocate.knapsack import Knapsack
from chipfit.allocate.pareto import undominated

#: Partial sums kept once the time is up.
LATE_STATES = 1_000
#: Multiples of the prices whose bounds are looked at besides the prices themselves.
FACTORS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.005, 1.01, 1.02, 1.05, 1.1, 1.2)
#: And of each price alone where there are several.
FEW_FACTORS = (0.9, 0.97, 0.99, 1.01, 1.03, 1.1)
#: Partial sums formed at once.
CHUNK = 1_000_000


@dataclass(frozen=True)
class _States:
    """Partial choices: sums of value and cost, what they may reach, and how each came about."""

    value: NDArray[np.float64]
    cost: NDArray[np.float64]
    reach: NDArray[np.float64]
    parent: NDArray[np.int64]
    row: NDArray[np.int64]

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> _States:
        return _States(
            self.value[which], self.cost[which], self.reach[which], self.parent[which],
            self.row[which],
        )  # fmt: skip


def merge(
    problem: Knapsack, bound: PriceBound, floor: float, deadline: float, states: int
) -> tuple[NDArray[np.int64] | None, float]:
    """Return the best rows worth ``floor`` at least, and what was dropped without proof.

    Args:
        problem: What to choose from.
        bound: Of this problem.
        floor: Only choices worth as much are looked for.
        deadline: Of :func:`time.monotonic`; afterwards few partial sums are kept.
        states: Partial sums kept at once; the time grows with it.

    Returns:
        Rows ``(groups,)`` or ``None``, and the largest value that a dropped sum might have
        reached: ``-inf`` where nothing was dropped, so that the rows are the best, or there are
        none.
    """
    starts, ends = problem.starts, np.append(problem.starts[1:], len(problem.value))
    # Small groups first: the sums stay few while the bounds are loose.
    order = np.argsort(ends - starts, kind="stable")
    least = np.minimum.reduceat(problem.cost, starts, axis=0)
    # Partial choices that use more or less than their share have their best bound elsewhere.
    prices = _nearby(bound.prices)
    worth = np.maximum.reduceat(problem.value[:, None] - problem.cost @ prices.T, starts, axis=0)
    base = prices @ problem.budgets
    limit = problem.budgets + problem.slack()
    now = _States(
        np.zeros(1), np.zeros((1, problem.cost.shape[1])), np.zeros(1), np.zeros(1, int),
        np.zeros(1, int),
    )  # fmt: skip
    history, lost = [], -np.inf
    for position, group in enumerate(order):
        rest = order[position + 1 :]
        room = limit - least[rest].sum(axis=0)
        ahead = base + worth[rest].sum(axis=0)
        rows = np.arange(starts[group], ends[group])
        kept = states if time.monotonic() < deadline else min(states, LATE_STATES)
        now, dropped = _extended(problem, now, rows, room, (prices, ahead, floor), kept)
        lost = max(lost, dropped)
        if not len(now.value):
            return None, lost
        history.append((group, now.parent, now.row))
    for last in np.argsort(-now.value, kind="stable"):
        chosen, index = np.zeros(problem.groups, dtype=np.int64), last
        for group, parent, row in reversed(history):
            chosen[group], index = row[index], parent[index]
        if problem.within(chosen):
            return chosen, lost
    return None, lost


def _nearby(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the prices, then variants with one of them or all of them changed a little."""
    changed = [prices * factor for factor in FACTORS]
    if len(prices) > 1:
        changed += [
            np.where(np.arange(len(prices)) == index, prices * factor, prices)
            for index in np.flatnonzero(prices)
            for factor in FEW_FACTORS
        ]
    return np.stack([prices, *changed])


def _extended(
    problem: Knapsack, states: _States, rows: NDArray[np.int64], room: NDArray[np.float64],
    bounding: tuple[NDArray[np.float64], NDArray[np.float64], float], kept: int,
) -> tuple[_States, float]:  # fmt: skip
    """Return every state with every option of the next group, and what was dropped of it."""
    prices, ahead, floor = bounding
    parts: list[_States] = []
    lost = -np.inf
    width = max(1, CHUNK // len(rows))
    columns = np.ascontiguousarray(states.cost.T)
    for first in range(0, len(states.value), width):
        block = slice(first, min(first + width, len(states.value)))
        # Every sum of the block with every option: (states, options), laid out flat.
        value = (states.value[block, None] + problem.value[rows]).reshape(-1)
        costs = [
            (column[block, None] + problem.cost[rows, index]).reshape(-1)
            for index, column in enumerate(columns)
        ]
        reach = _reach(value, costs, prices[0], ahead[0])
        alive = reach >= floor
        for column, most in zip(costs, room):
            alive &= column <= most
        where = np.flatnonzero(alive)
        value, reach, costs = value[where], reach[where], [column[where] for column in costs]
        for price, rest in zip(prices[1:], ahead[1:]):
            np.minimum(reach, _reach(value, costs, price, rest), out=reach)
        cost = np.stack(costs, axis=1) if costs else np.zeros((len(value), 0))
        part = _States(value, cost, reach, where // len(rows) + first, rows[where % len(rows)])
        part = part.take(reach >= floor)
        # Twice as many as may stay: most of those beaten by others are among them.
        part, dropped = _most_promising(part, 2 * kept)
        lost = max(lost, dropped)
        parts.append(part)
    merged = _States(*(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("value", "cost", "reach", "parent", "row")
    ))  # fmt: skip
    merged, dropped = _most_promising(merged, 2 * kept)
    merged = merged.take(undominated(merged.value, merged.cost))
    merged, last = _most_promising(merged, kept)
    return merged, max(lost, dropped, last)


def _reach(
    value: NDArray[np.float64], costs: list[NDArray[np.float64]], prices: NDArray[np.float64],
    ahead: float,
) -> NDArray[np.float64]:  # fmt: skip
    reach = value + ahead
    for column, price in zip(costs, prices):
        reach -= column * price
    return reach


def _most_promising(states: _States, kept: int) -> tuple[_States, float]:
    if len(states.value) <= kept:
        return states, -np.inf
    least = np.partition(states.reach, len(states.reach) - kept)[len(states.reach) - kept]
    stays = states.reach > least
    equal = np.flatnonzero(states.reach == least)
    stays[equal[: kept - int(stays.sum())]] = True
    return states.take(stays), float(states.reach[~stays].max())
