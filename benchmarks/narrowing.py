# SPDX-License-Identifier: Apache-2.0
"""Two plain ways to make a network narrower, and the largest result that a budget allows."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

from chipfit.errors import InfeasibleBudget
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.graph.pruning_library import torch_pruning
from chipfit.methods.widths import keep_largest
from chipfit.rewrite import edits_for, side_sizes, slice_channels

#: Networks compiled, or measured in one session, per round of the search.
PROBES = 4
#: Pruning ratios that one-shot pruning is tried with, evenly spaced.
RATIOS = 400


class Ladder(Protocol):
    """Networks from small to large, built on demand."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, rung: int) -> nn.Module:
        """Build one; rung 0 is the smallest."""
        ...

    def describe(self, rung: int) -> str:
        """Return what distinguishes a rung."""
        ...


class UniformWidths:
    """All channel groups scaled by one factor, to aligned widths; the largest filters stay.

    Args:
        net: The trained original; its weights are inherited.
        example: Its input, ``(1, C, H, W)``.
        alignment: Widths are multiples of it.
        keep: Prefixes of modules whose widths stay.
    """

    def __init__(
        self, net: nn.Module, example: torch.Tensor, alignment: int, keep: Sequence[str] = ()
    ) -> None:
        self._net, self._step = net, alignment
        self._groups = channel_groups(net, example, keep)
        self._free = [g for g in self._groups if not g.frozen]
        # Widths change only at these factors, so that no network in between is missed.
        factors = {1.0}
        for group in self._free:
            rounds = range(1, group.channels // alignment + 1)
            factors |= {(i + 0.5) * alignment / group.channels for i in rounds}
        found = {tuple(self.widths(f).items()): f for f in sorted(factors, reverse=True) if f <= 1}
        self.factors = sorted(found.values())

    def widths(self, factor: float) -> dict[str, int]:
        """Return the width of every group that can change at a factor."""
        return {group.name: self._width(group, factor) for group in self._free}

    def _width(self, group: ChannelGroup, factor: float) -> int:
        aligned = math.floor(group.channels * factor / self._step + 0.5 + 1e-9) * self._step
        return group.channels if factor == 1 else min(group.channels, max(self._step, aligned))

    def __len__(self) -> int:
        return len(self.factors)

    def __getitem__(self, rung: int) -> nn.Module:
        by_name = {group.name: group for group in self._free}
        kept = {
            name: keep_largest(self._net, by_name[name], range(by_name[name].channels), width)
            for name, width in self.widths(self.factors[rung]).items()
        }
        edits = edits_for(self._groups, kept, side_sizes(self._net))
        return slice_channels(self._net, edits)

    def describe(self, rung: int) -> str:
        """Return the factor of a rung."""
        return f"width x {self.factors[rung]:.3f}"


class MagnitudePruning:
    """One-shot global magnitude pruning by Torch-Pruning's own pruner.

    Layers whose channels must stay (the classifier) are ignored. Arguments as for
    :class:`UniformWidths`.
    """

    def __init__(
        self, net: nn.Module, example: torch.Tensor, alignment: int, keep: Sequence[str] = ()
    ) -> None:
        self._net, self._example, self._step = net, example, alignment
        frozen = [group for group in channel_groups(net, example, keep) if group.frozen]
        self._ignored = sorted(
            {member.module for g in frozen for member in g.members if member.side == "out"}
        )

    def ratio(self, rung: int) -> float:
        """Return the pruning ratio of a rung; the last is 0."""
        return (RATIOS - 1 - rung) / RATIOS

    def __len__(self) -> int:
        return RATIOS

    def __getitem__(self, rung: int) -> nn.Module:
        tp = torch_pruning()

        pruned = copy.deepcopy(self._net).eval()
        for parameter in pruned.parameters():
            parameter.requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.pruner.BasePruner(
                pruned,
                self._example,
                importance=tp.importance.MagnitudeImportance(p=2),
                global_pruning=True,
                pruning_ratio=self.ratio(rung),
                round_to=self._step,
                ignored_layers=[pruned.get_submodule(name) for name in self._ignored],
            )
            pruner.step()
        return pruned

    def describe(self, rung: int) -> str:
        """Return the pruning ratio of a rung."""
        return f"pruning ratio {self.ratio(rung):.4f}"


def largest_within(
    ladder: Ladder, within: Callable[[Sequence[nn.Module]], Sequence[bool]], what: str
) -> int:
    """Return the highest rung that is within the budget.

    Every round asks for a few rungs at once, so that a measured target compares them fairly.

    Args:
        ladder: From small to large.
        within: Tells of each network whether it is within the budget.
        what: Name of the ladder, for the error.

    Raises:
        InfeasibleBudget: No rung that was tried is within the budget.
    """
    best, low, high = -1, 0, len(ladder) - 1
    while low <= high:
        size = high - low + 1
        rungs = [low + (i + 1) * size // (PROBES + 1) for i in range(PROBES)]
        if size <= PROBES:
            rungs = list(range(low, high + 1))
        good = within([ladder[rung] for rung in rungs])
        met = [rung for rung, yes in zip(rungs, good, strict=True) if yes]
        if not met:
            high = rungs[0] - 1
            continue
        best, low = met[-1], met[-1] + 1
        # The next larger rung that was tried is over the budget: look between the two.
        high = min((rung - 1 for rung in rungs if rung > best), default=high)
    if best < 0:
        raise InfeasibleBudget(f"no network of {what} is within the budget")
    return best
