# SPDX-License-Identifier: Apache-2.0
"""The exact search over widths and depths: an integer program over a :class:`Chain`.

One binary per stage and width, one whole number per stage and width for the depth (0 where the
width is not taken), and a flow between the widths of neighbouring stages for what the two cost
together. Every figure is linear in these, so any of them can be minimised or bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chipfit.space.chain import Chain, Figure

Array = NDArray[np.float64]
#: HiGHS stops within 1e-6 of the optimum; objectives are scaled so that this means nothing.
_OBJECTIVE_SCALE = 1e3


@dataclass(frozen=True)
class Question:
    """What is asked of a chain.

    Args:
        minimise: Name of a figure.
        at_least: Lower bounds by name.
        at_most: Upper bounds by name.
        depths: Least and largest depth of each stage.
        sign: -1 to maximise instead.
    """

    minimise: str
    depths: tuple[tuple[int, int], ...]
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    sign: int = 1


@dataclass(frozen=True)
class Answer:
    """A network of the chain with its figures by name."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    figures: Mapping[str, float]


def solve(chain: Chain, question: Question, count: int = 1) -> list[Answer]:
    """Return the best networks, best first, each of other widths than those before it.

    Ties are broken by the solver.

    Args:
        chain: Widths to choose from and the figures.
        question: Objective and bounds.
        count: How many at most; fewer where no more meet the bounds, none where none does.
    """
    program = _Program(chain, question)
    found: list[Answer] = []
    while len(found) < count:
        answer = program.solve()
        if answer is None:
            break
        found.append(answer)
        program.exclude(answer.widths)
    return found


class _Program:
    """Variables: choice of a width (u), depth at that width (d), flows between widths (y)."""

    def __init__(self, chain: Chain, question: Question) -> None:
        self._chain, self._question = chain, question
        sizes = [len(grid) for grid in chain.grids]
        self._u, at = _blocks(sizes, 0)
        self._d, at = _blocks(sizes, at)
        self._y, self._count = _blocks([a * b for a, b in pairwise(sizes)], at)
        self._excluded: list[Array] = []
        self._tight: dict[str, float] = {}

    def exclude(self, widths: Sequence[int]) -> None:
        """Forbid one combination of widths."""
        row = np.zeros(self._count)
        for s, width in enumerate(widths):
            row[self._u[s].start + self._chain.grids[s].index(width)] = 1
        self._excluded.append(row)

    def solve(self) -> Answer | None:
        """Return the best network that is left, ``None`` where none meets the bounds."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        question = self._question
        costs = question.sign * self._row(self._chain.figures[question.minimise])
        scale = float(np.abs(costs).max()) or 1.0
        integrality = np.zeros(self._count)
        integrality[: self._y[0].start if self._y else self._count] = 1
        upper = np.ones(self._count)
        for s, (_, most) in enumerate(question.depths):
            upper[self._d[s]] = most
        for _ in range(8):
            rows, low, high = self._constraints()
            solution = milp(
                costs / scale * _OBJECTIVE_SCALE,
                integrality=integrality,
                bounds=Bounds(np.zeros(self._count), upper),
                constraints=LinearConstraint(rows, low, high),
                options={"mip_rel_gap": 0.0},
            )
            if solution.x is None:
                return None
            answer = self._read(solution.x)
            if not self._tighten(answer):
                return answer
        return None

    def _tighten(self, answer: Answer) -> bool:
        """Note the bounds that an answer misses by the solver's tolerance; they are moved by it."""
        missed = [
            name for name, bound in (*self._question.at_least.items(),
                                     *self._question.at_most.items())
            if (name in self._question.at_least and answer.figures[name] < bound * (1 - 1e-12))
            or (name in self._question.at_most and answer.figures[name] > bound * (1 + 1e-12))
        ]  # fmt: skip
        for name in missed:
            self._tight[name] = 4 * self._tight.get(name, 5e-7)
        return bool(missed)

    def _constraints(self) -> tuple[object, Array, Array]:
        from scipy.sparse import csr_matrix, vstack

        rows: list[object] = []
        lows: list[float] = []
        highs: list[float] = []

        def add(row: object, low: float, high: float) -> None:
            rows.append(row)
            lows.append(low)
            highs.append(high)

        for s, (least, most) in enumerate(self._question.depths):
            one = np.zeros(self._count)
            one[self._u[s]] = 1
            add(csr_matrix(one), 1, 1)
            for i in range(len(self._chain.grids[s])):
                u, d = self._u[s].start + i, self._d[s].start + i
                add(self._sparse([d, u], [1, -least]), 0, np.inf)
                add(self._sparse([d, u], [1, -most]), -np.inf, 0)
        for s, flow in enumerate(self._y):
            before, after = len(self._chain.grids[s]), len(self._chain.grids[s + 1])
            places = np.arange(flow.start, flow.stop).reshape(before, after)
            for i in range(before):
                own = [*places[i], self._u[s].start + i]
                add(self._sparse(own, [1] * after + [-1]), 0, 0)
            for j in range(after):
                own = [*places[:, j], self._u[s + 1].start + j]
                add(self._sparse(own, [1] * before + [-1]), 0, 0)
        for name, bound in self._question.at_least.items():
            row, rest = self._bound(name, bound)
            add(row, rest + self._tight.get(name, 0.0), np.inf)
        for name, bound in self._question.at_most.items():
            row, rest = self._bound(name, bound)
            add(row, -np.inf, rest - self._tight.get(name, 0.0))
        for excluded in self._excluded:
            add(csr_matrix(excluded), -np.inf, len(self._u) - 1)
        return vstack(rows, format="csr"), np.array(lows), np.array(highs)

    def _bound(self, name: str, bound: float) -> tuple[object, float]:
        from scipy.sparse import csr_matrix

        figure = self._chain.figures[name]
        scale = max(abs(bound), 1e-12)
        return csr_matrix(self._row(figure) / scale), (bound - figure.constant) / scale

    def _sparse(self, places: Sequence[int], values: Sequence[float]) -> object:
        from scipy.sparse import csr_matrix

        return csr_matrix((values, ([0] * len(places), places)), shape=(1, self._count))

    def _row(self, figure: Figure) -> Array:
        """Return the coefficients of a figure without its constant."""
        row = np.zeros(self._count)
        for s, (own, block) in enumerate(zip(figure.own, figure.block, strict=True)):
            row[self._u[s]] = own - self._chain.base_depths[s] * block
            row[self._d[s]] = block
        for flow, pair in zip(self._y, figure.pair, strict=True):
            row[flow] = pair.ravel()
        return row

    def _read(self, x: Array) -> Answer:
        widths, depths = [], []
        for s, grid in enumerate(self._chain.grids):
            i = int(np.argmax(x[self._u[s]]))
            widths.append(grid[i])
            depths.append(round(float(x[self._d[s]][i])))
        return Answer(tuple(widths), tuple(depths), self._chain.values(widths, depths))


def _blocks(sizes: Sequence[int], start: int) -> tuple[list[slice], int]:
    found = []
    for size in sizes:
        found.append(slice(start, start + size))
        start += size
    return found, start
