# SPDX-License-Identifier: Apache-2.0
"""Channel groups: which channels of which modules can only be removed together.

The coupling comes from Torch-Pruning's dependency graph (Fang et al., DepGraph, CVPR 2023,
arXiv 2301.12900). A group that it, or the slicer, cannot handle is kept, frozen, with the reason;
a network that it cannot follow at all gives frozen groups only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chipfit.errors import ChipfitError
from chipfit.graph.pruning_library import torch_pruning

#: Modules whose channels the slicer can remove.
SLICEABLE = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.PReLU)

#: Comparisons that Torch-Pruning may make for one network, and channel indices it may follow
#: (DenseNet-121, a large case, takes 88 thousand and 164 thousand).
COMPARISONS, INDICES = 20_000_000, 5_000_000


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
        uncoupled: Why it is not known which channels go together, the same in all groups of a
            network; every group is then one layer, frozen. ``""`` where the coupling is known.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    frozen: str = ""
    uncoupled: str = ""

    @property
    def layers(self) -> list[str]:
        """Names of the modules in the group, in order, without repetition."""
        return list(dict.fromkeys(member.module for member in self.members))


def channel_groups(
    net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor], keep: Sequence[str] = ()
) -> list[ChannelGroup]:
    """Return the channel groups of ``net`` in the order of its modules.

    Where Torch-Pruning cannot follow the network (attention written by hand, some shuffles), each
    convolution and linear layer is a group of its own, frozen, and says why in ``uncoupled``.

    Args:
        net: The network; it is not changed.
        example: An input, ``(1, C, H, W)``, or a sequence of inputs.
        keep: Prefixes of module names whose widths the user wants left alone.

    Raises:
        BadInput: The network itself fails on the example.
    """
    try:
        return _coupled_groups(net, example, keep)
    except Exception as error:  # Torch-Pruning raises whatever its tracing meets
        if isinstance(error, ChipfitError):
            raise
        text = str(error).strip().splitlines()
        what = f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
        return uncoupled_groups(net, f"Torch-Pruning cannot couple the channels ({what})")


def uncoupled_groups(net: nn.Module, reason: str) -> list[ChannelGroup]:
    """Return one frozen group for each convolution and linear layer of ``net``."""
    layers = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [_alone(name, module, reason, reason) for name, module in layers]


def _alone(
    name: str, module: nn.Conv2d | nn.Linear, frozen: str, uncoupled: str = ""
) -> ChannelGroup:
    width = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
    index = tuple((i,) for i in range(width))
    return ChannelGroup(name, len(index), (Member(name, "out", index),), frozen, uncoupled)


def _coupled_groups(
    net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor], keep: Sequence[str]
) -> list[ChannelGroup]:
    tp = torch_pruning()
    clone = copy.deepcopy(net).cpu()
    for parameter in clone.parameters():
        parameter.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(clone, _host(example))
        with _limited_search():
            groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    names = {id(module): name for name, module in clone.named_modules()}
    names |= {id(parameter): name for name, parameter in clone.named_parameters()}
    axes = {id(entry.parameters): entry.pruning_dim for entry in graph.unwrapped_parameters}
    order = {name: i for i, name in enumerate(dict(clone.named_modules()))}
    modules = dict(clone.named_modules())
    found = [_group(group, names, axes, modules, keep) for group in groups]
    seen = {member.module for group in found for member in group.members if member.side == "out"}
    found += [
        _alone(name, module, f"Torch-Pruning does not see {name} in use")
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in seen
    ]
    found = [group for group in found if group.channels > 1]
    outputs = _output_layers(clone, example)
    found = [_freeze_outputs(group, outputs) for group in found]
    return sorted(found, key=lambda group: order[group.name])


@contextmanager
def _limited_search() -> Iterator[None]:
    """Stop Torch-Pruning where its search through splits and joins would not end in minutes.

    It compares each new dependency with all that a group holds, once per way that leads there,
    and the ways multiply with every split that is joined again.
    """
    from torch_pruning.dependency.group import Group

    original, comparisons, followed = Group.has_pruning_op, 0, 0

    def counted(group: Any, dependency: Any, indices: Any) -> Any:
        nonlocal comparisons, followed
        comparisons += len(group)
        followed += len(indices)
        if comparisons > COMPARISONS or followed > INDICES:
            raise RecursionError("its search through splits and joins does not end")
        return original(group, dependency, indices)

    Group.has_pruning_op = counted
    try:
        yield
    finally:
        Group.has_pruning_op = original


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


def _host(
    example: torch.Tensor | Sequence[torch.Tensor],
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    if isinstance(example, torch.Tensor):
        return example.cpu()
    return example[0].cpu() if len(example) == 1 else tuple(x.cpu() for x in example)


def _output_layers(net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> set[str]:
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
