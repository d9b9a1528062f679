# SPDX-License-Identifier: Apache-2.0
"""Pooling windows and resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.convolution import fused, padded
from chipfit.export.tflite.layout import NHWC
from chipfit.export.tflite.ranges import core_name, is_same, needs_correction, used_padding
from chipfit.graph.op import Op
from chipfit.graph.workload import Node

_SAME, _VALID = 0, 1


def _window(op: Op, padding: int, activation: int) -> dict[str, Any]:
    (kh, kw), (sh, sw) = op["kernel"], op["stride"]
    return {"Padding": padding, "StrideW": sw, "StrideH": sh, "FilterWidth": kw,
            "FilterHeight": kh, "FusedActivationFunction": activation}  # fmt: skip


@lowers("max_pool2d")
def _max_pool2d(ctx: Context, node: Node) -> None:
    x = ctx.ordered(node, node.inputs[0], NHWC)
    core = core_name(node)
    padding = _SAME if any(used_padding(node.op)) else _VALID
    if padding == _SAME and not is_same(node.op):
        assert x.quant is not None
        # Zero is the lowest value of a tensor that holds no negative ones.
        fill = None if x.quant.zero_point == -128 else -128
        x = padded(ctx, node, x, used_padding(node.op), fill)
        padding = _VALID
    n, c, h, w = node.op.output
    out = ctx.tensor(core, (n, h, w, c), ctx.quant(core))
    ctx.emit(node, "MAX_POOL_2D", [x], out, **_window(node.op, padding, fused(node)))
    ctx.define(node, out, NHWC)


@lowers("avg_pool2d")
def _avg_pool2d(ctx: Context, node: Node) -> None:
    op = node.op
    x = ctx.ordered(node, node.inputs[0], NHWC)
    n, c, h, w = op.output
    core = core_name(node)
    correct = needs_correction(op)
    padding = _VALID
    if any(used_padding(op)):
        if op["count_include_pad"] or correct:
            x = padded(ctx, node, x, used_padding(op))
        else:
            padding = _SAME
    assert x.quant is not None
    if not correct:
        out = ctx.tensor(core, (n, h, w, c), ctx.quant(core))
        ctx.emit(node, "AVERAGE_POOL_2D", [x], out, **_window(op, padding, fused(node)))
    else:
        pooled = ctx.tensor(f"{node.output}:pooled", (n, h, w, c), x.quant)
        ctx.emit(node, "AVERAGE_POOL_2D", [x], pooled, **_window(op, padding, 0))
        share = ctx.constant(f"{node.output}/share", _share(op))
        out = ctx.tensor(core, (n, h, w, c), ctx.quant(core))
        ctx.emit(node, "MUL", [pooled, share], out, FusedActivationFunction=fused(node))
    ctx.define(node, out, NHWC)


def _share(op: Op) -> np.ndarray:
    """Return window size over elements inside the image, ``(1, h, w, 1)``."""
    counts = []
    for axis in (0, 1):
        before, size = op["padding"][2 * axis], op.inputs[0][2 + axis]
        start = np.arange(op.output[2 + axis]) * op["stride"][axis] - before
        stop = np.minimum(start + op["kernel"][axis], size)
        counts.append(op["kernel"][axis] / (stop - np.maximum(start, 0)))
    share: np.ndarray = np.outer(counts[0], counts[1])[None, :, :, None]
    return share


@lowers("resize")
def _resize(ctx: Context, node: Node) -> None:
    op = node.op
    x = ctx.ordered(node, node.inputs[0], NHWC)
    n, c, h, w = op.output
    core = core_name(node)
    out = ctx.tensor(core, (n, h, w, c), ctx.quant(core))
    size = ctx.integers(f"{node.output}/size", (h, w))
    corners = op["mode"] == "bilinear" and bool(op["align_corners"])
    kind = "RESIZE_BILINEAR" if op["mode"] == "bilinear" else "RESIZE_NEAREST_NEIGHBOR"
    centres = op["mode"] == "bilinear" and not corners
    ctx.emit(node, kind, [x, size], out, AlignCorners=corners, HalfPixelCenters=centres)
    ctx.define(node, out, NHWC)
