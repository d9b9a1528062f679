# SPDX-License-Identifier: Apache-2.0
"""``Chain``: any additive figure of all networks that stages of some width and depth make.

What a stage costs depends on its own width and on that of the stage before it; every block beyond
the first few costs the same again. So a figure of a whole network is

    constant + sum own_s(w_s) + sum pair_s(w_s, w_s+1) + sum (d_s - k_s) block_s(w_s)

and a few hundred networks tell it for the millions that there are: ``own`` and ``pair`` are the
main effects and the interactions of the widths at the depths ``k``, ``block`` what one more block
adds. This holds exactly for figures that are sums over operators or units, as MACs, parameters,
NN-Mass, non-linear units and predicted latency are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Widths and depths of the stages.
Shape = tuple[tuple[int, ...], tuple[int, ...]]
#: Returns the figures of many networks by name, all with the same names.
Evaluate = Callable[[Sequence[Shape]], Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Figure:
    """One figure of all networks of a grid, in its own unit.

    Args:
        constant: Of the network of middle widths and base depths.
        own: Per stage, what each width adds, ``(n_s,)``.
        pair: Per pair of neighbouring stages, what their widths add together, ``(n_s, n_s+1)``.
        block: Per stage, what one more block of each width adds, ``(n_s,)``.
    """

    constant: float
    own: tuple[Array, ...]
    pair: tuple[Array, ...]
    block: tuple[Array, ...]


@dataclass(frozen=True)
class Chain:
    """All figures over a grid of widths.

    Args:
        grids: Widths to choose from, per stage, ascending.
        base_depths: ``k``, blocks of each stage that ``constant`` counts.
        figures: By name.
    """

    grids: tuple[tuple[int, ...], ...]
    base_depths: tuple[int, ...]
    figures: Mapping[str, Figure]

    def value(self, name: str, widths: Sequence[int], depths: Sequence[int]) -> float:
        """Return a figure of one network of the grid.

        Raises:
            ValueError: A width is not on the grid.
        """
        figure = self.figures[name]
        at = [grid.index(width) for grid, width in zip(self.grids, widths, strict=True)]
        total = figure.constant
        for s, i in enumerate(at):
            total += figure.own[s][i] + (depths[s] - self.base_depths[s]) * figure.block[s][i]
        return float(total + sum(figure.pair[s][at[s], at[s + 1]] for s in range(len(at) - 1)))

    def values(self, widths: Sequence[int], depths: Sequence[int]) -> dict[str, float]:
        """Return all figures of one network of the grid."""
        return {name: self.value(name, widths, depths) for name in self.figures}


def fit_chain(
    evaluate: Evaluate,
    grids: Sequence[Sequence[int]],
    base_depths: Sequence[int],
    pair_points: int | None = None,
) -> Chain:
    """Find the terms of all figures.

    Args:
        evaluate: Called once, with all networks that are needed.
        grids: Widths to choose from, per stage, ascending.
        base_depths: Blocks of each stage of these networks; one more is tried in turn.
        pair_points: Widths of a stage whose interactions are evaluated, evenly spread; those
            between are interpolated linearly. ``None`` evaluates all, and the result is exact.
    """
    widths = tuple(tuple(grid) for grid in grids)
    depths = tuple(base_depths)
    middle = tuple(len(grid) // 2 for grid in widths)
    stages = range(len(widths))
    some = [_spread(len(grid), pair_points) for grid in widths]

    def shape(changed: Mapping[int, int], deeper: int | None = None) -> Shape:
        at = [changed.get(s, middle[s]) for s in stages]
        return (
            tuple(widths[s][i] for s, i in enumerate(at)),
            tuple(k + (s == deeper) for s, k in enumerate(depths)),
        )

    asked = [shape({})]
    asked += [shape({s: i}, more) for s in stages for i in range(len(widths[s]))
              for more in (None, s)]  # fmt: skip
    asked += [shape({s: i, s + 1: j}) for s in stages[:-1] for i in some[s] for j in some[s + 1]]
    unique = list(dict.fromkeys(asked))
    found = dict(zip(unique, evaluate(unique), strict=True))

    def figure(name: str) -> Figure:
        def of(changed: Mapping[int, int], deeper: int | None = None) -> float:
            return float(found[shape(changed, deeper)][name])

        constant = of({})
        own = [np.array([of({s: i}) for i in range(len(widths[s]))]) - constant for s in stages]
        block = [
            np.array([of({s: i}, s) - of({s: i}) for i in range(len(widths[s]))]) for s in stages
        ]
        pair = []
        for s in stages[:-1]:
            known = np.array(
                [[of({s: i, s + 1: j}) - constant - own[s][i] - own[s + 1][j] for j in some[s + 1]]
                 for i in some[s]]
            )  # fmt: skip
            pair.append(_interpolated(known, widths[s], widths[s + 1], some[s], some[s + 1]))
        return Figure(constant, tuple(own), tuple(pair), tuple(block))

    return Chain(widths, depths, {name: figure(name) for name in found[asked[0]]})


def _spread(count: int, points: int | None) -> list[int]:
    if points is None or count <= points:
        return list(range(count))
    return sorted({round(i * (count - 1) / (points - 1)) for i in range(points)})


def _interpolated(
    known: Array, rows: Sequence[int], columns: Sequence[int], some_rows: Sequence[int],
    some_columns: Sequence[int],
) -> Array:  # fmt: skip
    at_rows = [rows[i] for i in some_rows]
    at_columns = [columns[j] for j in some_columns]
    full = np.stack([np.interp(columns, at_columns, row) for row in known])
    return np.stack([np.interp(rows, at_rows, column) for column in full.T], axis=1)
