# SPDX-License-Identifier: Apache-2.0
"""Channel groups: which channels of which modules can only be removed together.

The coupling is found on the operations of a real forward pass: labels of channels take the way
that the network's own views, shuffles, concatenations and products give them
(:mod:`chipfit.graph.coupling`), so no rule about kinds of networks is needed. A group counts as
free only after the network was narrowed for real and computed what the masked one computes
(:mod:`chipfit.graph.coupling_verified`); every other is kept, frozen, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from chipfit.errors import ChipfitError
from chipfit.graph.coupling import MAKERS, couple, host_copy
from chipfit.graph.coupling_attributes import candidates
from chipfit.graph.coupling_groups import (
    ChannelGroup,
    Member,
    alone,
    groups_of,
    kept_sides,
    widths_of_sides,
)
from chipfit.graph.coupling_verified import verified
from chipfit.graph.run import unwrapped

__all__ = [
    "ChannelGroup", "Member", "channel_groups", "kept_sides", "uncoupled_groups",
    "widths_of_sides",
]  # fmt: skip


def channel_groups(
    net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor], keep: Sequence[str] = ()
) -> list[ChannelGroup]:
    """Return the channel groups of ``net`` in the order of its modules.

    Where the network cannot be followed at all, each convolution and linear layer is a group of
    its own, frozen, and says why in ``uncoupled``.

    Args:
        net: The network; it is not changed.
        example: An input, ``(1, C, H, W)``, or a sequence of inputs.
        keep: Prefixes of module names whose widths the user wants left alone.

    Raises:
        BadInput: The network itself fails on the example.
    """
    clone = host_copy(unwrapped(net))
    try:
        coupling = couple(clone, example)
        groups, roots = groups_of(coupling, clone, keep)
        found = candidates(coupling, clone, groups, roots)
        groups = verified(clone, example, groups, found, coupling.delicate)
    except ChipfitError:
        raise
    except Exception as error:  # a network may do anything below PyTorch's surface
        text = str(error).strip().splitlines()
        what = f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
        return uncoupled_groups(clone, f"the channels cannot be coupled ({what})")
    order = {name: i for i, name in enumerate(dict(clone.named_modules()))}
    groups += _unseen(clone, groups)
    return sorted(groups, key=lambda group: order[group.name.partition("#")[0]])


def uncoupled_groups(net: nn.Module, reason: str) -> list[ChannelGroup]:
    """Return one frozen group for each convolution and linear layer of ``net``."""
    return [
        alone(name, width, reason, reason)
        for name, module in net.named_modules()
        if (width := _width(module))
    ]


def _unseen(net: nn.Module, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Return a frozen group of each layer whose weight the network does not use as it stands."""
    seen = {member.module for group in groups for member in group.members if member.side == "out"}
    return [
        alone(name, width, f"{name} is not seen in use")
        for name, module in net.named_modules()
        if name not in seen and (width := _width(module)) > 1
    ]


def _width(module: nn.Module) -> int:
    """Return how many channels a layer makes, 0 where it is none."""
    if not isinstance(module, MAKERS):
        return 0
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)
