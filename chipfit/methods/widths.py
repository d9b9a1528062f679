# SPDX-License-Identifier: Apache-2.0
"""Shared by methods that change widths: prices of width variants and choice of filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from chipfit.cost.cost import Cost
from chipfit.cost.predict import predict_many
from chipfit.graph.capture import trace
from chipfit.graph.channels import ChannelGroup, widths_of_sides
from chipfit.graph.resize import Unresizable, resize
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.rewrite.edits import Edit, edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels


def resized(
    whole: Workload, sides: Mapping[tuple[str, str], int], made: Callable[[], nn.Module],
    example: torch.Tensor,
) -> Workload:  # fmt: skip
    """Return the workload of a network at other widths, computed where that can be done.

    Args:
        whole: The workload at the widths as they are.
        sides: New widths by layer and side.
        made: Makes the network; which channels stay does not matter to the shapes.
        example: Its input, ``(1, C, H, W)``.
    """
    try:
        return resize(whole, {name: n for (name, side), n in sides.items() if side != "in"})
    except Unresizable:
        return trace(made().eval(), example)


class WidthPricer:
    """Predicts the cost of width variants of one network from the look-up table.

    Args:
        problem: Gives network, target and table.
        groups: Its channel groups.
    """

    def __init__(self, problem: Problem, groups: Sequence[ChannelGroup]) -> None:
        self._problem = problem
        self._groups = {group.name: group for group in groups}
        self._sizes = side_sizes(problem.net)
        self._workload = trace(problem.net, problem.example)

    def edits(self, kept: Mapping[str, Sequence[int]]) -> tuple[Edit, ...]:
        """Return the edits that keep the given original channels of each group."""
        return tuple(edits_for(list(self._groups.values()), kept, self._sizes))

    def workload(self, widths: Mapping[str, int]) -> Workload:
        """Return the workload of the network with the given group widths."""
        groups = [self._groups[name] for name in widths]
        sides = widths_of_sides(groups, widths, self._sizes)

        def sliced() -> nn.Module:
            kept = {name: range(width) for name, width in widths.items()}
            return slice_channels(self._problem.net, self.edits(kept))

        return resized(self._workload, sides, sliced, self._problem.example)

    def price(self, variants: Sequence[Mapping[str, int]]) -> list[Cost]:
        """Return the predicted cost of each variant; absent units are priced in one batch."""
        networks = predict_many(
            [self.workload(widths) for widths in variants],
            self._problem.target, self._problem.table, self._problem.calibration,
            pool=self._problem.pool,
        )  # fmt: skip
        return [network.total for network in networks]


def filter_norms(net: nn.Module, group: ChannelGroup, present: Sequence[int]) -> torch.Tensor:
    """Return the L2 norm of each channel's filters, over all layers that make the channel.

    NetAdapt (section 3.4 of the paper) keeps the filters of largest magnitude. Depthwise filters
    follow the layer that feeds them and do not vote.

    Args:
        net: The network as it is now, with ``present`` channels left.
        group: The channel group of the original network.
        present: Original indices of the channels that are left, ascending.

    Returns:
        ``(len(present),)``, higher is kept first.
    """
    total = torch.zeros(len(present), dtype=torch.float64)
    for member in group.members:
        module = net.get_submodule(member.module) if not member.side.startswith("param") else None
        if member.side != "out" or not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            continue
        if any(len(owned) != 1 for owned in member.index):
            continue
        total += module.weight.detach().double().flatten(1).pow(2).sum(1)
    return total.sqrt()


def keep_largest(
    net: nn.Module, group: ChannelGroup, present: Sequence[int], width: int
) -> tuple[int, ...]:
    """Return the original indices of the ``width`` channels with the largest filters.

    Equal norms keep the lower index, so that the choice is deterministic.
    """
    norms = filter_norms(net, group, present)
    order = sorted(range(len(present)), key=lambda i: (-float(norms[i]), i))
    return tuple(sorted(present[i] for i in order[:width]))
