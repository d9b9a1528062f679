# SPDX-License-Identifier: Apache-2.0
"""How much the loss depends on each channel of a group, higher is more important.

Humble et al., "Soft Masking for Cost-Constrained Channel Pruning", ECCV 2022, arXiv 2211.02206,
judge a channel by the weights that read it, summed over all layers that do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.channel_readers import (
    READING,
    channel_axis,
    channel_readers,
    reading_parameters,
)
from chipfit.graph.channels import ChannelGroup, Member

B = TypeVar("B")


def taylor_importance(
    net: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Iterable[B],
    loss: Callable[[nn.Module, B], Tensor],
) -> dict[str, Tensor]:
    """Return the first-order Taylor importance of every channel, averaged over batches.

    ``I_g(j) = | sum_l sum_o sum_hw -w dL/dw |`` over all layers ``l`` that read channel ``j`` of
    group ``g``, which is how much the loss changes, to first order, where the channel becomes
    zero: importances of different groups are in one unit, that of the loss, and add up.
    Weights, gradients and mode of the network are left as they were; it is looked at in evaluation
    mode.

    Args:
        net: The network.
        groups: Its channel groups; frozen ones may be among them.
        batches: What ``loss`` takes, for instance ``task.train_batches(...)``.
        loss: Of the network on a batch, a scalar, for instance ``task.loss``.

    Returns:
        By group name, ``(channels,)`` in double precision, zero or more.

    Raises:
        BadInput: There is no batch, or no layer to judge a group by.
    """
    readers = {group.name: _judges(net, group) for group in groups}
    used = {
        (member.module, name): value
        for members in readers.values()
        for member in members
        for name, value in reading_parameters(net, member).items()
    }
    totals = {group.name: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    modes = {module: module.training for module in net.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in used.values()}
    count = 0
    net.eval()
    try:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for batch in batches:
            count += 1
            with torch.enable_grad():
                found = torch.autograd.grad(
                    loss(net, batch), list(used.values()), allow_unused=True
                )
            gradients = dict(zip(used, found, strict=True))
            for name, members in readers.items():
                totals[name] += taylor_sums(members, used, gradients).abs()
    finally:
        for parameter, before in wanted.items():
            parameter.requires_grad_(before)
        for module, mode in modes.items():
            module.training = mode
    if not count:
        raise BadInput("importance of channels needs at least one batch")
    return {name: total / count for name, total in totals.items()}


def taylor_sums(
    members: Sequence[Member],
    weights: Mapping[tuple[str, str], Tensor],
    gradients: Mapping[tuple[str, str], Tensor | None],
) -> Tensor:
    """Return ``sum -w dL/dw`` of every channel of one group for given gradients.

    To first order it is what a channel at work takes off the loss, and what a channel that is
    masked would take off it by coming back.

    Args:
        members: The group's readers (:func:`chipfit.graph.channel_readers.channel_readers`).
        weights: Their parameters by module and name.
        gradients: Of the same; absent ones and ``None`` count as zero.

    Returns:
        ``(channels,)`` in double precision.
    """

    def products(member: Member) -> Tensor:
        total: Tensor | float = 0.0
        for name in READING[member.side]:
            weight = weights.get((member.module, name))
            gradient = gradients.get((member.module, name))
            if weight is None:
                continue
            change = torch.zeros_like(weight) if gradient is None else gradient
            part = -(weight.detach().double() * change.double())
            total = total + along(part, channel_axis(member))
        return torch.as_tensor(total)

    return per_channel(members, products)


def magnitude_importance(net: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """Return ``sum |w|`` over all weights that read each channel; needs no data.

    Args:
        net: The network.
        groups: Its channel groups.

    Returns:
        By group name, ``(channels,)`` in double precision.

    Raises:
        BadInput: There is no layer to judge a group by.
    """

    def magnitudes(member: Member) -> Tensor:
        weight = reading_parameters(net, member)["weight"]
        return along(weight.detach().double().abs(), channel_axis(member))

    return {group.name: per_channel(_judges(net, group), magnitudes) for group in groups}


def per_channel(members: Sequence[Member], figures: Callable[[Member], Tensor]) -> Tensor:
    """Return the sum over members of what each channel owns in them.

    Args:
        members: Of one group.
        figures: Of a member, one number for every index of its side.

    Returns:
        ``(channels,)``.
    """
    total: Tensor | float = 0.0
    for member in members:
        found = figures(member)
        total = total + found[torch.tensor(member.index, device=found.device)].sum(1).cpu()
    return torch.as_tensor(total)


def keep_most_important(
    importance: Tensor, width: int, among: Iterable[int] | None = None
) -> tuple[int, ...]:
    """Return the ``width`` channels of highest importance, ascending; ties keep the lower index.

    Args:
        importance: ``(channels,)``.
        width: How many stay.
        among: Channels to choose from; all where ``None``.

    Raises:
        BadInput: There are not so many channels, or ``width`` is not positive.
    """
    values = importance.tolist()
    choice = range(len(values)) if among is None else among
    order = sorted(choice, key=lambda channel: (-values[channel], channel))
    if not 1 <= width <= len(order):
        raise BadInput(f"cannot keep {width} of {len(order)} channels")
    return tuple(sorted(order[:width]))


def _judges(net: nn.Module, group: ChannelGroup) -> tuple[Member, ...]:
    found = channel_readers(net, group)
    if not found:
        raise BadInput(f"no layer reads or makes the channels of group {group.name}")
    return found


def along(values: Tensor, axis: int) -> Tensor:
    """Return the sums of ``values`` over all axes but one, ``(size of axis,)``."""
    others = [i for i in range(values.dim()) if i != axis]
    return values.sum(others) if others else values
