# SPDX-License-Identifier: Apache-2.0
"""Limits, larger and smaller of two, and functions of single values that have int8 kernels."""

from __future__ import annotations

import numpy as np

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.elementwise import broadcast_order
from chipfit.export.tflite.ir import TFTensor
from chipfit.export.tflite.ranges import core_name
from chipfit.graph.workload import Node

#: TFLite's operator for each function that has an int8 kernel.
UNARY = {"abs": "ABS", "exp": "EXP", "log": "LOG", "rsqrt": "RSQRT"}


@lowers("unary")
def _unary(ctx: Context, node: Node) -> None:
    value, core = ctx.value(node.inputs[0]), core_name(node)
    out = ctx.tensor(core, value.tensor.shape, ctx.quant(core))
    ctx.emit(node, UNARY[node.op["function"]], [value.tensor], out)
    ctx.define(node, out, value.order)


@lowers("clamp")
def _clamp(ctx: Context, node: Node) -> None:
    value, core = ctx.value(node.inputs[0]), core_name(node)
    low, high = node.op["low"], node.op["high"]
    quant = ctx.quant(core)
    # A range always holds zero: limits on one side of it need an operator, others saturate.
    beyond = [("MAXIMUM", low)] if low is not None and low > 0 else []
    beyond += [("MINIMUM", high)] if high is not None and high < 0 else []
    x = value.tensor
    for i in range(len(beyond) + 1):
        last = i == len(beyond)
        name = core if last else f"{node.output}:limit{i}"
        if i == 0:
            out = ctx.tensor(name, x.shape, quant)
            x = ctx.emit(node, "QUANTIZE", [x], out)
            continue
        kind, limit = beyond[i - 1]
        fixed = ctx.constant(f"{node.output}/limit{i}", np.full((1,) * len(x.shape), limit), quant)
        x = ctx.emit(node, kind, [x, fixed], ctx.tensor(name, x.shape, quant))
    ctx.define(node, x, value.order)


@lowers("maximum", "minimum")
def _extreme(ctx: Context, node: Node) -> None:
    order, core = broadcast_order(ctx, node), core_name(node)
    quant = ctx.quant(core)
    parts: list[TFTensor] = []
    for i in range(2):
        part = ctx.operand(node, i, order, quant)
        parts.append(ctx.requantise(node, part, quant, f"{node.output}:input{i}"))
    out = ctx.tensor(core, tuple(node.op.output[axis] for axis in order), quant)
    ctx.emit(node, node.op.kind.upper(), parts, out)
    ctx.define(node, out, order)
