# SPDX-License-Identifier: Apache-2.0
"""``KeepRatios``: a network with a trained share of channels that stays, for every group."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.channel_readers import channel_readers
from chipfit.graph.channels import ChannelGroup
from chipfit.supernet.keep_ratio import keep_probabilities, straight_through, top_mask

#: Logits at the start: 99.3 % of the channels stay.
START = 5.0


class KeepRatios(nn.Module):
    """A copy of a network with a mask of 0 and 1 over the channels of every group.

    Masks act on what the layers that read a channel are given (where no layer does, on what the
    layers that make it give), so that in evaluation mode the network computes what it computes
    after the masked channels were sliced away, unless a layer normalisation sees them.

    The masks keep the channels of highest salience, as many as the group's ratio says:
    ``least + (1 - least) sigmoid(logit)``.

    Args:
        net: The network; it is not changed.
        groups: Those that get a ratio.
        least: By group, the number of channels that stays in any case.

    Raises:
        BadInput: A group has no layer that a mask could act on.
    """

    def __init__(
        self, net: nn.Module, groups: Sequence[ChannelGroup], least: Sequence[int]
    ) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.groups = tuple(groups)
        channels = [g.channels for g in groups]
        self.register_buffer("channels", torch.tensor(channels, dtype=torch.float64))
        self.register_buffer("least", torch.tensor(least, dtype=torch.float64))
        self.logits = nn.Parameter(torch.full((len(channels),), START, dtype=torch.float64))
        #: Channels that stay for good, by group; empty while ratios are learnt.
        self.frozen: tuple[tuple[int, ...], ...] = ()
        for number, group in enumerate(self.groups):
            self.register_buffer(f"mask{number}", torch.ones(group.channels))
        self._masks = [self.get_buffer(f"mask{n}") for n in range(len(channels))]
        #: By module and side, which of its channels are which of a group's.
        self._places: dict[tuple[str, str], list[tuple[int, Tensor, Tensor]]] = {}
        for number, group in enumerate(self.groups):
            readers = channel_readers(self.net, group)
            if not readers:
                raise BadInput(f"no layer reads or makes the channels of group {group.name}")
            for member in readers:
                pairs = [(i, c) for c, owned in enumerate(member.index) for i in owned]
                place = (
                    number,
                    torch.tensor([i for i, _ in pairs]),
                    torch.tensor([c for _, c in pairs]),
                )
                self._places.setdefault((member.module, member.side), []).append(place)
        for name, side in self._places:
            module = self.net.get_submodule(name)
            if side == "in":
                module.register_forward_pre_hook(self._before(name))
            else:
                module.register_forward_hook(self._after(name))

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps, without the masked channels."""
        return self.net(x)

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the logits of the ratios, one tensor."""
        return [self.logits]

    def weights(self) -> list[nn.Parameter]:
        """Return all other parameters that are trained."""
        return [p for p in self.net.parameters() if p.requires_grad]

    def widths(self) -> Tensor:
        """Return how many channels of each group stay, ``(groups,)``; whole once frozen."""
        if self.frozen:
            return torch.tensor([len(kept) for kept in self.frozen], dtype=torch.float64)
        least = self.get_buffer("least")
        return least + (self.get_buffer("channels") - least) * torch.sigmoid(self.logits)

    def probabilities(self) -> list[Tensor]:
        """Return the widths: what costs are functions of."""
        return [self.widths()]

    def structure(self) -> dict[str, Any]:
        """Return the frozen channels as JSON."""
        return {"frozen": [list(kept) for kept in self.frozen]}

    def restructure(self, structure: Mapping[str, Any]) -> None:
        """Take back what :meth:`structure` returned."""
        self.frozen = tuple(tuple(int(i) for i in kept) for kept in structure["frozen"])

    def mask(self, salience: Sequence[Tensor], steepness: float) -> None:
        """Set the masks, with a gradient to the logits; nothing where they are frozen.

        Args:
            salience: By group, ``(channels,)``.
            steepness: As in :func:`~chipfit.supernet.keep_ratio.keep_probabilities`.
        """
        if self.frozen:
            return
        made = []
        for width, values in zip(self.widths(), salience, strict=True):
            count = round(float(width.detach()))
            p = keep_probabilities(width / len(values), values, steepness)
            made.append(straight_through(top_mask(values, count), p))
        self._set(made)

    def settle(self) -> None:
        """Forget the gradient of the masks."""
        self._set([mask.detach() for mask in self._masks])

    def freeze(self, kept: Sequence[Sequence[int]]) -> None:
        """Set the masks for good.

        Args:
            kept: By group, the channels that stay.
        """
        self.frozen = tuple(tuple(own) for own in kept)
        made = []
        for group, own in zip(self.groups, kept, strict=True):
            mask = torch.zeros(group.channels)
            mask[list(own)] = 1.0
            made.append(mask)
        self._set(made)

    def plain(self, like: nn.Module) -> nn.Module:
        """Return a copy of ``like``, the original network, with the weights of this one."""
        net = copy.deepcopy(like)
        net.load_state_dict(self.net.state_dict())
        return net

    def _set(self, masks: Sequence[Tensor]) -> None:
        for number, mask in enumerate(masks):
            buffer = self.get_buffer(f"mask{number}")
            buffer.copy_(mask.detach())
            self._masks[number] = mask.to(buffer.dtype) if mask.requires_grad else buffer

    def _factor(self, name: str, side: str, size: int) -> Tensor:
        """Return the factor of every channel of one side of a module, ``(size,)``."""
        masks = self._masks
        factor = torch.ones(size, dtype=masks[0].dtype, device=masks[0].device)
        for number, at, channels in self._places[name, side]:
            factor = factor.index_put((at,), masks[number][channels])
        return factor

    def _before(self, name: str) -> Callable[[nn.Module, Any], Any]:
        def silence(module: nn.Module, inputs: Any) -> Any:
            return (self._scaled(inputs[0], module, name, "in"), *inputs[1:])

        return silence

    def _after(self, name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def silence(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return self._scaled(output, module, name, "out")

        return silence

    def _scaled(self, x: Tensor, module: nn.Module, name: str, side: str) -> Tensor:
        axis = x.ndim - 1 if isinstance(module, nn.Linear) else 1
        factor = self._factor(name, side, x.shape[axis]).to(x.dtype)
        return x * factor.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
