# SPDX-License-Identifier: Apache-2.0
"""Rules of operations that contract or move over axes: convolution, products, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from chipfit.graph.coupling_axes import Axes, Layers, merged
from chipfit.graph.coupling_rules import Flow, Unfollowed, pointwise, rule


@rule("convolution", "_convolution", "conv2d", "conv1d")
def convolution(
    flow: Flow, x: Axes, weight: Axes, bias: Axes | None, stride: Any, padding: Any,
    dilation: Any, transposed: bool = False, output_padding: Any = (), groups: int = 1, *_: Any,
) -> Axes:  # fmt: skip
    """Contract input channels with the weight's; output channels are the weight's.

    Groups stay, and every group keeps as many channels; a depthwise convolution unites inputs and
    outputs.
    """
    if len(x.shape) != len(weight.shape):
        raise Unfollowed
    flow.freeze(x, range(2, len(x.shape)), "convolves over it")
    flow.freeze(weight, range(2, len(weight.shape)), "convolves with it")
    made: Layers
    if groups == 1:
        flow.equal(x.layers[1], weight.layers[0 if transposed else 1])
        made = weight.layers[1 if transposed else 0]
    else:
        made = _grouped(flow, x, weight, groups, transposed)
    if bias is not None:
        flow.equal(made, bias.layers[0])
    return Axes(flow.shape(), [x.layers[0], made, *([] for _ in x.shape[2:])])


def _grouped(flow: Flow, x: Axes, weight: Axes, groups: int, transposed: bool) -> Layers:
    channels, made = x.shape[1], flow.shape()[1]
    outer, inner = weight.layers[:2]
    if channels == groups == made:
        flow.equal(x.layers[1], outer)
        return outer
    given = flow.reshape(Axes((channels,), [x.layers[1]]), (groups, channels // groups), "in")
    if transposed:
        own = flow.reshape(Axes((channels,), [outer]), (groups, channels // groups), "rows")
        flow.equal(given.layers[0], own.layers[0])
        flow.equal(given.layers[1], own.layers[1])
        result = [own.layers[0], inner]
    else:
        own = flow.reshape(Axes((made,), [outer]), (groups, made // groups), "rows")
        flow.equal(given.layers[0], own.layers[0])
        flow.equal(given.layers[1], inner)
        result = own.layers
    if channels > groups or transposed:
        flow.freeze(given, [0], "convolves in groups, which stay")
        flow.freeze(own, [0], "convolves in groups, which stay")
    else:  # several outputs of every input
        flow.freeze(own, [1], "makes several outputs of every input")
        flow.equal_side(x.layers[1], nn.Conv2d, "in", channels)
    flow.delicate = True
    return merged(result, (groups, made // groups))


@rule("mm", "bmm", "matmul", "dot", "mv")
def product(flow: Flow, a: Axes, b: Axes) -> Axes:
    """Contract the last axis of ``a`` with the last but one of ``b``; batch axes are united."""
    if len(b.shape) == 1:
        flow.equal(a.layers[-1], b.layers[0])
        return Axes(flow.shape(), list(a.layers[:-1]))
    flow.equal(a.layers[-1], b.layers[-2])
    layers: list[Layers] = [[] for _ in flow.shape()]
    layers[-1] = b.layers[-1]
    if len(a.shape) > 1:
        layers[-2] = a.layers[-2]
    for back in range(3, len(layers) + 1):
        wide = [
            x.layers[-back] for x in (a, b) if len(x.shape) >= back and x.shape[-back] > 1
        ]  # fmt: skip
        if len(wide) == 2:
            flow.equal(*wide)
        layers[-back] = next((own for own in wide if own), [])
    if len(flow.shape()) > 2:
        flow.delicate = True
    return Axes(flow.shape(), layers)


@rule("addmm", "baddbmm", "addbmm", "addmv")
def added_product(flow: Flow, c: Axes, a: Axes, b: Axes, **_: Any) -> Axes:
    """Add something to a product."""
    if flow.call.name == "addbmm":
        raise Unfollowed
    return pointwise(flow, product(flow, a, b), c)


@rule("linear", "mkldnn_linear")
def linear(flow: Flow, x: Axes, weight: Axes, bias: Axes | None = None, *_: Any) -> Axes:
    """Contract the last axis with the weight's."""
    flow.equal(x.layers[-1], weight.layers[1])
    if bias is not None:
        flow.equal(weight.layers[0], bias.layers[0])
    return Axes(flow.shape(), [*x.layers[:-1], weight.layers[0]])


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
)  # fmt: skip
def attention(flow: Flow, q: Axes, k: Axes, v: Axes, *rest: Any, **kwargs: Any) -> Axes:
    """Unite batch and heads; contract ``q`` with ``k``; the last axis is that of ``v``."""
    flow.delicate = True
    for axis in range(len(q.shape) - 2):
        flow.equal(q.layers[axis], k.layers[axis])
        flow.equal(q.layers[axis], v.layers[axis])
    flow.equal(q.layers[-1], k.layers[-1])
    flow.freeze(k, [-2], "relates its entries")
    flow.freeze(v, [-2], "relates its entries")
    masks = [x for x in (*rest, *kwargs.values()) if isinstance(x, Axes)]
    for mask in masks:
        flow.freeze(mask, [-1], "relates its entries")
        for back in range(2, len(mask.shape) + 1):
            if mask.shape[-back] > 1:
                flow.equal(q.layers[-back], mask.layers[-back])
    return Axes(flow.shape(), [*q.layers[:-1], v.layers[-1]])


@rule(
    "max_pool2d_with_indices", "avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "upsample_nearest1d", "avg_pool1d", "max_pool1d", "grid_sampler_2d", "mkldnn_max_pool2d",
    "max_pool2d", "adaptive_avg_pool1d", "grid_sampler",
)  # fmt: skip
def spatial(flow: Flow, x: Axes, *rest: Any, **_: Any) -> list[Axes]:
    """Move windows over space; batch and channels pass."""
    first = 1 if len(x.shape) == 3 and "1d" not in flow.call.name else 2
    if first == 1:  # without a batch
        flow.freeze(x, [1, 2], "moves windows over it")
    flow.freeze(x, range(2, len(x.shape)), "moves windows over it")
    for other in rest:
        if isinstance(other, Axes):
            flow.freeze(other, range(len(other.shape)), "samples by it")
    layers: Sequence[Layers] = x.layers[:first]
    return [
        Axes(flow.shape(i), [*layers, *([] for _ in flow.shape(i)[first:])])
        for i in range(len(flow.call.results))
    ]


@rule("glu")
def gated(flow: Flow, x: Axes, dim: int = -1) -> Axes:
    """Multiply one half of an axis with the other."""
    half = flow.shape()[dim]
    line = Axes((2 * half,), [x.layers[dim]])
    grid = flow.reshape(line, (2, half))
    flow.freeze(grid, [0], "gates one half by the other")
    layers = list(x.layers)
    layers[dim] = grid.layers[1]
    flow.delicate = True
    return Axes(flow.shape(), layers)
