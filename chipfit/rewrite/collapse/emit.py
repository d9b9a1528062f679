# SPDX-License-Identifier: Apache-2.0
"""Put one layer in the place of a region."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from chipfit.rewrite.collapse.affine import Affine
from chipfit.rewrite.collapse.border import Border
from chipfit.rewrite.collapse.region import Region

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PADS: dict[int, type[nn.Module]] = {1: nn.ZeroPad1d, 2: nn.ZeroPad2d, 3: nn.ZeroPad3d}


def layers_of(affine: Affine) -> list[tuple[str, nn.Module]]:
    """Return the layers that compute ``affine``, each with a suffix for its name.

    A convolution pads by itself where the zeros before and behind are as many.
    """
    if affine.is_identity():
        return []
    axes = len(affine.stride)
    layers: list[tuple[str, nn.Module]] = []
    inner = affine.before if affine.before == affine.after else (0,) * axes
    if affine.before != affine.after or affine.is_padding():
        sides = [
            side for pair in zip(affine.before[::-1], affine.after[::-1], strict=True)
            for side in pair
        ]  # fmt: skip
        layers.append(("_pad", _PADS[axes](tuple(sides))))
        if affine.is_padding():
            return layers
    has_bias = affine.has_bias or bool(affine.bias.any())
    main: Any
    with torch.device("meta"):
        if axes:
            main = _CONVOLUTIONS[axes](
                affine.in_channels, affine.out_channels, affine.kernel, affine.stride, inner,
                affine.dilation, affine.groups, bias=True,
            )  # fmt: skip
        else:
            main = nn.Linear(affine.in_channels, affine.out_channels)
    main.weight = nn.Parameter(affine.weight.clone())
    main.bias = nn.Parameter(affine.bias.clone()) if has_bias else None
    layers.append(("", main))
    if affine.offset is not None:
        layers.append(("_border", Border(affine.offset.clone())))
    return layers


def replace(module: fx.GraphModule, region: Region, affine: Affine) -> str:
    """Replace ``region`` of ``module`` by the layers of ``affine``; return the layer's name.

    The layer takes the name of the region's convolution of the same kernel, or of its last one, so
    that parameters of other layers keep their names.
    """
    last, graph = region.nodes[-1], module.graph
    name = _name(module, region, affine)
    result, shape, real = region.source, last.meta["shape"], last.meta["type"]
    for suffix, layer in layers_of(affine):
        layer.to(**real).train(module.training)
        module.add_submodule(name + suffix, layer)
        with graph.inserting_before(last):
            result = graph.call_module(name + suffix, (result,))
        result.meta["type"] = real
        result.meta["shape"] = shape
        if suffix == "_pad":
            result.meta["shape"] = _padded(region.source.meta["shape"], affine)
    last.replace_all_uses_with(result)
    for node in reversed(region.nodes):
        graph.erase_node(node)
    return name


def _padded(shape: tuple[int, ...], affine: Affine) -> tuple[int, ...]:
    sides = zip(shape[2:], affine.before, affine.after, strict=True)
    return (*shape[:2], *(size + before + after for size, before, after in sides))


def _name(module: fx.GraphModule, region: Region, affine: Affine) -> str:
    """Return the name of a module of the region that nobody else calls, else a new name."""
    calls = [n for n in region.nodes if n.op == "call_module"]
    elsewhere = {
        str(node.target) for node in module.graph.nodes
        if node.op in ("call_module", "get_attr") and node not in region.lifts
    }  # fmt: skip
    free = [n for n in calls if str(n.target) not in elsewhere]
    heavy = [n for n in free if region.lifts[n].kind in ("conv", "linear")]
    same = [n for n in heavy if (one := region.lifts[n].affine) and one.kernel == affine.kernel]
    pools = [n for n in free if region.lifts[n].kind == "pool"]
    for choice in (same, heavy[-1:], pools, free[-1:]):
        if choice:
            return str(choice[0].target)
    stem, number = str(region.nodes[-1].name), 0
    taken = {name for name, _ in module.named_modules()} | elsewhere
    name = f"{stem}_collapsed"
    while name in taken or hasattr(module, name):
        number += 1
        name = f"{stem}_collapsed_{number}"
    return name
