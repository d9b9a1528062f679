# SPDX-License-Identifier: Apache-2.0
"""Predicted costs of all architectures of a block space, and their exact expectation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chipfit.cost.cost import Cost
from chipfit.cost.predict import ADDITIVE, predict_many
from chipfit.cost.vectorised import VectorisedCost
from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.layer_figures import LayerFigures, corner_rows, figure_of
from chipfit.methods.space_workload import SpaceWorkload
from chipfit.space.blocks import BlockSpace
from chipfit.supernet.expectation import expected_cost

Codes = NDArray[np.int64]
Values = NDArray[np.float64]
CostFunction = Callable[[Codes], Values]

#: Most combinations of options that a layer's price is looked up for one by one.
COMBINATIONS = 8192
#: Architectures drawn for an expectation that is not summed over layers.
SAMPLES = 32


class SpaceCosts:
    """Costs of architectures: one option index per choice.

    Latency, cycles and energy come from the cost table (:class:`VectorisedCost`); multiply-
    accumulates, parameters and weight bytes are sums over blocks. Other figures, such as peak
    memory, are no sums and are looked up architecture by architecture.

    Args:
        problem: Gives network, target, table and budget.
        blocks: The space.
    """

    def __init__(self, problem: Problem, blocks: BlockSpace) -> None:
        self._problem = problem
        self.block_space, self.space = blocks, blocks.search_space
        self.workload: Callable[[Mapping[str, str]], Workload] = SpaceWorkload(
            problem.net, problem.example, blocks
        )
        self._functions: dict[str, CostFunction] = {}
        self._vectorised: dict[str, VectorisedCost | LayerFigures] = {}
        self._expectations: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {}

    def names(self, row: Sequence[int] | Codes) -> dict[str, str]:
        """Return the option names of one architecture."""
        return {c.name: c.options[int(i)] for c, i in zip(self.space, row, strict=True)}

    def row(self, architecture: Mapping[str, str]) -> tuple[int, ...]:
        """Return the option indices of one architecture."""
        return tuple(c.options.index(architecture[c.name]) for c in self.space)

    def networks(self, rows: Sequence[Sequence[int]]) -> list[Cost]:
        """Return every predicted figure of some architectures."""
        return self.predicted([self.names(row) for row in rows])

    def predicted(self, architectures: Sequence[Mapping[str, str]]) -> list[Cost]:
        """Return every predicted figure of architectures by name; ``keep`` is always allowed."""
        found = predict_many(
            [self.workload(architecture) for architecture in architectures],
            self._problem.target, self._problem.table, self._problem.calibration,
            pool=self._problem.pool,
        )  # fmt: skip
        return [network.total for network in found]

    def of(self, key: str) -> CostFunction:
        """Return the function from architectures ``(N, choices)`` to costs ``(N,)``.

        Raises:
            BadInput: The figure is not predicted on the target.
        """
        if key not in self._functions:
            table = key in ADDITIVE and key in self.networks([[0] * len(self.space)])[0]
            self._functions[key] = self._from_table(key) if table else self._from_blocks(key)
        return self._functions[key]

    def expectation(self, key: str) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return ``E[cost]`` as a function of the probabilities of every choice's options.

        Costs from the table are sums over layers, and the price of a layer depends on its own
        choice and its neighbours'; the expectation is then the sum of theirs, exact and bilinear in
        neighbours. Where a layer depends on too many choices, or the figure is no such sum, it is
        enumerated or estimated (:func:`chipfit.supernet.expectation.expected_cost`).

        Raises:
            BadInput: The figure is not predicted on the target.
        """
        if key not in self._expectations:
            cost = self.of(key)
            terms = self._terms(key)
            if terms is None:
                self._expectations[key] = lambda p: expected_cost(p, cost, samples=SAMPLES)
            else:
                self._expectations[key] = terms
        return self._expectations[key]

    def _terms(self, key: str) -> LayerSums | None:
        if key not in self._vectorised:
            return None
        vectorised = self._vectorised[key]
        sizes = [len(choice.options) for choice in self.space]
        for _ in range(len(sizes)):  # pricing may show that a layer depends on one more choice
            needed = []
            for slot in vectorised.slots:
                own = [sizes[c] for c in slot.choices]
                if math.prod(own) > COMBINATIONS:
                    return None
                rows = np.zeros((math.prod(own), len(sizes)), np.int64)
                if own:
                    rows[:, list(slot.choices)] = np.indices(own).reshape(len(own), -1).T
                needed.append(rows)
            self.of(key)(np.unique(np.concatenate(needed), axis=0))
            if all(
                sum(1 for _ in slot.entries()) == math.prod(sizes[c] for c in slot.choices)
                for slot in vectorised.slots
            ):
                return LayerSums(vectorised, sizes)
        return None

    def _from_table(self, key: str) -> CostFunction:
        problem = self._problem
        vectorised = VectorisedCost(
            self.space, self.workload, problem.target, problem.table, key, problem.calibration,
            problem.seed,
        )  # fmt: skip
        self._vectorised[key] = vectorised

        def priced(done: int, of: int) -> None:
            problem.progress(f"priced {done} of {of} units")

        if isinstance(self.workload, SpaceWorkload) and self.workload.of_cells:
            rows = corner_rows([len(choice.options) for choice in self.space])
            vectorised.fill(rows, problem.pool, priced)

        def cost(codes: Codes) -> Values:
            # Pricing may show that a layer depends on one more choice, which others lack prices of.
            while (absent := vectorised.missing(codes)).any():
                vectorised.fill(codes[absent], problem.pool, priced)
            return vectorised.cost(codes)

        return cost

    def _from_blocks(self, key: str) -> CostFunction:
        """Add what each option changes to the first architecture, or look at each by itself."""
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
        if exact:
            self._expectations[key] = _Additive(float(base), changes)
            return added
        figure = figure_of(key, self._problem.target.precision)
        if figure is None:
            return looked_up
        layers = LayerFigures(
            sizes, lambda row: self.workload(self.names(row)), figure, self._problem.seed
        )
        if not np.allclose(layers.cost(drawn), looked_up(drawn), rtol=1e-9, atol=0):
            return looked_up
        self._vectorised[key] = layers
        return layers.cost

    def _static(self, row: Sequence[int] | Codes) -> dict[str, float]:
        workload = self.workload(self.names(row))
        own = {"macs": float(workload.macs), "params": float(workload.parameter_count)}
        return own | self._problem.target.static_cost(workload)


