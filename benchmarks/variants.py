# SPDX-License-Identifier: Apache-2.0
"""Width variants of a network as workloads, to ask a cost table about."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from chipfit.flow.network import load_network
from chipfit.graph.capture import trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.space import width_space


def named_network(text: str) -> tuple[str, tuple[int, ...] | None]:
    """Read ``NAME`` or ``NAME@1x3x96x96`` as a name and an input shape.

    >>> named_network("mobilenet_v2@1x3x96x96")
    ('mobilenet_v2', (1, 3, 96, 96))
    """
    name, at, shape = text.partition("@")
    return name, tuple(int(size) for size in shape.split("x")) if at else None


def width_variants(text: str, alignment: int, count: int, first_seed: int = 0) -> list[Workload]:
    """Return ``count`` networks whose widths are drawn independently and uniformly.

    Args:
        text: As :func:`named_network` reads it.
        alignment: Widths are multiples of it.
        count: Number of networks.
        first_seed: Of the first draw; each further one takes the next.
    """
    name, shape = named_network(text)
    loaded = load_network(name, input_shape=shape)
    net: nn.Module = loaded.net
    groups = channel_groups(net, loaded.example())
    space, sizes = width_space(groups, alignment), side_sizes(net)
    found = []
    for seed in range(first_seed, first_seed + count):
        kept = {group: range(width) for group, width in space.sample(seed).items()}
        narrow = slice_channels(net, edits_for(groups, kept, sizes))
        found.append(trace(narrow, loaded.example()))
    return found


def unseen(workload: Workload) -> Workload:
    """Return an equal workload of new objects, which share nothing that was computed before."""
    nodes = tuple(replace(node, op=Op.from_json(node.op.to_json())) for node in workload.nodes)
    return replace(workload, nodes=nodes)
