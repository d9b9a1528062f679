# SPDX-License-Identifier: Apache-2.0
"""The best patterns within a budget: exact where they can be enumerated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Values = NDArray[np.float64]
CostFunction = Callable[[Codes], Values]

#: Up to this many patterns all are looked at.
ENUMERATED = 1 << 20
_CHUNK = 1 << 16


def best_within(
    scores: Sequence[Values],
    costs: Mapping[str, CostFunction],
    limits: Mapping[str, float],
    count: int = 1,
) -> Codes:
    """Return the patterns of highest total score whose costs are within the limits, best first.

    Up to :data:`ENUMERATED` patterns the answer is exact. Beyond that, prices of the resources are
    searched for at which the best pattern is within the limits (Lagrangian relaxation), and the
    pattern is improved by exchanging one or two options at a time.

    Args:
        scores: By choice, the score of each option, higher is better; ``-inf`` forbids one.
        costs: By resource, from patterns ``(N, choices)`` to costs ``(N,)``.
        limits: By resource.
        count: Patterns wanted at most.

    Returns:
        ``(found, choices)`` option indices; none where nothing is within the limits. Equal scores
        go to the lower cost of the first resource.
    """
    allowed = [np.flatnonzero(np.isfinite(s)) for s in scores]
    if math.prod(len(a) for a in allowed) <= ENUMERATED:
        blocks: Iterator[Codes] = _all_patterns(allowed)
    else:
        blocks = iter([_searched(scores, allowed, costs, limits)])
    best = np.empty((0, len(scores)), np.int64)
    for codes in blocks:
        inside = np.ones(len(codes), bool)
        for key, limit in limits.items():
            inside[inside] &= costs[key](codes[inside]) <= limit
        merged = np.concatenate([best, codes[inside]])
        if len(merged):
            first = next(iter(limits), None)
            price = costs[first](merged) if first else np.zeros(len(merged))
            order = np.lexsort((price, -np.round(_total(scores, merged), 9)))
            best = merged[order[:count]]
    return best


def cheapest_within_reach(sizes: Sequence[int], cost: CostFunction) -> Codes:
    """Return the pattern ``(choices,)`` of least cost: exactly, or by descent where too many."""
    if math.prod(sizes) <= ENUMERATED:
        found = [
            codes[np.argmin(cost(codes))] for codes in _all_patterns([np.arange(s) for s in sizes])
        ]
        rows = np.stack(found)
        return rows[np.argmin(cost(rows))]
    none = [np.zeros(size) for size in sizes]
    allowed = [np.arange(size) for size in sizes]
    start = np.zeros((1, len(sizes)), np.int64)
    return _descend(start, none, allowed, {"": cost}, {"": 0.0}, 1.0, {"": 1.0})[0]


def _total(scores: Sequence[Values], codes: Codes) -> Values:
    total = np.zeros(len(codes))
    for b, own in enumerate(scores):
        total += own[codes[:, b]]
    return total


def _all_patterns(allowed: Sequence[NDArray[np.int64]]) -> Iterator[Codes]:
    sizes = tuple(len(a) for a in allowed)
    size = math.prod(sizes)
    for start in range(0, size, _CHUNK):
        index = np.unravel_index(np.arange(start, min(size, start + _CHUNK)), sizes)
        yield np.stack([a[i] for a, i in zip(allowed, index, strict=True)], axis=1)


def _searched(
    scores: Sequence[Values], allowed: Sequence[NDArray[np.int64]],
    costs: Mapping[str, CostFunction], limits: Mapping[str, float],
) -> Codes:  # fmt: skip
    """Return patterns met on the way to a good one, many of them within the limits."""
    start = np.array([[a[np.argmax(s[a])] for s, a in zip(scores, allowed, strict=True)]])
    excess = {key: float(costs[key](start)[0]) - limit for key, limit in limits.items()}
    scale = {key: max(abs(limit), 1e-12) for key, limit in limits.items()}
    reach = max(float(np.ptp(s[a])) for s, a in zip(scores, allowed, strict=True)) + 1e-6
    met = [start]
    low, high = 0.0, 1e4 * reach
    price = 0.0 if max(excess.values(), default=0.0) <= 0 else high
    for _ in range(24):
        found = _descend(start, scores, allowed, costs, limits, price, scale)
        met.append(found)
        over = any(costs[key](found)[0] > limit for key, limit in limits.items())
        low, high = (price, high) if over else (low, price)
        price = math.sqrt(max(low, 1e-6 * reach) * high) if high > 0 else 0.0

    def excess_of(codes: Codes) -> Values:
        over = [np.maximum(0.0, costs[k](codes) - v) / scale[k] for k, v in limits.items()]
        return np.sum(over, axis=0) if over else np.zeros(len(codes))

    rows = np.unique(np.concatenate(met), axis=0)
    ends = []
    for row in rows[np.argsort(excess_of(rows))][:4]:
        ends.append(_improved(row[None], scores, allowed, excess_of))
    return np.concatenate(ends)


def _improved(
    row: Codes, scores: Sequence[Values], allowed: Sequence[NDArray[np.int64]],
    excess_of: CostFunction,
) -> Codes:  # fmt: skip
    """Exchange one or two options at a time: first towards the limits, then for the score.

    Returns the neighbours of the end too, of which the best are the next best patterns.
    """
    while True:
        near = np.concatenate([row, _neighbours(row, allowed)])
        order = np.lexsort((-_total(scores, near), np.maximum(excess_of(near), 0.0)))
        if order[0] == 0 or (near[order[0]] == row[0]).all():
            return near
        row = near[order[0]][None]


def _descend(
    row: Codes, scores: Sequence[Values], allowed: Sequence[NDArray[np.int64]],
    costs: Mapping[str, CostFunction], limits: Mapping[str, float], price: float,
    scale: Mapping[str, float],
) -> Codes:  # fmt: skip
    """Change one option after the other while score minus priced cost rises."""

    def value(codes: Codes) -> Values:
        paid = sum(costs[key](codes) / scale[key] for key in limits)
        return _total(scores, codes) - price * paid

    for _ in range(20):
        before = row.copy()
        for b, own in enumerate(allowed):
            tries = np.repeat(row, len(own), axis=0)
            tries[:, b] = own
            row = tries[np.argmax(value(tries))][None]
        if (row == before).all():
            break
    return row


def _neighbours(row: Codes, allowed: Sequence[NDArray[np.int64]]) -> Codes:
    """Return the patterns that differ from ``row`` in one or two options."""
    moves = [(b, int(o)) for b, own in enumerate(allowed) for o in own if o != row[0, b]]
    rows = []
    for i, (b, o) in enumerate(moves):
        one = row[0].copy()
        one[b] = o
        rows.append(one)
        for c, p in moves[i + 1 :]:
            if c != b:
                two = one.copy()
                two[c] = p
                rows.append(two)
    return np.array(rows or [row[0]], np.int64)
