# SPDX-License-Identifier: Apache-2.0
"""Plain ways to make a network narrower, and the largest result that a budget allows."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn

from benchmarks.pruning_library import torch_pruning
from chipfit.errors import InfeasibleBudget
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.methods.widths import keep_largest
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.tasks import Task

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


#: Importances of Torch-Pruning by name: class and arguments. Its importances all take in the whole
#: group of coupled layers; ``group-norm`` differs from ``magnitude`` by the normalisation within a
#: group (by its largest channel, not by the mean), as its examples set it for ``GroupNormPruner``.
IMPORTANCES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "magnitude": ("MagnitudeImportance", {"p": 2}),
    "bn-scale": ("BNScaleImportance", {}),
    "group-norm": ("GroupMagnitudeImportance", {"p": 2, "normalizer": "max"}),
    "taylor": ("GroupTaylorImportance", {}),
}


class LibraryPruning:
    """One-shot pruning by Torch-Pruning's own pruner.

    Layers whose channels must stay (the classifier) are ignored. First arguments as for
    :class:`UniformWidths`.

    Args:
        net: The trained original; its weights are inherited.
        example: Its input, ``(1, C, H, W)``.
        alignment: Widths are multiples of it.
        keep: Prefixes of modules whose widths stay.
        importance: Of :data:`IMPORTANCES`.
        gradients: Of the loss, by parameter; ``taylor`` needs them.
        everywhere: Prune every group by the same ratio, not the least important channels of all.
    """

    def __init__(
        self, net: nn.Module, example: torch.Tensor, alignment: int, keep: Sequence[str] = (),
        importance: str = "magnitude", gradients: Mapping[str, torch.Tensor] | None = None,
        everywhere: bool = False,
    ) -> None:  # fmt: skip
        self._net, self._example, self._step = net, example, alignment
        self._importance, self._gradients = importance, gradients or {}
        self._everywhere = everywhere
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
        for name, parameter in pruned.named_parameters():
            parameter.requires_grad_(True)
            if name in self._gradients:
                parameter.grad = self._gradients[name].clone()
        kind, settings = IMPORTANCES[self._importance]
        ratio = self.ratio(rung)
        # Where rounding would leave nothing, the library leaves the whole layer as it is.
        capped = {
            module: min(ratio, max(0.0, 1 - 1.001 * self._step / _width(module)))
            for module in pruned.modules()
            if self._everywhere and isinstance(module, nn.Conv2d | nn.Linear)
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.pruner.BasePruner(
                pruned,
                self._example,
                importance=getattr(tp.importance, kind)(**settings),
                global_pruning=not self._everywhere,
                pruning_ratio=ratio,
                pruning_ratio_dict=capped,
                round_to=self._step,
                ignored_layers=[pruned.get_submodule(name) for name in self._ignored],
            )
            pruner.step()
        pruned.zero_grad(set_to_none=True)
        return pruned

    def describe(self, rung: int) -> str:
        """Return the pruning ratio of a rung."""
        where = " in every layer" if self._everywhere else ""
        return f"pruning ratio {self.ratio(rung):.4f}{where}"


def _width(module: nn.Conv2d | nn.Linear) -> int:
    return module.out_channels if isinstance(module, nn.Conv2d) else module.out_features


class MagnitudePruning(LibraryPruning):
    """By the L2 norm of all weights of a channel's group, relative to the group's mean."""


def loss_gradients(net: nn.Module, task: Task, batches: int, seed: int) -> dict[str, torch.Tensor]:
    """Return gradients of the task's loss by parameter, summed over training batches.

    Args:
        net: In evaluation mode; it is not changed.
        task: Gives batches of its recipe's size, and the loss.
        batches: How many.
        seed: Of their order.
    """
    copied = copy.deepcopy(net).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    size = task.recipe.batch_size
    for batch in islice(task.train_batches(size, seed, 0, augment=False), batches):
        task.loss(copied, batch).backward()
    return {n: p.grad for n, p in copied.named_parameters() if p.grad is not None}


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
