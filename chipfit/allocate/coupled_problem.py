# SPDX-License-Identifier: Apache-2.0
"""``CoupledProblem``: options with values of their own and costs that only whole choices have."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chipfit.allocate.allocation import Allocation
from chipfit.allocate.knapsack import Figures
from chipfit.errors import BadInput

#: Choices that ``cost_of`` is asked about at once.
BATCH = 20_000
#: Moves of two groups whose true cost is asked for in one step, unless told otherwise.
PAIRS = 4000
#: What stands for an infinite cost, so that differences of two are numbers.
UNBUILDABLE = 1e100


@dataclass(frozen=True)
class CoupledProblem:
    """Choose one option of every group; what a choice costs depends on all of it.

    Args:
        value: ``(options,)`` float64, higher is better; forbidden options are left out.
        group: ``(options,)`` int64, ascending.
        option: ``(options,)`` int64, the caller's index within the group.
        cost_of: From codes ``(N, groups)`` int64, the caller's indexes, to ``(N, resources)``.
        budgets: ``(resources,)`` float64.
        maximum: ``(resources,)`` bool: the largest of several figures, not a sum.
        names: Of the resources.
        deadline: Of :func:`time.monotonic`.
        pairs: Moves of two groups whose true cost is asked for in one step, at most.
    """

    value: NDArray[np.float64]
    group: NDArray[np.int64]
    option: NDArray[np.int64]
    cost_of: Callable[[NDArray[np.int64]], ArrayLike]
    budgets: NDArray[np.float64]
    maximum: NDArray[np.bool_]
    names: tuple[str, ...]
    deadline: float
    pairs: int = PAIRS

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group[-1]) + 1

    @property
    def starts(self) -> NDArray[np.int64]:
        """``(groups,)``: row of the first option of each group."""
        return np.searchsorted(self.group, np.arange(self.groups))

    def late(self) -> bool:
        """Return whether the time is up."""
        return time.monotonic() >= self.deadline

    def costs(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the true costs ``(N, resources)`` of choices given as rows ``(N, groups)``."""
        codes = self.option[rows]
        parts = []
        for first in range(0, len(codes), BATCH):
            part = np.asarray(self.cost_of(codes[first : first + BATCH]), dtype=np.float64)
            wanted = (len(codes[first : first + BATCH]), len(self.budgets))
            if part.shape != wanted:
                raise BadInput(
                    f"cost_of returned {part.shape} for codes {codes[first : first + BATCH].shape}",
                    f"return (choices, resources), here {wanted}",
                )
            parts.append(part)
        costs = np.concatenate(parts)
        if np.isnan(costs).any():
            raise BadInput("cost_of returned NaN", "return inf for what cannot be built")
        return np.minimum(costs, UNBUILDABLE)

    def changed(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the true costs ``(options, resources)`` with one group changed to each option."""
        moved = np.tile(rows, (len(self.value), 1))
        moved[np.arange(len(self.value)), self.group] = np.arange(len(self.value))
        return self.costs(moved)

    def excess(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by what share of the budgets costs ``(N, resources)`` exceed them, ``(N,)``."""
        unit = np.where(self.budgets != 0, np.abs(self.budgets), 1.0)
        return (np.maximum(costs - self.budgets, 0.0) / unit).sum(axis=1)

    def total(self, rows: NDArray[np.int64]) -> float:
        """Return the value of one choice."""
        return math.fsum(self.value[rows])

    def best_rows(self, score: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the row of each group with the largest score, the first of equals."""
        best = np.maximum.reduceat(score, self.starts)
        at_best = np.flatnonzero(score == best[self.group])
        return at_best[np.searchsorted(self.group[at_best], np.arange(self.groups))]

    def allocation(self, rows: NDArray[np.int64], seconds: float) -> Allocation:
        """Return one choice as an answer; the gap is to the best values without any budget."""
        value = self.total(rows)
        bound = self.total(self.best_rows(self.value))
        gap = max(0.0, bound - value) / max(abs(bound), abs(value), np.finfo(float).tiny)
        cost = self.costs(rows[None])[0]
        return Allocation(
            choice=tuple(int(index) for index in self.option[rows]), value=value,
            cost=tuple(float(figure) for figure in cost), gap=gap,
            status="feasible" if gap else "optimal", seconds=seconds,
        )  # fmt: skip


def read_coupled(
    values: Figures, cost_of: Callable[[NDArray[np.int64]], ArrayLike],
    budgets: Figures, maximum: Sequence[int], names: Sequence[str] | None, deadline: float,
) -> CoupledProblem:  # fmt: skip
    """Check a problem with coupled costs.

    Raises:
        BadInput: A group has no option, or a figure is not a number.
    """
    groups = [np.asarray(group, dtype=np.float64).reshape(-1) for group in values]
    limits = np.asarray(budgets, dtype=np.float64).reshape(-1)
    if not groups or np.isnan(limits).any():
        raise BadInput("there are no groups, or a budget is NaN", "give values and budgets")
    flat = np.concatenate(groups)
    if np.isnan(flat).any() or np.isposinf(flat).any():
        raise BadInput("values hold NaN or +inf", "give finite values; -inf forbids an option")
    if not set(maximum) <= set(range(len(limits))):
        raise BadInput(
            f"maximum {tuple(maximum)} for {len(limits)} resources", "indexes count from 0"
        )
    if names is not None and len(names) != len(limits):
        raise BadInput(f"{len(names)} names for {len(limits)} resources", "name each")
    sizes = [len(group) for group in groups]
    group = np.repeat(np.arange(len(groups)), sizes)
    option = np.concatenate([np.arange(size) for size in sizes])
    allowed = ~np.isneginf(flat)
    missing = np.setdiff1d(np.arange(len(groups)), group[allowed])
    if len(missing):
        raise BadInput(f"group {missing[0]} has no allowed option", "allow one at least")
    return CoupledProblem(
        value=flat[allowed], group=group[allowed], option=option[allowed], cost_of=cost_of,
        budgets=np.minimum(limits, UNBUILDABLE / 2),
        maximum=np.isin(np.arange(len(limits)), list(maximum)),
        names=tuple(names or (f"resource {index}" for index in range(len(limits)))),
        deadline=deadline,
    )  # fmt: skip
