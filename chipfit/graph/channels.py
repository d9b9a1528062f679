# SPDX-License-Identifier: Apache-2.0
"""Channel groups: which channels of which modules can only be removed together.

The coupling comes from Torch-Pruning's dependency graph (Fang et al., DepGraph, CVPR 2023,
arXiv 2301.12900). A group that it, or the slicer, cannot handle is kept, frozen, with the reason.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from chipfit.errors import BadInput

#: Modules whose channels the slicer can remove.
SLICEABLE = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Member:
    """The part of one module that belongs to a channel group.

    Args:
        module: Dotted name of the module, or of a bare parameter.
        side: ``"out"``, ``"in"``, or ``"param:AXIS"`` for a bare parameter.
        index: For every channel of the group, the indices it owns on that side.
    """

    module: str
    side: str
    index: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are removed together.

    Args:
        name: Dotted name of the first layer that makes the group's channels.
        channels: Number of channels.
        members: What each channel owns in every module of the group.
        frozen: Why the width cannot change; ``""`` where it can.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    frozen: str = ""

    @property
    def layers(self) -> list[str]:
        """Names of the modules in the group, in order, without repetition."""
        return list(dict.fromkeys(member.module for member in self.members))


def channel_groups(
    net: nn.Module, example: torch.Tensor, keep: Sequence[str] = ()
) -> list[ChannelGroup]:
    """Return the channel groups of ``net`` in the order of its modules.

    Args:
        net: The network; it is not changed.
        example: An input, ``(1, C, H, W)``.
        keep: Prefixes of module names whose widths the user wants left alone.

    Raises:
        BadInput: Torch-Pruning cannot trace the network at all; the message says why.
    """
    import torch_pruning as tp

    clone = copy.deepcopy(net).cpu()
    for parameter in clone.parameters():
        parameter.requires_grad_(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(clone, example.cpu())
            groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    except Exception as error:  # Torch-Pruning raises whatever its tracing meets
        raise BadInput(
            f"the channels of {type(net).__name__} cannot be coupled: "
            f"{type(error).__name__}: {error}",
            "Torch-Pruning traces through autograd; in-place edits and detached tensors break it",
        ) from error
    names = {id(module): name for name, module in clone.named_modules()}
    names |= {id(parameter): name for name, parameter in clone.named_parameters()}
    axes = {id(entry.parameters): entry.pruning_dim for entry in graph.unwrapped_parameters}
    order = {name: i for i, name in enumerate(dict(clone.named_modules()))}
    modules = dict(clone.named_modules())
    found = [_group(group, names, axes, modules, keep) for group in groups]
    found = [group for group in found if group.channels > 1]
    outputs = _output_layers(clone, example)
    found = [_freeze_outputs(group, outputs) for group in found]
    return sorted(found, key=lambda group: order[group.name])


def _group(
    group: object, names: dict[int, str], axes: dict[int, int], modules: dict[str, nn.Module],
    keep: Sequence[str],
) -> ChannelGroup:  # fmt: skip
    items = list(group)  # type: ignore[call-overload]
    root = items[0][0].target.module
    channels = int(root.out_channels if isinstance(root, nn.Conv2d) else root.out_features)
    members: dict[tuple[str, str], list[list[int]]] = {}
    frozen = ""
    for item in items:
        dependency, indices = item[0], item[1]
        module = dependency.target.module
        if id(module) not in names:
            continue  # an operation of Torch-Pruning's own, without parameters
        name = names[id(module)]
        handler = dependency.handler.__name__
        if isinstance(module, nn.Parameter):
            side = f"param:{axes.get(id(module), 0)}"
        else:
            side = "in" if handler.startswith("prune_in") else "out"
            if not isinstance(module, SLICEABLE):
                frozen = frozen or f"{name} is a {type(module).__name__}"
            elif isinstance(module, nn.Conv2d) and 1 < module.groups < module.in_channels:
                frozen = frozen or f"{name} is a grouped convolution"
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(tuple(keep) or ("\0",)):
            frozen = frozen or f"{name} is to be kept"
        owned = members.setdefault((name, side), [[] for _ in range(channels)])
        for index, root_index in zip(indices, item.root_idxs, strict=True):
            if int(index) not in owned[int(root_index)]:
                owned[int(root_index)].append(int(index))
    parts = tuple(
        Member(name, side, tuple(tuple(sorted(own)) for own in owned))
        for (name, side), owned in members.items()
    )
    if any(len({len(own) for own in part.index}) != 1 for part in parts):
        frozen = frozen or "its channels are coupled unevenly"
    makers = [
        m.module for m in parts
        if m.side == "out" and isinstance(modules[m.module], nn.Conv2d | nn.Linear)
    ]  # fmt: skip
    order = list(modules)
    return ChannelGroup(min(makers, key=order.index), channels, parts, frozen)


def _output_layers(net: nn.Module, example: torch.Tensor) -> set[str]:
    """Names of the modules whose channels leave the network."""
    from chipfit.graph.capture import trace

    workload = trace(net, example)
    found: set[str] = set()
    pending = list(workload.outputs)
    while pending:
        position = workload.producer.get(pending.pop())
        if position is None:
            continue
        node = workload.nodes[position]
        if node.module:
            found.add(node.module)
        if node.op.kind not in ("conv2d", "linear") or node.op.depthwise:
            pending += [name for name in node.inputs if name not in workload.constants]
    return found


def _freeze_outputs(group: ChannelGroup, outputs: set[str]) -> ChannelGroup:
    leaving = [m.module for m in group.members if m.side == "out" and m.module in outputs]
    if not leaving or group.frozen:
        return group
    reason = f"{leaving[0]} makes the output of the network"
    return ChannelGroup(group.name, group.channels, group.members, reason)
