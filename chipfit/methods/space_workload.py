# SPDX-License-Identifier: Apache-2.0
"""The workload of any architecture of a block space."""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.pieces import piece_at
from chipfit.graph.splice import Piece, splice, trace_piece
from chipfit.graph.workload import Workload
from chipfit.methods.cell_workload import CellWorkload
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP, BlockSpace

#: Random architectures on which splicing must give what building and tracing gives.
CHECKS = 3
#: Traced architectures that are remembered.
REMEMBERED = 20_000


class SpaceWorkload:
    """Maps an architecture to its workload; ``keep`` leaves a place as it is in any choice.

    Operators of every operation are traced once and put together (:mod:`chipfit.graph.splice`).
    Where that does not give what building and tracing the network gives, because a place is no
    separate part of the graph (an edge of a cell that may be left out), each is built and traced.

    Args:
        net: The network with nothing swapped.
        example: Its input ``(1, C, H, W)``.
        blocks: The space.
    """

    def __init__(self, net: nn.Module, example: torch.Tensor, blocks: BlockSpace) -> None:
        self._net, self._example, self._blocks = net, example, blocks
        self._known: dict[str, Workload] = {}
        self._cells: CellWorkload | None = None
        self._whole = trace(net, example)
        self._old: dict[str, Piece] = {}
        self._new: dict[tuple[str, str], dict[str, Piece]] = {}
        #: Whether workloads are put together from pieces.
        self.spliced = self._cut() and self._agrees()
        if not self.spliced:
            self._cells = self._of_cells()
            self.spliced = self._cells is not None and self._agrees()

    @property
    def of_cells(self) -> bool:
        """Whether edges may be absent (:class:`CellWorkload`)."""
        return self._cells is not None

    def __call__(self, architecture: Mapping[str, str]) -> Workload:
        """Return the workload of an architecture given by operation names."""
        if self.spliced:
            return self._splice(architecture)
        key = repr(sorted(architecture.items()))
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = self._trace(architecture)
        return self._known[key]

    def _cut(self) -> bool:
        try:
            for choice in self._blocks:
                for place in choice.places:
                    self._old[place] = piece_at(self._whole, place)
                for operation in choice.operations:
                    self._new[choice.name, operation.name] = {
                        swap.module: trace_piece(
                            swap.made_from(self._net.get_submodule(swap.module)).eval(),
                            self._shape(swap.module),
                            swap.module,
                        )
                        for swap in operation.swaps
                    }
        except BadInput:
            return False
        return True

    def _of_cells(self) -> CellWorkload | None:
        try:
            return CellWorkload(self._net, self._example, self._blocks)
        except BadInput:
            return None

    def _shape(self, place: str) -> tuple[int, ...]:
        return self._whole.shapes[self._old[place].source]

    def _agrees(self) -> bool:
        rng = random.Random(0)
        for _ in range(CHECKS):
            drawn = {c.name: rng.choice(c.operations).name for c in self._blocks}
            try:
                spliced = self._splice(drawn)
            except BadInput:
                return False
            if [n.op for n in spliced.nodes] != [n.op for n in self._trace(drawn).nodes]:
                return False
        return True

    def _splice(self, architecture: Mapping[str, str]) -> Workload:
        if self._cells is not None:
            return self._cells(architecture)
        new = {
            place: piece
            for choice in self._blocks
            for place, piece in self._new.get((choice.name, architecture[choice.name]), {}).items()
        }
        return splice(self._whole, self._old, new)

    def _trace(self, architecture: Mapping[str, str]) -> Workload:
        swaps = [
            swap
            for choice in self._blocks
            if architecture[choice.name] != KEEP
            for swap in choice[architecture[choice.name]].swaps
        ]
        return trace(replay(self._net, swaps).eval(), self._example)
