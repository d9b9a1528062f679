# SPDX-License-Identifier: Apache-2.0
"""``ChannelGates``: a network with a trained factor on every channel that could go.

Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
arXiv 1708.06519, penalise the scales of batch norms; Xue, Qi and Xin (RARTS, arXiv 2008.03901) let
such factors be the architecture parameters. Here each channel group has factors of its own, which
act wherever the group's channels are made, so that a factor of 0 is a channel that is not there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.channels import ChannelGroup

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class ChannelGates(nn.Module):
    """A copy of a network with one gate per channel of every group, 1 at first.

    Gates multiply what batch norms of the group write; where it has none, what its convolutions and
    linear layers write. Scales of gated batch norms are not trained: the gates are.

    Args:
        net: The network; it is not changed.
        groups: Those that get gates.

    Raises:
        BadInput: A group has no layer that could be gated.
    """

    def __init__(self, net: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.groups = tuple(groups)
        like = next(self.net.parameters())
        # Names of groups hold dots, which parameters must not.
        self.gates = nn.ParameterList(
            nn.Parameter(torch.ones(g.channels, device=like.device, dtype=like.dtype))
            for g in groups
        )
        #: By module, which entries of its output which group's channels are.
        self._places: dict[str, list[tuple[int, list[int], list[int]]]] = {}
        for number, group in enumerate(self.groups):
            for name, index in _gated_members(self.net, group):
                own = [(i, c) for c, owned in enumerate(index) for i in owned]
                place = (number, [i for i, _ in own], [c for _, c in own])
                self._places.setdefault(name, []).append(place)
        for name in self._places:
            module = self.net.get_submodule(name)
            if isinstance(module, _NORMS) and module.affine:
                module.weight.requires_grad_(False)
            module.register_forward_hook(self._gating(name))

    def forward(self, x: Tensor) -> Tensor:
        """Map what the network maps, with gated channels."""
        return self.net(x)

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return the gates of all groups."""
        return list(self.gates)

    def weights(self) -> list[nn.Parameter]:
        """Return all other parameters that are trained."""
        return [p for p in self.net.parameters() if p.requires_grad]

    def probabilities(self) -> list[Tensor]:
        """Return nothing: gates are no probabilities."""
        return []

    def structure(self) -> dict[str, Any]:
        """Return nothing: no group goes before the end."""
        return {}

    def restructure(self, structure: Mapping[str, Any]) -> None:
        """Do nothing, as :meth:`structure` says."""

    @torch.no_grad()
    def shrink(self, thresholds: Sequence[float]) -> None:
        """Take a proximal step of the l1 penalty: every gate that much nearer to 0, not past it.

        Args:
            thresholds: By group, the penalty's factor times the step size.
        """
        for gate, threshold in zip(self.gates, thresholds, strict=True):
            gate.copy_(gate.sign() * (gate.abs() - threshold).clamp_min(0.0))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Return the network with the gates multiplied into its layers, without hooks."""
        net = copy.deepcopy(self.net)
        for name in self._places:
            module = net.get_submodule(name)
            module._forward_hooks.clear()
            factor = self._factor(name, module)
            weight, bias = module.weight, module.bias
            if isinstance(weight, Tensor):
                weight.mul_(factor.reshape(-1, *[1] * (weight.ndim - 1)))
                weight.requires_grad_(True)
            if isinstance(bias, Tensor):
                bias.mul_(factor)
        return net

    def _factor(self, name: str, module: nn.Module) -> Tensor:
        """Return the factor of every entry of a module's output, ``(channels,)``."""
        size = _width(module)
        factor = torch.ones(size, device=self.gates[0].device, dtype=self.gates[0].dtype)
        for number, at, channels in self._places[name]:
            factor = factor.index_put((torch.tensor(at),), self.gates[number][channels])
        return factor

    def _gating(self, name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def gate(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            factor = self._factor(name, module)
            shape = (1, -1, 1, 1) if output.ndim == 4 else (-1,)
            return output * factor.reshape(shape)

        return gate


def _width(module: nn.Module) -> int:
    for attribute in ("num_features", "out_channels", "out_features"):
        if hasattr(module, attribute):
            return int(getattr(module, attribute))
    raise BadInput(f"{type(module).__name__} has no channels to gate")


def _gated_members(
    net: nn.Module, group: ChannelGroup
) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    """Return the modules of a group that its gates act on, with the entries of each channel."""
    members = [m for m in group.members if m.side == "out"]
    for kinds in (_NORMS, (nn.Conv2d, nn.Linear)):
        found = [
            (m.module, m.index) for m in members if isinstance(net.get_submodule(m.module), kinds)
        ]
        if found:
            return found
    raise BadInput(f"channel group {group.name} has no layer that gates could act on")