def costs_of(problem: Problem, blocks: BlockSpace) -> SpaceCosts:
    """Return the costs of a space, the same object wherever the same is asked of one problem."""
    wanted = (blocks, problem.calibration)
    return problem.once("space_costs", wanted, lambda: SpaceCosts(problem, blocks))


class _Additive:
    """The expectation of a sum of one term per choice."""

    def __init__(self, base: float, changes: Sequence[Values]) -> None:
        self._base = base
        self._changes = [torch.as_tensor(change, dtype=torch.float64) for change in changes]

    def __call__(self, probabilities: Sequence[Tensor]) -> Tensor:
        pairs = zip(probabilities, self._changes, strict=True)
        return self._base + torch.stack([p.double() @ change for p, change in pairs]).sum()


class LayerSums:
    """The expectation of a sum over layers, each of which depends on a few choices.

    Args:
        vectorised: All prices of its layers are known.
        sizes: Options of every choice.
    """

    def __init__(self, vectorised: VectorisedCost | LayerFigures, sizes: Sequence[int]) -> None:
        merged: dict[tuple[int, ...], Values] = {}
        for slot in vectorised.slots:
            if slot.choices:
                found = np.zeros(tuple(sizes[c] for c in slot.choices))
                for options, price in slot.entries():
                    found[tuple(options)] = price
                merged[slot.choices] = merged.get(slot.choices, 0.0) + found
        row = np.zeros((1, len(sizes)), np.int64)
        layers = sum(float(m[(0,) * len(c)]) for c, m in merged.items())
        #: Layers that depend on no choice, and the call overhead of the runtime.
        self.fixed = float(vectorised.cost(row)[0]) - layers
        self._terms = [(c, torch.as_tensor(m)) for c, m in merged.items()]

    def __call__(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Return the expected cost, a scalar in double precision, differentiable."""
        total = torch.as_tensor(self.fixed, dtype=torch.float64)
        for choices, prices in self._terms:
            value = prices
            for c in reversed(choices):
                value = value @ probabilities[c].double()
            total = total + value
        return total
