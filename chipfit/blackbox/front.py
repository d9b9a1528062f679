# SPDX-License-Identifier: Apache-2.0
"""Sets of points with several objectives, all of them minimised: fronts, crowding, hypervolume.

Whatever is to be maximised is negated first, by :func:`as_costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chipfit.errors import BadInput

Direction = Literal["min", "max"]
Costs = NDArray[np.float64]


def as_costs(values: ArrayLike, directions: Sequence[Direction]) -> Costs:
    """Return points ``(N, objectives)`` with what is maximised negated, so that less is better.

    Args:
        values: ``(N, objectives)``.
        directions: ``"min"`` or ``"max"`` of each objective.

    Raises:
        BadInput: A direction is neither, a value is not finite, or the shape does not fit.

    >>> as_costs([[0.9, 3.0]], ("max", "min")).tolist()
    [[-0.9, 3.0]]
    """
    unknown = sorted(set(directions) - {"min", "max"})
    if unknown or not directions:
        raise BadInput(f"directions are 'min' or 'max', at least one, not {unknown}")
    points = np.asarray(values, np.float64).reshape(-1, len(directions))
    if not np.isfinite(points).all():
        raise BadInput("an objective is not a finite number", "tell a violation instead")
    return points * np.array([1.0 if d == "min" else -1.0 for d in directions])


def non_dominated(costs: ArrayLike) -> NDArray[np.int64]:
    """Return the indices of the points that no other point dominates, ascending.

    A point dominates another that it is nowhere worse than and somewhere better than; of equal
    points none dominates the other.

    Args:
        costs: ``(N, objectives)``, minimised.

    >>> non_dominated([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]]).tolist()
    [0, 1]
    """
    points = _points(costs)
    kept: list[int] = []
    front = np.empty_like(points)
    # In lexicographic order whatever dominates a point comes before it.
    for i in np.lexsort(points.T[::-1]):
        own = front[: len(kept)]
        if not ((own <= points[i]).all(axis=1) & (own < points[i]).any(axis=1)).any():
            front[len(kept)] = points[i]
            kept.append(int(i))
    return np.array(sorted(kept), np.int64)


def ranks(costs: ArrayLike, violations: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the front that each point belongs to, ``(N,)``; 0 is the non-dominated one.

    The fast non-dominated sort of Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm:
    NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002, section III-A, in memory
    quadratic in the number of points. With violations it is their constrained-domination (section
    VI, definition 1): a feasible point dominates every infeasible one, of two infeasible ones that
    of the smaller violation dominates, whatever their objectives are.

    Args:
        costs: ``(N, objectives)``, minimised.
        violations: ``(N,)``, 0 where a point is feasible; all are where ``None``.
    """
    points = _points(costs)
    over = np.zeros(len(points)) if violations is None else np.asarray(violations, np.float64)
    if over.shape != (len(points),) or not (over >= 0).all():
        raise BadInput(f"violations of shape {over.shape}, one of at least 0 per point is needed")
    one, other = points[:, None], points[None]
    better = (one <= other).all(axis=2) & (one < other).any(axis=2)
    both_feasible = (over[:, None] == 0) & (over[None] == 0)
    dominates = np.where(both_feasible, better, over[:, None] < over[None])
    found = np.full(len(points), -1, np.int64)
    dominators = dominates.sum(axis=0)
    rank = 0
    while (found < 0).any():
        front = np.flatnonzero((dominators == 0) & (found < 0))
        found[front] = rank
        dominators = dominators - dominates[front].sum(axis=0)
        rank += 1
    return found


def crowding_distance(costs: ArrayLike) -> Costs:
    """Return how far each point of one front lies from its neighbours, ``(N,)``; more is lonelier.

    Deb et al. 2002, section III-B: the sum over objectives of the distance between the next lower
    and the next higher point, as a share of the range; infinite for the ends of every objective. An
    objective in which all points are equal adds nothing.

    Args:
        costs: ``(N, objectives)``.
    """
    points = _points(costs)
    found = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        low, high = values[order[0]], values[order[-1]]
        if low == high:
            continue
        found[order[[0, -1]]] = np.inf
        found[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / (high - low)
    # A front of equal points has no ends.
    return found if len(points) > 2 else np.full(len(points), np.inf)


def hypervolume(costs: ArrayLike, reference: Sequence[float]) -> float:
    """Return the exact volume that the points dominate up to a reference point; more is better.

    Points that are not better than the reference in every objective add nothing.

    Args:
        costs: ``(N, objectives)``, minimised, of two or three objectives.
        reference: One bound per objective.

    Raises:
        BadInput: There are fewer or more objectives, or the shapes do not fit.

    >>> hypervolume([[1.0, 2.0], [2.0, 1.0]], (3.0, 3.0))
    3.0
    """
    bound = np.asarray(reference, np.float64)
    if bound.shape not in ((2,), (3,)):
        raise BadInput(f"hypervolume of {bound.size} objectives; it is made for two or three")
    points = np.asarray(costs, np.float64).reshape(-1, bound.size)
    points = points[(points < bound).all(axis=1)]
    if not len(points):
        return 0.0
    return _area(points, bound) if bound.size == 2 else _volume(points, bound)


def _area(points: Costs, bound: Costs) -> float:
    total, top = 0.0, float(bound[1])
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))]:
        if y < top:
            total += (float(bound[0]) - float(x)) * (top - float(y))
            top = float(y)
    return total


def _volume(points: Costs, bound: Costs) -> float:
    """Cut along the third objective: between two of its values the cross-section is constant."""
    levels = np.unique(points[:, 2])
    thickness = np.diff(np.append(levels, bound[2]))
    sections = (_area(points[points[:, 2] <= level, :2], bound[:2]) for level in levels)
    return float(sum(area * depth for area, depth in zip(sections, thickness, strict=True)))


def _points(costs: Any) -> Costs:
    points = np.asarray(costs, np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise BadInput(f"costs of shape {points.shape}, finite ones per point and objective needed")
    return points
