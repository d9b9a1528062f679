# SPDX-License-Identifier: Apache-2.0
"""Tables of :mod:`benchmarks.side_by_side`: at equal latency, at equal accuracy, and in all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.contenders import AUTO, LIBRARY
from benchmarks.output import spread

Row = dict[str, Any]
#: Cost and accuracy, a fraction.
Point = tuple[float, float]
COLUMNS = (
    "contender", "x budget", "test %", "int8 test %", f"int8 - {AUTO}'s", "images of the weights",
    "images in all", "forwards only", "search CPU s", "pricing CPU s", "tuning CPU s", "network",
)  # fmt: skip
ACCURACIES = {"int8_test": "int8", "test": "float"}


@dataclass(frozen=True)
class Held:
    """Contests on one network and target.

    Args:
        net: The network's name.
        target: The target's.
        original: Its ``cost``, ``test`` and ``int8_test``.
        results: By share, contender and seed; ``cost`` is the true one.
    """

    net: str
    target: str
    original: Mapping[str, float]
    results: Mapping[tuple[float, str, int], Mapping[str, Any]]

    def of(self, share: float, contender: str) -> list[Mapping[str, Any]]:
        """Return the results of all seeds that are there, in their order."""
        found = [(k[2], r) for k, r in self.results.items() if k[:2] == (share, contender)]
        return [r for _, r in sorted(found, key=lambda own: own[0]) if "refused" not in r]

    def median(self, share: float, contender: str, key: str) -> float | None:
        """Return the median of a figure; none where there is no result."""
        own = self.of(share, contender)
        return statistics.median(r[key] for r in own) if own else None

    @property
    def shares(self) -> list[float]:
        """All of them, descending."""
        return sorted({share for share, _, _ in self.results}, reverse=True)

    @property
    def contenders(self) -> list[str]:
        """All of them, in their order."""
        return list(dict.fromkeys(contender for _, contender, _ in self.results))


def equal_latency(held: Held, share: float) -> list[Row]:
    """Return one row per contender at one budget."""
    best = held.median(share, AUTO, "int8_test")
    budget = share * held.original["cost"]
    rows = []
    for contender in held.contenders:
        own = held.of(share, contender)
        row: Row = {**dict.fromkeys(COLUMNS), "contender": contender}
        if own:
            middle = statistics.median(r["int8_test"] for r in own)
            row |= {
                "x budget": spread([r["cost"] / budget for r in own]),
                "test %": spread([100 * r["test"] for r in own]),
                "int8 test %": spread([100 * r["int8_test"] for r in own]),
                f"int8 - {AUTO}'s": None if best is None else 100 * (middle - best),
                "images of the weights": spread([r["images_weights"] for r in own]),
                "images in all": spread([r["images_all"] for r in own]),
                "forwards only": spread([r["images_forward"] for r in own]),
                "search CPU s": spread([r["search_cpu_s"] for r in own]),
                "pricing CPU s": spread([r["price_cpu_s"] for r in own]),
                "tuning CPU s": spread([r["tune_cpu_s"] for r in own]),
                "network": own[0]["how"],
            }
        else:
            refused = [r["refused"] for k, r in held.results.items()
                       if k[:2] == (share, contender) and "refused" in r]  # fmt: skip
            if not refused:
                continue
            row["network"] = f"does not apply: {refused[0]}"
        rows.append(row)
    return rows


def cost_for(points: Sequence[Point], accuracy: float) -> tuple[float, str]:
    """Return the least cost at which straight lines between the points reach an accuracy.

    Returns:
        The cost and a sign: ``""`` where it is reached at or between points, ``"<"`` where the
        cheapest point is already more accurate, ``">"`` where none is as accurate (the dearest's
        cost).
    """
    ordered = sorted(points)
    if ordered[0][1] >= accuracy:
        return ordered[0][0], "<" if ordered[0][1] > accuracy else ""
    for (cheap, below), (dear, above) in pairwise(ordered):
        if above >= accuracy:
            return cheap + (dear - cheap) * (accuracy - below) / (above - below), ""
    return ordered[-1][0], ">"


def equal_accuracy(held: Held, key: str) -> list[Row]:
    """Return for every budget how auto and the best of Torch-Pruning compare at one accuracy.

    At auto's accuracy: what Torch-Pruning needs to reach it. At that of Torch-Pruning's best
    network within the budget: what auto needs.

    Args:
        held: The contests.
        key: Accuracy to compare at: ``int8_test`` or ``test``.
    """
    curves = {name: _curve(held, name, key) for name in held.contenders}
    mine = curves.pop(AUTO, [])
    library = {name: own for name, own in curves.items() if name.startswith(LIBRARY) and own}
    rows = []
    for share in held.shares:
        cost, accuracy = held.median(share, AUTO, "cost"), held.median(share, AUTO, key)
        if cost is None or accuracy is None or not library:
            continue
        needed = {name: cost_for(points, accuracy) for name, points in library.items()}
        # Where none gets there, all are slower than the original, of which that is said.
        best = min(needed, key=lambda name: (needed[name][1] == ">", needed[name][0]))
        least, sign = needed[best]
        rows.append({
            "share": share, f"{AUTO}'s cost": cost, f"{AUTO}'s {ACCURACIES[key]} %": 100 * accuracy,
            "fastest of Torch-Pruning": best if sign != ">" else "none as accurate",
            "its cost": f"{sign}{least:.4g}", f"x {AUTO}'s": f"{sign}{least / cost:.3f}",
            **_at_the_librarys(held, share, key, mine),
        })  # fmt: skip
    return rows


def _at_the_librarys(held: Held, share: float, key: str, mine: Sequence[Point]) -> Row:
    """Return at what cost auto is as accurate as Torch-Pruning's best network at a budget."""
    there = {
        name: (accuracy, cost) for name in held.contenders
        if name.startswith(LIBRARY)
        and (accuracy := held.median(share, name, key)) is not None
        and (cost := held.median(share, name, "cost")) is not None
    }  # fmt: skip
    names = ("most accurate there", f"its {ACCURACIES[key]} %", f"{AUTO}'s for that", "x that")
    if not there:
        return dict.fromkeys(names)
    best = max(there, key=lambda name: there[name])
    accuracy, cost = there[best]
    least, sign = cost_for(mine, accuracy)
    flipped = {"<": ">", ">": "<", "": ""}[sign]
    values = (best, 100 * accuracy, f"{sign}{least:.4g}", f"{flipped}{cost / least:.3f}")
    return dict(zip(names, values, strict=True))


