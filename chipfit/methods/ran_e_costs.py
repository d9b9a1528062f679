# SPDX-License-Identifier: Apache-2.0
"""Predicted cost of any combination of block options, for millions of them at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.predict import ADDITIVE, predict_many
from chipfit.cost.vectorised import VectorisedCost
from chipfit.errors import BadInput
from chipfit.graph.blocks import ActivatedBlock
from chipfit.graph.capture import trace
from chipfit.graph.splice import Piece, splice, trace_piece
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.ran_e_options import BlockOption
from chipfit.space.choice import Choice, SearchSpace

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


class PatternCosts:
    """Costs of patterns: one option index per block.

    Latency, cycles and energy come from the cost table (:class:`VectorisedCost`); multiply-
    accumulates, parameters and weight bytes are sums over blocks. Other figures, such as peak
    memory, are no sums and are looked up pattern by pattern.

    Args:
        problem: Gives network, target, table and budget.
        blocks: The blocks.
        options: Of each block.
    """

    def __init__(
        self,
        problem: Problem,
        blocks: Sequence[ActivatedBlock],
        options: Mapping[str, Sequence[BlockOption]],
    ) -> None:
        self._problem, self.blocks = problem, tuple(blocks)
        self._workload = trace(problem.net, problem.example)
        nodes = self._workload.by_name
        self._old = {
            b.module: Piece(tuple(nodes[n] for n in b.nodes), b.source, b.result) for b in blocks
        }
        self._pieces = {
            (b.module, o.name): _piece(b, o.swap.build().eval())
            for b in blocks
            for o in options[b.module]
            if o.swap is not None
        }
        self.options = {b.module: tuple(options[b.module]) for b in blocks}
        self.space = SearchSpace(
            tuple(Choice(b.module, tuple(o.name for o in options[b.module])) for b in blocks)
        )
        self._functions: dict[str, Callable[[Codes], Values]] = {}

    def workload(self, architecture: Mapping[str, str]) -> Workload:
        """Return the workload of a pattern given by option names."""
        new = {
            name: self._pieces[name, option]
            for name, option in architecture.items()
            if (name, option) in self._pieces
        }
        return splice(self._workload, self._old, new)

    def names(self, row: Sequence[int] | Codes) -> dict[str, str]:
        """Return the option names of one pattern."""
        return {c.name: c.options[int(i)] for c, i in zip(self.space, row, strict=True)}

    def networks(self, rows: Sequence[Sequence[int]]) -> list[Cost]:
        """Return every predicted figure of some patterns."""
        found = predict_many(
            [self.workload(self.names(row)) for row in rows], self._problem.target,
            self._problem.table, self._problem.calibration, pool=self._problem.pool,
        )  # fmt: skip
        return [network.total for network in found]

    def of(self, key: str) -> Callable[[Codes], Values]:
        """Return the function from patterns ``(N, blocks)`` to costs ``(N,)``.

        Raises:
            BadInput: The figure is not predicted on the target.
        """
        if key not in self._functions:
            table = key in ADDITIVE and key in self.networks([[0] * len(self.space)])[0]
            self._functions[key] = self._from_table(key) if table else self._from_blocks(key)
        return self._functions[key]

    def _from_table(self, key: str) -> Callable[[Codes], Values]:
        problem = self._problem
        vectorised = VectorisedCost(
            self.space, self.workload, problem.target, problem.table, key, problem.calibration,
            problem.seed,
        )  # fmt: skip

        def cost(codes: Codes) -> Values:
            absent = vectorised.missing(codes)
            if absent.any():
                problem.progress(f"pricing blocks for {int(absent.sum())} patterns")
                vectorised.fill(codes[absent], problem.pool)
            return vectorised.cost(codes)

        return cost

    def _from_blocks(self, key: str) -> Callable[[Codes], Values]:
        """Add what each option changes to the original, or look at every pattern by itself."""
        sizes = [len(c.options) for c in self.space]
        start = self._static([0] * len(sizes))
        if key not in start:
            known_keys = {*start, *self.networks([[0] * len(sizes)])[0].values}
            raise BadInput(
                f"this method cannot steer by {key} on {self._problem.target.name}",
                f"bound one of: {', '.join(sorted(known_keys))}",
            )
        base = start[key]
        changes = []
        for b, size in enumerate(sizes):
            rows = [[i if c == b else 0 for c in range(len(sizes))] for i in range(size)]
            changes.append(np.array([self._static(row)[key] - base for row in rows]))

        def added(codes: Codes) -> Values:
            total = np.full(len(codes), float(base))
            for b, change in enumerate(changes):
                total += change[codes[:, b]]
            return total

        known: dict[bytes, float] = {}

        def looked_up(codes: Codes) -> Values:
            for row in codes:
                if row.tobytes() not in known:
                    known[row.tobytes()] = self._static(row)[key]
            return np.array([known[row.tobytes()] for row in codes])

        drawn = np.random.default_rng(0).integers(0, sizes, (16, len(sizes)))
        exact = np.allclose(added(drawn), looked_up(drawn), rtol=1e-9, atol=0)
        return added if exact else looked_up

    def _static(self, row: Sequence[int] | Codes) -> dict[str, float]:
        workload = self.workload(self.names(row))
        own = {"macs": float(workload.macs), "params": float(workload.parameter_count)}
        return own | self._problem.target.static_cost(workload)


def _piece(block: ActivatedBlock, module: nn.Module) -> Piece:
    return trace_piece(module, block.in_shape, block.module)
