# SPDX-License-Identifier: Apache-2.0
"""Operators that move or select values: concat, slice, pad, permute, reshape, shuffles."""

from __future__ import annotations

import math

import numpy as np

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.elementwise import alias
from chipfit.export.tflite.ir import TFTensor, quantise
from chipfit.export.tflite.layout import NHWC, Value, identity, reshaped_orders, stored
from chipfit.export.tflite.ranges import core_name
from chipfit.graph.workload import Node


@lowers("concat")
def _concat(ctx: Context, node: Node) -> None:
    live = [name for name in node.inputs if name not in ctx.workload.constants]
    order = ctx.value(live[0]).order if live else identity(len(node.op.output))
    core = core_name(node)
    quant = ctx.quant(core)
    parts = []
    for i, name in enumerate(node.inputs):
        part = ctx.operand(node, i, order, quant)
        if name in live:
            part = ctx.requantise(node, part, quant, f"{node.output}:input{i}")
        parts.append(part)
    out = ctx.tensor(core, stored(node.op.output, order), quant)
    axis = order.index(node.op["axis"])
    ctx.emit(node, "CONCATENATION", parts, out, Axis=axis, FusedActivationFunction=0)
    ctx.define(node, out, order)


@lowers("slice")
def _slice(ctx: Context, node: Node) -> None:
    op, value = node.op, ctx.value(node.inputs[0])
    rank, place = len(value.order), value.order.index(op["axis"])
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    begin[place], end[place], stride[place] = op["start"], op["end"], op["step"]
    # Masked axes are taken whole, whatever their size.
    mask = (1 << rank) - 1 - (1 << place)
    core = core_name(node)
    out = ctx.tensor(core, stored(op.output, value.order), ctx.quant(core))
    numbers = [
        ctx.integers(f"{node.output}/{role}", numbers)
        for role, numbers in (("begin", begin), ("end", end), ("stride", stride))
    ]
    ctx.emit(
        node, "STRIDED_SLICE", [value.tensor, *numbers], out, BeginMask=mask, EndMask=mask,
    )  # fmt: skip
    ctx.define(node, out, value.order)


@lowers("pad")
def _pad(ctx: Context, node: Node) -> None:
    op, value = node.op, ctx.value(node.inputs[0])
    core = core_name(node)
    quant = ctx.quant(core)
    out = ctx.tensor(core, stored(op.output, value.order), quant)
    amounts = ctx.integers(f"{node.output}/padding", [op["padding"][a] for a in value.order])
    if op["value"] == 0:
        ctx.emit(node, "PAD", [value.tensor, amounts], out)
    else:
        low, high = -128, 127
        code = quantise(np.array([op["value"]]), quant) if math.isfinite(op["value"]) else np.array(
            [low if op["value"] < 0 else high], np.int8
        )  # fmt: skip
        fill = TFTensor(ctx.fresh(f"{node.output}/fill"), (1,), quant, code)
        ctx.emit(node, "PADV2", [value.tensor, amounts, fill], out)
    ctx.define(node, out, value.order)


@lowers("permute")
def _permute(ctx: Context, node: Node) -> None:
    value, dims = ctx.value(node.inputs[0]), node.op["dims"]
    order = tuple(dims.index(axis) for axis in value.order)
    alias(ctx, node, Value(value.tensor, order, owner=node.name))


@lowers("reshape")
def _reshape(ctx: Context, node: Node) -> None:
    name, after = node.inputs[0], node.op.output
    value, core = ctx.value(name), core_name(node)
    before = value.shape
    source, target = reshaped_orders(before, after, value.order)
    if source != value.order and value.order == NHWC and len(after) == 2 and core == node.output:
        readers = ctx.readers(node.output)
        if readers and all(reader.op.kind == "linear" for reader in readers):
            # Linear layers take the columns as they lie instead of moving the image.
            index = np.arange(math.prod(after[1:])).reshape(before[1:]).transpose(1, 2, 0)
            tensor = ctx.reshape(node, value.tensor, after, core)
            columns = tuple(int(i) for i in index.ravel())
            ctx.values[node.output] = Value(tensor, identity(2), columns=columns)
            return
    x = ctx.ordered(node, name, source)
    ctx.define(node, ctx.reshape(node, x, stored(after, target), core), target)


@lowers("pixel_shuffle")
def _pixel_shuffle(ctx: Context, node: Node) -> None:
    r, name = node.op["factor"], node.inputs[0]
    x = ctx.ordered(node, name, NHWC)
    n, h, w, c = x.shape
    c //= r * r
    base, core = node.output, core_name(node)
    if name in ctx.shuffled or c == 1:
        split = ctx.reshape(node, x, (n * h, w, r, r * c), f"{base}:split")
        swapped = ctx.transpose(node, split, (0, 2, 1, 3), f"{base}:swapped")
    else:
        split = ctx.reshape(node, x, (n * h, w, c, r, r), f"{base}:split")
        swapped = ctx.transpose(node, split, (0, 3, 1, 4, 2), f"{base}:swapped")
    ctx.define(node, ctx.reshape(node, swapped, (n, h * r, w * r, c), core), NHWC)


@lowers("pixel_unshuffle")
def _pixel_unshuffle(ctx: Context, node: Node) -> None:
    r = node.op["factor"]
    x = ctx.ordered(node, node.inputs[0], NHWC)
    n, h, w, c = x.shape
    h, w = h // r, w // r
    base, core = node.output, core_name(node)
    readers = ctx.readers(node.output)
    plain = core == node.output and len(readers) == 1
    if c == 1 or (plain and readers[0].op.kind == "conv2d" and readers[0].op["groups"] == 1):
        split = ctx.reshape(node, x, (n * h, r, w, r * c), f"{base}:split")
        swapped = ctx.transpose(node, split, (0, 2, 1, 3), f"{base}:swapped")
        if c > 1:
            ctx.shuffled.add(node.output)
    else:
        split = ctx.reshape(node, x, (n * h, r, w, r, c), f"{base}:split")
        swapped = ctx.transpose(node, split, (0, 2, 4, 1, 3), f"{base}:swapped")
    ctx.define(node, ctx.reshape(node, swapped, (n, h, w, c * r * r), core), NHWC)
