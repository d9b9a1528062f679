# SPDX-License-Identifier: Apache-2.0
"""The Pareto front of a family, the axes to show it on, and the member to put forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chipfit.errors import BadInput
from chipfit.report.data import Member, RunData
from chipfit.report.quantity import quantity

_METRICS = ("int8_test_accuracy", "test_accuracy", "val_accuracy")
_COSTS = (
    "latency_ms", "cycles", "macs", "params", "weight_bytes", "peak_sram_bytes", "flash_bytes",
    "energy_mj", "cpu_latency_ms",
)  # fmt: skip


def pareto_front(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Return the indices of the points that no other point dominates, in their order.

    A point dominates another that it is at least as good as everywhere and better than
    somewhere; of equal points none dominates the other.

    Args:
        points: Any number of points, each with one figure per direction.
        directions: ``"min"`` or ``"max"`` for each figure.

    Raises:
        BadInput: A direction is neither, or a point has another length.

    >>> pareto_front([(1.0, 0.8), (2.0, 0.9), (3.0, 0.9)], ("min", "max"))
    [0, 1]
    """
    unknown = set(directions) - {"min", "max"}
    if unknown:
        raise BadInput(f"directions are 'min' or 'max', not {sorted(unknown)}")
    if any(len(point) != len(directions) for point in points):
        raise BadInput(f"every point needs {len(directions)} figures, one per direction")
    signs = [1.0 if direction == "min" else -1.0 for direction in directions]
    costs = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points]
    # In lexicographic order whatever dominates a point comes before it.
    kept: list[int] = []
    for i in sorted(range(len(costs)), key=lambda index: costs[index]):
        if not any(_dominates(costs[j], costs[i]) for j in kept):
            kept.append(i)
    return sorted(kept)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def metric_keys(run: RunData) -> list[str]:
    """Return the metrics that a member has, the ones to look at first in front."""
    return _present(_METRICS, [m.metrics for m in run.members])


def cost_keys(run: RunData) -> list[str]:
    """Return the costs that a member has, ``cpu_latency_ms`` included."""
    values = [{k: v for k, v in m.values.items() if k not in m.metrics} for m in run.members]
    return _present(_COSTS, values)


def _present(preferred: Sequence[str], values: Sequence[Mapping[str, float]]) -> list[str]:
    found = dict.fromkeys(key for item in values for key in item)
    first = [key for key in preferred if key in found]
    return first + [key for key in found if key not in preferred]


def default_axes(run: RunData) -> tuple[str, str] | None:
    """Return the ``(metric, cost)`` to show first; ``None`` where no member has both.

    The metric is the one that most members have (before the test split was read that is a
    validation metric), the cost is the first key of the budget, else latency.
    """
    metrics, costs = metric_keys(run), cost_keys(run)
    if not metrics or not costs:
        return None
    metric = max(metrics, key=lambda key: sum(key in m.metrics for m in run.members))
    cost = next((key for key in run.budget if key in costs), costs[0])
    return metric, cost


def front(run: RunData, metric: str, cost: str) -> list[Member]:
    """Return the members on the Pareto front of two figures; members without both are left out."""
    members = [m for m in run.members if metric in m.values and cost in m.values]
    points = [(m.values[cost], m.values[metric]) for m in members]
    directions = (quantity(cost).direction, quantity(metric, metric=True).direction)
    return [members[i] for i in pareto_front(points, directions)]


def choosing_metric(run: RunData) -> str | None:
    """Return the metric that :func:`best` goes by: of the validation split wherever possible."""
    keys = metric_keys(run)
    validation = [key for key in keys if key.startswith("val_") and not key.endswith("loss")]
    return next(iter(validation or keys), None)


def best(run: RunData) -> Member | None:
    """Return the member to put forward: the best of those within the budget.

    Where none is within the budget it is the one that exceeds it least; without a budget it is
    the best member besides the original. ``None`` where there is nothing to choose from.
    """
    metric = choosing_metric(run)
    members = [m for m in run.members if metric is not None and metric in m.metrics]
    if metric is None or not members:
        return None
    sign = 1.0 if quantity(metric, metric=True).direction == "max" else -1.0

    def score(member: Member) -> float:
        return sign * member.metrics[metric]

    if not run.budget:
        return max([m for m in members if m is not run.original] or members, key=score)
    within = [m for m in members if run.meets_budget(m)]
    if within:
        return max(within, key=score)
    judged = [m for m in members if all(key in m.cost for key in run.budget)]
    if not judged:
        return None
    return min(judged, key=lambda m: max(m.cost[k] / max(b, 1e-12) for k, b in run.budget.items()))
