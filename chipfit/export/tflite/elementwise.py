# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of two tensors, softmax and reductions."""

from __future__ import annotations

import numpy as np

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.convolution import fused
from chipfit.export.tflite.ir import Quant, TFTensor
from chipfit.export.tflite.layout import NHWC, Order, Value, identity
from chipfit.export.tflite.ranges import core_name
from chipfit.graph.workload import Node


def broadcast_order(ctx: Context, node: Node) -> Order:
    """Return the order of the largest operand, in which all operands are broadcast."""
    rank = len(node.op.output)
    live = [ctx.value(name) for name in node.inputs if name not in ctx.workload.constants]
    full = [value for value in live if len(value.order) == rank]
    if not full:
        return identity(rank)
    order: Order = max(full, key=lambda value: int(np.prod(value.tensor.shape))).order
    return order


@lowers("add", "sub", "mul", "div")
def _arithmetic(ctx: Context, node: Node) -> None:
    order = broadcast_order(ctx, node)
    kind = node.op.kind.upper()
    x = ctx.operand(node, 0, order)
    if kind == "DIV" and node.inputs[1] in ctx.workload.constants:
        kind = "MUL"
        divisor = ctx.constant_values(node.inputs[1])
        inverse = 1.0 / divisor.reshape((1,) * (len(order) - divisor.ndim) + divisor.shape)
        y = ctx.constant(f"{node.output}/inverse", inverse.transpose(order))
    else:
        if kind == "DIV":
            ctx.quants.require_divisor(node, node.inputs[1])
        y = ctx.operand(node, 1, order)
    core = core_name(node)
    shape = tuple(node.op.output[axis] for axis in order)
    out = ctx.tensor(core, shape, ctx.quant(core))
    ctx.emit(node, kind, [x, y], out, FusedActivationFunction=fused(node))
    ctx.define(node, out, order)


@lowers("softmax")
def _softmax(ctx: Context, node: Node) -> None:
    value, axis = ctx.value(node.inputs[0]), node.op["axis"]
    order = value.order
    if order[-1] != axis:
        order = (*(a for a in order if a != axis), axis)
    x = ctx.ordered(node, node.inputs[0], order)
    core = core_name(node)
    out = ctx.tensor(core, x.shape, ctx.quant(core))
    ctx.emit(node, "SOFTMAX", [x], out, Beta=1.0)
    ctx.define(node, out, order)


def reduced(
    ctx: Context,
    node: Node | str,
    kind: str,
    x: TFTensor,
    axes: tuple[int, ...],
    name: str,
    quant: Quant,
    keepdim: bool = True,
) -> TFTensor:
    """Write one ``MEAN`` or ``REDUCE_MAX`` over stored ``axes``."""
    kept = [1 if k in axes else d for k, d in enumerate(x.shape)]
    shape = kept if keepdim else [d for k, d in enumerate(x.shape) if k not in axes]
    out = ctx.tensor(name, shape, quant)
    where = ctx.integers(f"{out.name}/axes", axes)
    return ctx.emit(node, kind, [x, where], out, KeepDims=keepdim)


@lowers("mean", "amax")
def _reduce(ctx: Context, node: Node) -> None:
    op = node.op
    value = ctx.value(node.inputs[0])
    order, keepdim = value.order, bool(op["keepdim"])
    places = tuple(k for k, axis in enumerate(order) if axis in op["axes"])
    core, x = core_name(node), value.tensor
    quant = ctx.quant(core)
    kind = "MEAN" if op.kind == "mean" else "REDUCE_MAX"
    last = len(order) - 1
    if kind == "MEAN" and last in places and sum(d > 1 for d in x.shape[1:]) > 2:
        x, places, keepdim = _flatten_for_depth(ctx, node, x, places)
        result = reduced(ctx, node, kind, x, places, f"{node.output}:mean", quant, keepdim)
        kept = [1 if axis in op["axes"] else value.shape[axis] for axis in order]
        if not op["keepdim"]:
            kept = [d for axis, d in zip(order, kept, strict=True) if axis not in op["axes"]]
        out = ctx.reshape(node, result, kept, core)
    else:
        out = reduced(ctx, node, kind, x, places, core, quant, keepdim)
    if not op["keepdim"]:
        left = sorted(axis for axis in order if axis not in op["axes"])
        order = tuple(left.index(axis) for axis in order if axis in left)
    ctx.define(node, out, order)


def _flatten_for_depth(
    ctx: Context, node: Node, x: TFTensor, places: tuple[int, ...]
) -> tuple[TFTensor, tuple[int, ...], bool]:
    """Return ``x`` as ``(N, rest, depth)``: accelerators average over depth in that form only."""
    inner = tuple(k for k in places if k != len(x.shape) - 1)
    if inner:
        name = f"{node.output}:inner"
        quant = ctx.quant(name) if ctx.value(node.inputs[0]).order == NHWC else x.quant
        assert quant is not None
        x = reduced(ctx, node, "MEAN", x, inner, name, quant)
    rest = int(np.prod(x.shape[1:-1]))
    flat = ctx.reshape(node, x, (x.shape[0], rest, x.shape[-1]), f"{node.output}:flat")
    return flat, (2,), True


def alias(ctx: Context, node: Node, value: Value) -> None:
    """Bind the output of ``node`` to a value that exists, or apply its activation to it."""
    if node.op.activation != "none":
        ctx.define(node, value.tensor, value.order)
    else:
        ctx.values[node.output] = value
