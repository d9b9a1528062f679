# SPDX-License-Identifier: Apache-2.0
"""``Knapsack``: a multiple-choice knapsack as flat arrays, checked, without forbidden options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate.allocation import Allocation
from chipfit.errors import BadInput, InfeasibleBudget

#: Slack that partial sums get, relative to the sizes summed; what is chosen is checked without.
ROUNDING = 1e-12

#: Sequences of numbers, or of such sequences; arrays, too.
Figures = Sequence[Any] | NDArray[Any]


@dataclass(frozen=True)
class Knapsack:
    """Choose one option of every group: the largest value with every additive cost in its budget.

    Options of all groups stand in one row after the other, those of a group together.

    Args:
        value: ``(options,)`` float64, higher is better.
        cost: ``(options, bounded)`` float64, of the resources with a finite budget.
        group: ``(options,)`` int64, ascending; every group has an option.
        option: ``(options,)`` int64, the caller's index within the group.
        budgets: ``(bounded,)`` float64.
        all_cost: ``(options, resources)`` float64, of those without a finite budget too.
        peaks: ``(options, max-type resources)`` float64; every option left is within its bound.
        names: Of the resources of ``budgets``, for messages.
    """

    value: NDArray[np.float64]
    cost: NDArray[np.float64]
    group: NDArray[np.int64]
    option: NDArray[np.int64]
    budgets: NDArray[np.float64]
    all_cost: NDArray[np.float64]
    peaks: NDArray[np.float64]
    names: tuple[str, ...]

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group[-1]) + 1

    @property
    def starts(self) -> NDArray[np.int64]:
        """``(groups,)``: row of the first option of each group."""
        return np.searchsorted(self.group, np.arange(self.groups))

    def subset(self, keep: NDArray[np.bool_]) -> Knapsack | None:
        """Return the problem with the options of a mask alone; ``None`` if a group lost all."""
        if keep.all():
            return self
        if len(np.unique(self.group[keep])) < self.groups:
            return None
        return replace(
            self, value=self.value[keep], cost=self.cost[keep], group=self.group[keep],
            option=self.option[keep], all_cost=self.all_cost[keep], peaks=self.peaks[keep],
        )  # fmt: skip

    def slack(self) -> NDArray[np.float64]:
        """Return by how much partial sums of each resource may be off, ``(bounded,)``."""
        sizes = np.maximum.reduceat(np.abs(self.cost), self.starts, axis=0).sum(axis=0)
        return ROUNDING * (sizes + np.abs(self.budgets))

    def used(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of each bounded cost over the chosen rows, correctly rounded."""
        return np.array([math.fsum(column) for column in self.cost[rows].T])

    def within(self, rows: NDArray[np.int64]) -> bool:
        """Return whether the chosen rows, ``(groups,)``, keep every budget, without any slack."""
        return bool((self.used(rows) <= self.budgets).all())

    def total(self, rows: NDArray[np.int64]) -> float:
        """Return the value of the chosen rows, correctly rounded."""
        return math.fsum(self.value[rows])

    def best_rows(self, score: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the row of each group with the largest score, the first of equals."""
        best = np.maximum.reduceat(score, self.starts)
        at_best = np.flatnonzero(score == best[self.group])
        return at_best[np.searchsorted(self.group[at_best], np.arange(self.groups))]

    def allocation(self, rows: NDArray[np.int64], bound: float, seconds: float) -> Allocation:
        """Return the chosen rows as an answer.

        Args:
            rows: ``(groups,)``.
            bound: No choice within the budgets has a larger value; at or below the value of
                ``rows``, these are optimal.
            seconds: Wall time spent.
        """
        value = self.total(rows)
        gap = max(0.0, bound - value) / max(abs(bound), abs(value), np.finfo(float).tiny)
        return Allocation(
            choice=tuple(int(index) for index in self.option[rows]),
            value=value,
            cost=tuple(math.fsum(column) for column in self.all_cost[rows].T),
            gap=gap,
            status="feasible" if gap else "optimal",
            seconds=seconds,
            maximum=tuple(float(figure) for figure in self.peaks[rows].max(axis=0)),
        )

    def infeasible(self, why: str = "") -> InfeasibleBudget:
        """Return the error that names the cheapest reachable cost of every resource."""
        least = np.minimum.reduceat(self.cost, self.starts, axis=0)
        cheapest = [math.fsum(column) for column in least.T]
        shown = ", ".join(
            f"{name}: budget {budget:.10g}, cheapest reachable {reached:.10g}"
            for name, budget, reached in zip(self.names, self.budgets, cheapest)
        )
        jointly = (np.array(cheapest) <= self.budgets).all()
        note = "; each is reachable alone, not all at once" if jointly and not why else ""
        return InfeasibleBudget(
            f"{why or 'no choice is within the budgets'} ({shown}{note})",
            "raise a budget, or offer cheaper options",
        )


def read_knapsack(
    values: Figures,
    costs: Figures,
    budgets: Figures,
    maxima: Figures | None = None,
    max_budgets: Figures | None = None,
    names: Sequence[str] | None = None,
) -> Knapsack:
    """Check a problem and write it as arrays.

    Options with a value of ``-inf``, a cost of ``inf`` or a max-type figure above its bound are
    left out: a choice within the budgets holds none of them, so a max-type bound is kept exactly.

    Raises:
        BadInput: The shapes do not agree, a figure is not a number, or a group has no option.
        InfeasibleBudget: No option of a group is within a max-type bound.
    """
    value = [np.asarray(group, dtype=np.float64).reshape(-1) for group in values]
    sizes = [len(group) for group in value]
    if not sizes or 0 in sizes:
        empty = f"group {sizes.index(0)} has no options" if sizes else "there are no groups"
        raise BadInput(f"values: {empty}", "every group needs one option at least")
    cost, limits = _columns("costs", costs, budgets, sizes)
    peaks, peak_limits = _columns(
        "maxima", () if maxima is None else maxima,
        () if max_budgets is None else max_budgets, sizes,
    )  # fmt: skip
    names = _names(names, len(limits), len(peak_limits))
    flat = np.concatenate(value)
    if np.isnan(flat).any() or np.isposinf(flat).any():
        raise BadInput("values hold NaN or +inf", "give finite values; -inf forbids an option")
    group = np.repeat(np.arange(len(sizes)), sizes)
    option = np.concatenate([np.arange(size) for size in sizes])
    allowed = ~np.isneginf(flat) & np.isfinite(cost).all(axis=1)
    _no_empty_group(allowed, group, "is forbidden by -inf or an infinite cost")
    fits = np.all(peaks <= peak_limits, axis=1)
    _check_peaks(peaks, peak_limits, allowed, fits, group, names[len(limits) :])
    keep = allowed & fits
    bounded = ~np.isposinf(limits)
    return Knapsack(
        value=flat[keep], cost=cost[keep][:, bounded], group=group[keep], option=option[keep],
        budgets=limits[bounded], all_cost=cost[keep], peaks=peaks[keep],
        names=tuple(name for name, kept in zip(names, bounded) if kept),
    )  # fmt: skip


def _columns(
    what: str, figures: Figures, limits: Figures, sizes: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    budget_name = "budgets" if what == "costs" else "max_budgets"
    bounds = np.asarray(limits, dtype=np.float64).reshape(-1)
    if len(figures) != len(bounds):
        raise BadInput(
            f"{what} has {len(figures)} resources and {budget_name} has {len(bounds)}",
            "give one budget for each resource",
        )
    columns = np.empty((sum(sizes), len(bounds)))
    for index, resource in enumerate(figures):
        groups = [np.asarray(group, dtype=np.float64).reshape(-1) for group in resource]
        if [len(group) for group in groups] != sizes:
            raise BadInput(
                f"{what}[{index}] has other groups or options than values",
                "give one figure for every option of every group",
            )
        columns[:, index] = np.concatenate(groups)
    if np.isnan(columns).any() or np.isneginf(columns).any() or np.isnan(bounds).any():
        raise BadInput(f"{what} or {budget_name} hold NaN or -inf", "give finite figures")
    return columns, bounds


def _names(names: Sequence[str] | None, additive: int, maximal: int) -> tuple[str, ...]:
    if names is None:
        made = [f"resource {index}" for index in range(additive)]
        return tuple(made + [f"maximum {index}" for index in range(maximal)])
    if len(names) != additive + maximal:
        raise BadInput(
            f"names has {len(names)} entries for {additive + maximal} resources",
            "name the additive resources, then the max-type ones",
        )
    return tuple(names)


def _no_empty_group(allowed: NDArray[np.bool_], group: NDArray[np.int64], why: str) -> None:
    missing = np.setdiff1d(group, group[allowed])
    if len(missing):
        raise BadInput(f"every option of group {missing[0]} {why}", "allow one at least")


def _check_peaks(
    peaks: NDArray[np.float64], limits: NDArray[np.float64], allowed: NDArray[np.bool_],
    fits: Any, group: NDArray[np.int64], names: Sequence[str],
) -> None:  # fmt: skip
    missing = np.setdiff1d(group, group[allowed & fits])
    if not len(missing):
        return
    starts = np.searchsorted(group, np.arange(group[-1] + 1))
    open_peaks = np.where(allowed[:, None], peaks, np.inf)
    reachable = np.minimum.reduceat(open_peaks, starts, axis=0).max(axis=0)
    shown = ", ".join(
        f"{name}: bound {limit:.10g}, smallest reachable {least:.10g}"
        for name, limit, least in zip(names, limits, reachable)
    )
    raise InfeasibleBudget(
        f"no option of group {missing[0]} is within the max-type bounds ({shown})",
        "raise the bound, or offer cheaper options",
    )