def _curve(held: Held, contender: str, key: str) -> list[Point]:
    """Return a contender's points, and the original; nothing where it has none of its own."""
    own = [
        (cost, accuracy)
        for share in held.shares
        if (cost := held.median(share, contender, "cost")) is not None
        and (accuracy := held.median(share, contender, key)) is not None
    ]
    return [*own, (held.original["cost"], held.original[key])] if own else []


def summary(fields: Sequence[Held], key: str = "int8_test") -> list[Row]:
    """Return for each network and target at how many budgets auto is the most accurate."""
    rows = []
    for held in fields:
        leads: list[tuple[float, float, str]] = []
        for share in held.shares:
            own = held.median(share, AUTO, key)
            others = {
                name: value for name in held.contenders
                if name != AUTO and (value := held.median(share, name, key)) is not None
            }  # fmt: skip
            if own is not None and others:
                rival = max(others, key=lambda name: others[name])
                leads.append((100 * (own - others[rival]), share, rival))
        lost = [f"{points:+.2f} at {share:g} to {rival}" for points, share, rival in leads
                if points < 0]  # fmt: skip
        rows.append({
            "net": held.net, "target": held.target, "budgets": len(leads),
            f"{AUTO} is the most accurate": len(leads) - len(lost),
            "lead in points": spread([points for points, _, _ in leads]) if leads else None,
            "where it is not": "; ".join(lost) or "—",
            f"x at {AUTO}'s accuracy": _joined(held, key, f"x {AUTO}'s"),
            "x at Torch-Pruning's": _joined(held, key, "x that"),
        })  # fmt: skip
    return rows


def _joined(held: Held, key: str, column: str) -> str:
    return ", ".join(row[column] or "—" for row in equal_accuracy(held, key)) or "—"
