# SPDX-License-Identifier: Apache-2.0
"""``ChainTable``: prices of choices along a chain, learned from networks compiled whole."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput, InfeasibleBudget

#: Option indices, one per place of the chain.
Row = tuple[int, ...]
#: Weights of squared prices against the mean squared error: unseen options cost the average, and
#: neighbours cost nothing where few networks were seen.
_RIDGE, _RIDGE_NEAR = 1e-3, 0.1
#: Observations of a pair of neighbours that count as much as what single options tell.
_PRIOR = 0.25


@dataclass
class ChainTable:
    """What the place ``i`` of a chain costs, by its own option and those of both neighbours.

    The charge of a place is modelled as ``u[own] + v[previous] + w[next] + r[previous, own]``: the
    first three by least squares over all networks seen, ``r`` as the mean of what they leave,
    shrunk where a pair was seen rarely. The cheapest chain is then an integer program.

    Args:
        sizes: Numbers of options of every place.
    """

    sizes: tuple[int, ...]
    _rows: list[Row] = field(default_factory=list)
    _charges: list[NDArray[np.float64]] = field(default_factory=list)
    _single: list[NDArray[np.float64]] = field(default_factory=list)
    _pair: list[NDArray[np.float64]] = field(default_factory=list)
    _fixed: float = 0.0

    def learn(self, row: Row, charges: Sequence[float], fixed: float) -> None:
        """Take in a network.

        Args:
            row: Its options.
            charges: What every place of it was charged.
            fixed: What was charged to none.

        Raises:
            BadInput: It does not have the chain's places.
        """
        if len(row) != len(self.sizes) or len(charges) != len(self.sizes):
            raise BadInput(f"{len(row)} options and {len(charges)} charges, {len(self.sizes)} due")
        self._rows.append(tuple(row))
        self._charges.append(np.append(np.asarray(charges, np.float64), fixed))

    def fit(self) -> None:
        """Bring the prices up to date with all networks seen."""
        if not self._rows:
            raise BadInput("no network was learned from")
        rows, charges = np.array(self._rows), np.array(self._charges)
        self._fixed = float(charges[:, -1].mean())
        self._single = [np.zeros(size) for size in self.sizes]
        self._pair = [np.zeros(pair) for pair in pairwise(self.sizes)]
        for place in range(len(self.sizes)):
            self._fit_place(place, rows, charges[:, place])

    def _fit_place(self, place: int, rows: NDArray[np.int64], charge: NDArray[np.float64]) -> None:
        near = [i for i in (place, place - 1, place + 1) if 0 <= i < len(self.sizes)]
        coded = [np.eye(self.sizes[i])[rows[:, i]] for i in near]
        design = np.hstack(coded)
        mean = float(charge.mean())
        ridge = np.full(design.shape[1], _RIDGE_NEAR)
        ridge[: self.sizes[place]] = _RIDGE
        gram = design.T @ design + len(rows) * np.diag(ridge)
        weights = np.linalg.solve(gram, design.T @ (charge - mean))
        parts = np.split(weights, np.cumsum([self.sizes[i] for i in near])[:-1])
        left = charge - mean - design @ weights
        self._single[place] += mean + parts[0]
        for i, part in zip(near[1:], parts[1:], strict=True):
            if i < place:
                self._pair[i] += part[:, None]
            else:
                self._pair[place] += part[None, :]
        if place == 0:
            return
        shape = self._pair[place - 1].shape
        where = np.ravel_multi_index((rows[:, place - 1], rows[:, place]), shape)
        count = np.bincount(where, minlength=math.prod(shape)).reshape(shape)
        total = np.bincount(where, left, minlength=math.prod(shape)).reshape(shape)
        self._pair[place - 1] += total / (count + _PRIOR)

    def predict(self, row: Row) -> float:
        """Return the predicted cost of a chain, in the unit of its charges."""
        total = self._fixed
        for place, option in enumerate(row):
            total += float(self._single[place][option])
            if place:
                total += float(self._pair[place - 1][row[place - 1], option])
        return total

    def cheapest(
        self,
        amounts: Mapping[str, Sequence[Sequence[float]]],
        floors: Mapping[str, float],
        without: Collection[Row] = (),
        seconds: float = 60.0,
    ) -> tuple[Row, float, float]:
        """Return the chain of least predicted cost, what it costs, and the bound that was proven.

        The program has one binary variable per place and option and one continuous variable per
        place and pair of neighbours (a flow); HiGHS solves it to optimality, unless time runs out.

        Args:
            amounts: By resource, what every option of every place has of it.
            floors: Least sum of each resource.
            without: Chains that must not be returned.
            seconds: Time limit of the solver.

        Raises:
            InfeasibleBudget: No chain meets the floors.
        """
        program = _Program(self.sizes)
        program.couple()
        for resource, floor in floors.items():
            values = np.concatenate([np.asarray(own, np.float64) for own in amounts[resource]])
            program.at_least(values, floor)
        for row in without:
            program.exclude(row)
        row, bound = program.solve(self._single, self._pair, seconds)
        return row, self.predict(row), bound + self._fixed


class _Program:
    """The integer program of a chain: binaries of all places first, then the flows of pairs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)
        self._start = np.concatenate([[0], np.cumsum(sizes)])
        self._binaries = int(self._start[-1])
        flows = [a * b for a, b in pairwise(sizes)]
        self._flow = self._binaries + np.concatenate([[0], np.cumsum(flows)])
        self._count = int(self._flow[-1])
        self._lines: list[tuple[NDArray[np.int64], NDArray[np.float64], float, float]] = []

    def _add(
        self,
        columns: Sequence[int],
        values: Sequence[float] | NDArray[np.float64],
        low: float,
        high: float,
    ) -> None:
        self._lines.append((np.array(columns), np.array(values, np.float64), low, high))

    def couple(self) -> None:
        """Let every place take one option, and flows agree with both their ends."""
        for place, size in enumerate(self._sizes):
            first = int(self._start[place])
            self._add(range(first, first + size), np.ones(size), 1, 1)
        for place, (a, b) in enumerate(pairwise(self._sizes)):
            flow = np.arange(a * b).reshape(a, b) + int(self._flow[place])
            for i in range(a):
                self._add([*flow[i], int(self._start[place]) + i], [*[1] * b, -1], 0, 0)
            for j in range(b):
                self._add([*flow[:, j], int(self._start[place + 1]) + j], [*[1] * a, -1], 0, 0)

    def at_least(self, values: NDArray[np.float64], floor: float) -> None:
        """Bound a sum over the options taken from below."""
        scale = max(float(np.abs(values).max()), 1e-12)
        self._add(range(self._binaries), values / scale, floor / scale, np.inf)

    def exclude(self, row: Row) -> None:
        """Forbid one chain."""
        taken = [int(self._start[place]) + option for place, option in enumerate(row)]
        self._add(taken, np.ones(len(row)), -np.inf, len(row) - 1)

    def solve(
        self, single: Sequence[NDArray[np.float64]], pair: Sequence[NDArray[np.float64]],
        seconds: float,
    ) -> tuple[Row, float]:  # fmt: skip
        """Return the cheapest chain and the solver's lower bound."""
        from scipy import sparse
        from scipy.optimize import Bounds, LinearConstraint, milp

        cost = np.concatenate([*single, *(table.ravel() for table in pair)])
        scale = float(np.abs(cost).max()) or 1.0
        rows = np.repeat(np.arange(len(self._lines)), [len(line[0]) for line in self._lines])
        columns = np.concatenate([line[0] for line in self._lines])
        values = np.concatenate([line[1] for line in self._lines])
        matrix = sparse.csr_matrix((values, (rows, columns)), (len(self._lines), self._count))
        low, high = (np.array([line[i] for line in self._lines]) for i in (2, 3))
        integral = np.zeros(self._count)
        integral[: self._binaries] = 1
        found = milp(
            cost / scale, integrality=integral, bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, low, high),
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )  # fmt: skip
        if found.x is None:
            raise InfeasibleBudget(
                f"no pattern meets all floors ({found.message})", "lower a floor, or add options"
            )
        row = tuple(
            int(np.argmax(found.x[self._start[i] : self._start[i + 1]]))
            for i in range(len(self._sizes))
        )
        return row, float(found.mip_dual_bound) * scale
