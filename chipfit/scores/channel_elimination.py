# SPDX-License-Identifier: Apache-2.0
"""Which channels to remove first, and what is lost where the others make up for them.

A structured Optimal Brain Surgeon (Hassibi, Stork and Wolff, ICNN 1993): with ``H`` the inverse of
the second moments of what a layer reads, removing the inputs ``c`` costs
``tr(W_c (H_cc)^-1 W_c^T)`` of its squared outputs, and the rest makes up by
``W - W_c (H_cc)^-1 H_c``. Ours: summed over all layers that read a channel, each relative to its
outputs, so that groups can be compared; one channel after the other, until one is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.channel_readers import channel_axis, channel_readers, reading_parameters
from chipfit.graph.channels import ChannelGroup, Member
from chipfit.graph.coupling_trace import evaluating
from chipfit.graph.layer_columns import (
    LARGEST,
    Layer,
    input_columns_at,
    is_matrix_layer,
    matrix_of,
    sample_places,
)
from chipfit.scores.channel_importance import along, per_channel

#: Added to the second moments, as a share of their mean, so that they can be inverted.
DAMPING = 1e-4


@dataclass(frozen=True)
class Elimination:
    """The order in which channels of a group go.

    Args:
        order: Channels, the first to go first.
        lost: What is lost after each removal, rising from 0: squared outputs of the group's
            readers that the channels left cannot make, relative to all of them, summed over the
            readers. One more than removals; the last channel is never removed.
    """

    order: tuple[int, ...]
    lost: tuple[float, ...]

    def kept(self, width: int) -> tuple[int, ...]:
        """Return the channels that stay at a width, ascending."""
        return tuple(sorted(self.order[len(self.order) - width :]))

    def lost_at(self, width: int) -> float:
        """Return what is lost at a width."""
        return self.lost[len(self.order) - width]


def input_moments(
    net: nn.Module, layers: Iterable[str], batches: Iterable[Tensor], samples: int = 32768
) -> dict[str, Tensor]:
    """Return the covariance of what layers read, ``(K, K)`` in double precision.

    Args:
        net: Looked at in evaluation mode; left as it was.
        layers: Names; those that are no plain convolution or linear layer, are grouped, or read
            more than :data:`LARGEST` values, are left out.
        batches: Inputs.
        samples: Most output positions of a batch.

    Raises:
        BadInput: There is no batch.
    """
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    used = 0
    with torch.no_grad(), evaluating(net), ExitStack() as stack:
        for name in layers:
            module = net.get_submodule(name)
            if not is_matrix_layer(module) or not _small(module):
                continue

            def look(
                module: nn.Module, args: tuple[Tensor, ...], result: Tensor, name: str = name
            ) -> None:
                width = result.shape[-1 if isinstance(module, nn.Linear) else 1]
                places = sample_places(result.numel() // width, samples, 0)
                x = input_columns_at(module, args[0], places)[0]  # type: ignore[arg-type]
                before = sums.get(name, (0.0, 0.0, 0))
                total, square = x.sum(1).double(), (x @ x.T).double()
                sums[name] = square + before[0], total + before[1], x.shape[1] + before[2]

            stack.callback(module.register_forward_hook(look).remove)
        for batch in batches:
            used += 1
            net(batch)
    if not used:
        raise BadInput("moments of what layers read need at least one batch")
    return {
        name: square / count - torch.outer(total / count, total / count)
        for name, (square, total, count) in sums.items()
    }


def eliminate(net: nn.Module, group: ChannelGroup, moments: Mapping[str, Tensor]) -> Elimination:
    """Return the order in which the channels of a group go, and what is lost on the way.

    Readers without moments, and groups that are read by no dense layer, are judged by the squared
    weights that go.

    Args:
        net: The trained network.
        group: The group; it may be frozen.
        moments: Of its readers (:func:`input_moments`).

    Raises:
        BadInput: There is no layer to judge the group by.
    """
    readers = channel_readers(net, group)
    if not readers:
        raise BadInput(f"no layer reads or makes the channels of group {group.name}")
    known = [_Reader(net, r, moments[r.module]) for r in readers if _known(r, moments)]
    plain = torch.zeros(group.channels, dtype=torch.float64)
    for reader in readers:
        if not _known(reader, moments):
            plain += _weight_shares(net, reader)
    left = list(range(group.channels))
    order, lost = [], [0.0]
    while len(left) > 1:
        places = torch.tensor(left)
        costs = plain[places] + sum((judge.costs(places) for judge in known), torch.zeros(()))
        best = int(costs.argmin())
        lost.append(lost[-1] + float(costs[best]))
        order.append(left.pop(best))
        for judge in known:
            judge.remove(order[-1])
    return Elimination((*order, *left), tuple(lost))


class _Reader:
    """Weights of one dense layer while inputs go, and the inverse moments of those left."""

    def __init__(self, net: nn.Module, member: Member, moments: Tensor) -> None:
        module = net.get_submodule(member.module)
        assert isinstance(module, Layer)  # only such have moments
        self.weight = matrix_of(module)[0].detach().double().clone()
        area = self.weight.shape[1] // module.weight.shape[1]
        rows = torch.tensor(member.index) * area
        #: ``(channels, inputs of a channel)``
        self.rows = (rows[:, :, None] + torch.arange(area)).flatten(1)
        mean = moments.diagonal().mean()
        own = moments + (DAMPING * mean + (mean == 0)) * torch.eye(len(moments)).double()
        self.inverse = torch.linalg.inv(own)
        self.whole = ((self.weight @ own) * self.weight).sum().clamp(min=1e-300)

    def costs(self, channels: Tensor) -> Tensor:
        """Return what each channel's removal costs, relative to the layer's squared outputs."""
        rows = self.rows[channels]
        weight = self.weight[:, rows].transpose(0, 1)  # (channels, outputs, inputs of a channel)
        blocks = torch.linalg.inv(self.inverse[rows[:, :, None], rows[:, None, :]])
        return ((weight @ blocks) * weight).sum((1, 2)) / self.whole

    def remove(self, channel: int) -> None:
        """Take a channel out, and let the others make up for it."""
        rows = self.rows[channel]
        step = torch.linalg.solve(self.inverse[rows][:, rows], self.inverse[rows])
        self.weight -= self.weight[:, rows] @ step
        self.inverse -= self.inverse[:, rows] @ step


def _known(member: Member, moments: Mapping[str, Tensor]) -> bool:
    return member.side == "in" and member.module in moments


def _weight_shares(net: nn.Module, member: Member) -> Tensor:
    """Return each channel's share of a layer's squared weights."""
    weight = reading_parameters(net, member)["weight"].detach().double().square()
    own = per_channel([member], lambda m: along(weight, channel_axis(m)))
    return own / weight.sum().clamp(min=1e-300)


def readers_of(net: nn.Module, groups: Sequence[ChannelGroup]) -> list[str]:
    """Return the names of all layers that read the groups, each once."""
    found = [r.module for g in groups for r in channel_readers(net, g) if r.side == "in"]
    return list(dict.fromkeys(found))


def _small(module: nn.Module) -> bool:
    matrix = matrix_of(module)  # type: ignore[arg-type]
    return len(matrix) == 1 and matrix.shape[2] <= LARGEST
