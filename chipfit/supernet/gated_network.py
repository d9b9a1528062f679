# SPDX-License-Identifier: Apache-2.0
"""``GatedNetwork``: a network whose blocks have gates that are trained with its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.blocks import ActivatedBlock
from chipfit.supernet.constraint import AugmentedLagrangian
from chipfit.supernet.expectation import (
    ENUMERATED,
    Codes,
    CostFunction,
    all_codes,
    expectation_over,
    expected_cost,
)
from chipfit.supernet.gated_block import GatedBlock, LinearPath, input_statistics
from chipfit.supernet.relaxations import gumbel_sigmoid, temperature_at

#: Log-odds per unit of the trained parameter: optimisers whose step does not depend on the size of
#: a gradient then move gates as fast as they should while they move weights slowly.
GATE_SCALE = 20.0


class GatedNetwork(nn.Module):
    """A copy of a network with gated blocks, log-odds, and constraints on the expected cost.

    In training mode every forward pass draws gates (binary concrete, straight-through where
    ``hard``) at a temperature that falls from step to step. The step is a buffer: a training that
    is cut off continues with it.

    Args:
        net: The trained network; it is not changed.
        blocks: Its blocks that get gates.
        linear: Kernel size of each linear path and the activation in front, by block.
        costs: One function per constraint, from patterns ``(N, blocks)`` (0: keep, 1: linear) to
            costs in any unit.
        limits: The bound of each constraint, in the unit of its cost.
        scales: What each cost is divided by, so that units do not matter: the original's cost.
        steps: Training steps in all; 1 or more.
        warmup: Share of the steps in which all gates are drawn evenly and nothing is constrained,
            so that the linear paths learn before they are judged.
        temperatures: At the first and the last step.
        hard: Draw 0 or 1, with the gradient of the relaxation.
        expanded: Train the factors of linear paths apart.
        batches: Inputs of the network, from which linear paths learn what they will read.
    """

    step: Tensor

    def __init__(
        self,
        net: nn.Module,
        blocks: Sequence[ActivatedBlock],
        linear: Mapping[str, tuple[int, str]],
        costs: Sequence[CostFunction] = (),
        limits: Sequence[float] = (),
        scales: Sequence[float] = (),
        *,
        steps: int = 1,
        warmup: float = 0.25,
        temperatures: tuple[float, float] = (2.0, 0.5),
        hard: bool = True,
        expanded: bool = True,
        batches: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.blocks = tuple(blocks)
        names = [block.module for block in blocks]
        paths = {
            b.module: LinearPath(b, self.net, linear[b.module][1], expanded, linear[b.module][0])
            for b in blocks
        }
        if batches:
            for name, (mean, variance) in input_statistics(net, names, list(batches)).items():
                paths[name].fit_input(mean, variance)
        for name, path in paths.items():
            like = next(self.net.parameters())
            gated = GatedBlock(self.net.get_submodule(name), path)
            self.net.set_submodule(name, gated.to(like.device, like.dtype))
        self.gates = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.constraint = AugmentedLagrangian(len(limits))
        self._tables: list[tuple[Codes, NDArray[np.float64]]] | None = None
        self._costs, self._limits, self._scales = tuple(costs), tuple(limits), tuple(scales)
        self._steps, self._warmup, self._hard = steps, warmup, hard
        self._temperatures = temperatures

    @property
    def log_odds(self) -> Tensor:
        """Log-odds that each block is kept, ``(blocks,)``."""
        return GATE_SCALE * self.gates

    @property
    def warming(self) -> bool:
        """Whether linear paths are still learning and gates are not trained."""
        return int(self.step) < self._warmup * self._steps

    def gated(self, name: str) -> GatedBlock:
        """Return the gated block that stands at ``name``."""
        found = self.net.get_submodule(name)
        if not isinstance(found, GatedBlock):
            raise BadInput(f"{name} has no gate")
        return found

    def fix(self, kept: Mapping[str, bool]) -> None:
        """Set gates by block to 1 where ``kept``, else 0, for evaluation."""
        for name, value in kept.items():
            self.gated(name).gate = 1.0 if value else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps; in training mode with freshly drawn gates."""
        if self.training:
            logits = torch.zeros_like(self.gates) if self.warming else self.log_odds
            temperature = temperature_at(int(self.step), self._steps, *self._temperatures)
            drawn = gumbel_sigmoid(logits, temperature, self._hard)
            for block, gate in zip(self.blocks, drawn, strict=True):
                self.gated(block.module).gate = gate
            self.step += 1
        return self.net(x)

    def expected_costs(self) -> Tensor:
        """Return the expected cost of each constraint over its scale, ``(constraints,)``."""
        keep = torch.sigmoid(self.log_odds.double())
        options = [torch.stack([p, 1 - p]) for p in keep]
        if self._tables is None and 2 ** len(options) <= ENUMERATED:
            codes = all_codes([2] * len(options))
            self._tables = [(codes, cost(codes)) for cost in self._costs]
        if self._tables is not None:
            sums = [expectation_over(options, codes, values) for codes, values in self._tables]
        else:
            seed = np.random.default_rng(int(self.step))
            sums = [expected_cost(options, cost, generator=seed) for cost in self._costs]
        found = [value / scale for value, scale in zip(sums, self._scales, strict=True)]
        return torch.stack(found) if found else keep.new_zeros(0)

    def penalty(self) -> Tensor:
        """Return what the constraints add to the loss, and move their multipliers."""
        if self.warming or not self._costs:
            return self.gates.new_zeros(())
        limits = [limit / s for limit, s in zip(self._limits, self._scales, strict=True)]
        violations = self.expected_costs().float() - torch.tensor(limits)
        value = self.constraint(violations)
        self.constraint.update(violations)
        return value
