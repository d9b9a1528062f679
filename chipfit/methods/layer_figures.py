# SPDX-License-Identifier: Apache-2.0
"""A figure that is counted, layer by layer, for very many architectures at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from chipfit.cost.dependences import Dependences
from chipfit.cost.slot import Row, Slot
from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.targets.footprint import op_weight_bytes

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


def figure_of(key: str, precision: str) -> Callable[[Op], float] | None:
    """Return what an operator adds to a counted figure; ``None`` where that is no such sum."""
    return {
        "macs": lambda op: float(op.macs),
        "params": lambda op: float(op.parameter_count),
        "weight_bytes": lambda op: float(op_weight_bytes(op, precision)),
    }.get(key)


def corner_rows(sizes: Sequence[int]) -> Codes:
    """Return the architectures that take the first option everywhere but in one choice.

    Where that leaves edges of a cell out, these show what only runs while some edge reads it,
    which random architectures rarely do.
    """
    rows = np.zeros((sum(sizes), len(sizes)), np.int64)
    at = 0
    for b, size in enumerate(sizes):
        rows[at : at + size, b] = np.arange(size)
        at += size
    return np.unique(rows, axis=0)


class LayerFigures:
    """A sum over layers, of which each depends on a few choices.

    What :class:`~chipfit.cost.vectorised.VectorisedCost` is for prices, this is for counts, which
    no table holds: which choices a layer depends on is found out, then architectures are look-ups.

    Args:
        sizes: Numbers of options of all choices.
        workload_of: Makes the network of option indices.
        figure: What an operator adds.
        seed: Of the architectures that dependences are found with.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        workload_of: Callable[[Row], Workload],
        figure: Callable[[Op], float],
        seed: int = 0,
    ) -> None:
        self._workload_of, self._figure = workload_of, figure
        self._dependences = Dependences(tuple(int(s) for s in sizes), self._keys_of, seed)
        self._dependences.find()
        for row in corner_rows(sizes):
            self._dependences.learn(tuple(int(option) for option in row))
        #: One per layer of any architecture.
        self.slots: list[Slot] = []
        self._price()

    def cost(self, codes: Codes) -> Values:
        """Return the figure of every row of option indices ``(N, choices)``, ``(N,)``."""
        found = self._sum(codes)
        while (absent := np.isnan(found)).any():
            for row in self._covering(codes[absent]):
                self._dependences.learn(row)
            self._price()
            found[absent] = self._sum(codes[absent])
        return found

    def _sum(self, codes: Codes) -> Values:
        columns = np.ascontiguousarray(codes.T)
        total = np.zeros(len(codes))
        for slot in self.slots:
            total += slot.prices(slot.places(columns))
        return total

    def _covering(self, codes: Codes) -> list[Row]:
        """Return few rows that together hold every combination that any row lacks."""
        columns = np.ascontiguousarray(codes.T)
        chosen: set[int] = set()
        for slot in self.slots:
            places = slot.places(columns)
            absent = np.flatnonzero(np.isnan(slot.prices(places)))
            done = {int(p) for p in places[list(chosen)]}
            for place, i in zip(*np.unique(places[absent], return_index=True), strict=True):
                if int(place) not in done:
                    chosen.add(int(absent[i]))
        return [tuple(int(option) for option in codes[i]) for i in sorted(chosen)]

    def _keys_of(self, row: Row) -> dict[str, str]:
        nodes = self._workload_of(row).nodes
        figures = {node.name: self._figure(node.op) for node in nodes}
        return {name: repr(value) for name, value in figures.items() if value}

    def _price(self) -> None:
        self._dependences.sort()
        self.slots = self._dependences.slots
        for slot in self.slots:
            slot.price(float)
