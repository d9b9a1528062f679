# SPDX-License-Identifier: Apache-2.0
"""Which weights read a channel: where zeros take the channel out of the network."""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.graph.channels import ChannelGroup, Member

#: Names of the parameters of a reader that hold the channels, by its side.
READING = {"in": ("weight",), "out": ("weight", "bias")}

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def channel_readers(net: nn.Module, group: ChannelGroup) -> tuple[Member, ...]:
    """Return the members of a group whose zeroed weights silence its channels.

    They are the dense layers that read the channels (side ``"in"``). Depthwise convolutions and
    norms pass a channel on and are read in turn. Where no dense layer reads a group, as with
    queries and keys that are multiplied with each other, the layers that make it are returned
    (side ``"out"``): batch norms if there are any, else convolutions and linear layers.
    """
    modules = dict(net.named_modules())
    owned = [m for m in group.members if m.module in modules]
    readers = tuple(m for m in owned if m.side == "in" and _dense(modules[m.module]))
    if readers:
        return readers
    makers = [m for m in owned if m.side == "out"]
    norms = tuple(m for m in makers if isinstance(modules[m.module], _NORMS))
    return norms or tuple(m for m in makers if isinstance(modules[m.module], nn.Conv2d | nn.Linear))


def channel_axis(member: Member) -> int:
    """Return the axis of a reader's ``weight`` that its indices count along."""
    return 1 if member.side == "in" else 0


def reading_parameters(net: nn.Module, member: Member) -> dict[str, Tensor]:
    """Return a reader's parameters by name that hold the channels: ``weight``, and ``bias``.

    The bias belongs to them only where the reader makes the channels.
    """
    module = net.get_submodule(member.module)
    found = {name: getattr(module, name, None) for name in READING[member.side]}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
