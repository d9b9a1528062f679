# SPDX-License-Identifier: Apache-2.0
"""Operators with weights: convolution, linear, matmul and the free-standing batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.ir import FUSED, Quant, TFTensor
from chipfit.export.tflite.layout import NHWC, Order, channels_last, identity
from chipfit.export.tflite.ranges import core_name, is_same, used_padding
from chipfit.graph.workload import Node

_SAME, _VALID = 0, 1


def fused(node: Node) -> int:
    """Return TFLite's code of the activation that the last operator of ``node`` applies."""
    if core_name(node) != node.output:
        return FUSED["none"]
    return FUSED.get(node.op.activation, FUSED["none"])


def weights(
    ctx: Context, name: str, weight: np.ndarray, bias: np.ndarray, source: TFTensor, axis: int
) -> list[TFTensor]:
    """Return int8 weights with one scale per slice of ``axis``, and their int32 bias.

    Args:
        ctx: The lowering.
        name: Prefix of the names of the two tensors.
        weight: In TFLite's order of axes.
        bias: One per slice of ``axis``.
        source: The input, whose scale the bias takes on.
        axis: The output channel axis of ``weight``.
    """
    assert source.quant is not None
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight).max(axis=others)
    scale = np.maximum(peak / 127.0, max(float(peak.max()) / 127.0 * 2.0**-20, 1e-9))
    # A slice of tiny weights gets a coarser scale where its bias would not fit into 30 bits.
    scale = np.maximum(scale, np.abs(bias) / source.quant.step / 2.0**30).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes = np.clip(np.round(weight / scale.astype(np.float64).reshape(shape)), -127, 127)
    bias_scale = scale * np.float32(source.quant.step)
    bias_codes = np.round(bias / bias_scale.astype(np.float64)).astype(np.int32)
    scales = tuple(float(s) for s in scale)
    return [
        TFTensor(
            ctx.fresh(f"{name}/weight"), weight.shape, Quant(scales, 0, axis), codes.astype(np.int8)
        ),
        TFTensor(
            ctx.fresh(f"{name}/bias"), bias.shape, Quant(tuple(float(s) for s in bias_scale)),
            bias_codes, "int32",
        ),
    ]  # fmt: skip


def parameters(ctx: Context, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of a convolution or linear node, a fused hard sigmoid folded in."""
    weight = ctx.parameter(node, "weight")
    bias = ctx.parameter(node, "bias") if node.op["bias"] else np.zeros(weight.shape[0])
    if node.op.activation == "hardsigmoid":
        return weight / 6.0, bias / 6.0 + 0.5
    return weight, bias


def padded(
    ctx: Context, node: Node, x: TFTensor, sides: tuple[int, int, int, int], fill: int | None = None
) -> TFTensor:
    """Return the NHWC tensor ``x`` with ``(top, bottom, left, right)`` padding.

    Args:
        ctx: The lowering.
        node: Who is charged.
        x: Stored as NHWC.
        sides: Rows and columns to add.
        fill: The int8 code to add; zero's own code where not given.
    """
    if not any(sides):
        return x
    assert x.quant is not None
    top, bottom, left, right = sides
    n, h, w, c = x.shape
    out = ctx.tensor(f"{node.output}:padded", (n, h + top + bottom, w + left + right, c), x.quant)
    amounts = ctx.integers(f"{node.output}/padding", [[0, 0], [top, bottom], [left, right], [0, 0]])
    if fill is None:
        return ctx.emit(node, "PAD", [x, amounts], out)
    code = TFTensor(ctx.fresh(f"{node.output}/fill"), (1,), x.quant, np.array([fill], np.int8))
    return ctx.emit(node, "PADV2", [x, amounts, code], out)


@lowers("conv2d")
def _conv2d(ctx: Context, node: Node) -> None:
    op = node.op
    x = ctx.ordered(node, node.inputs[0], NHWC)
    weight, bias = parameters(ctx, node)
    if node.inputs[0] in ctx.shuffled:
        producer = ctx.workload.nodes[ctx.workload.producer[node.inputs[0]]]
        weight = weight[:, _interleaved(weight.shape[1], producer.op["factor"])]
    readers = ctx.readers(node.output)
    shuffle = len(readers) == 1 and readers[0].op.kind == "pixel_shuffle"
    if shuffle and op.activation != "prelu":
        # The shuffle then only swaps two axes: channels come as (row, column, channel).
        rows = _interleaved(len(bias), readers[0].op["factor"])
        weight, bias = weight[rows], bias[rows]
        ctx.shuffled.add(node.output)
    options: dict[str, Any] = {
        "Padding": _SAME, "StrideW": op["stride"][1], "StrideH": op["stride"][0],
        "DilationWFactor": op["dilation"][1], "DilationHFactor": op["dilation"][0],
        "FusedActivationFunction": fused(node),
    }  # fmt: skip
    if not any(used_padding(op)):
        options["Padding"] = _VALID
    elif not is_same(op):
        x = padded(ctx, node, x, used_padding(op))
        options["Padding"] = _VALID
    n, c, h, w = op.output
    core = core_name(node)
    out = ctx.tensor(core, (n, h, w, c), ctx.quant(core))
    if op["groups"] == op.inputs[0][1] and op["groups"] > 1:
        kernels = weight[:, 0].transpose(1, 2, 0)[None]
        constants = weights(ctx, node.output, kernels, bias, x, 3)
        options["DepthMultiplier"] = c // op["groups"]
        ctx.emit(node, "DEPTHWISE_CONV_2D", [x, *constants], out, **options)
    else:
        constants = weights(ctx, node.output, weight.transpose(0, 2, 3, 1), bias, x, 0)
        ctx.emit(node, "CONV_2D", [x, *constants], out, **options)
    ctx.define(node, out, NHWC)


def _interleaved(channels: int, factor: int) -> np.ndarray:
    """Return PyTorch's channel at every place when channels lie as (row, column, channel)."""
    order: np.ndarray = np.arange(channels).reshape(-1, factor**2).T.ravel()
    return order


@lowers("linear")
def _linear(ctx: Context, node: Node) -> None:
    value = ctx.value(node.inputs[0])
    rank = len(value.order)
    order: Order = value.order if value.order[-1] == rank - 1 else identity(rank)
    x = ctx.ordered(node, node.inputs[0], order)
    weight, bias = parameters(ctx, node)
    if value.columns:
        weight = weight[:, list(value.columns)]
    constants = weights(ctx, node.output, weight, bias, x, 0)
    core = core_name(node)
    out = ctx.tensor(core, (*x.shape[:-1], weight.shape[0]), ctx.quant(core))
    ctx.emit(
        node, "FULLY_CONNECTED", [x, *constants], out,
        FusedActivationFunction=fused(node), KeepNumDims=rank > 2,
    )  # fmt: skip
    ctx.define(node, out, order)


@lowers("matmul")
def _matmul(ctx: Context, node: Node) -> None:
    rank = len(node.op.output)
    plain = identity(rank)
    turned = (*plain[:-2], rank - 1, rank - 2)
    x = ctx.operand(node, 0, plain)
    adjoint = False
    if node.inputs[1] not in ctx.workload.constants:
        # A lazily transposed right side is multiplied as it lies.
        adjoint = ctx.value(node.inputs[1]).order == turned
    y = ctx.operand(node, 1, turned if adjoint else plain)
    core = core_name(node)
    out = ctx.tensor(core, node.op.output, ctx.quant(core))
    ctx.emit(node, "BATCH_MATMUL", [x, y], out, AdjX=False, AdjY=adjoint)
    ctx.define(node, out, plain)


def scale_channels(
    ctx: Context, node: Node, x: TFTensor, scale: np.ndarray, shift: np.ndarray, out: TFTensor
) -> TFTensor:
    """Write ``x * scale + shift`` over the last stored axis of a rank-4 ``x`` into ``out``."""
    constants = weights(ctx, node.output, scale[None, None, None], shift, x, 3)
    return ctx.emit(
        node, "DEPTHWISE_CONV_2D", [x, *constants], out, Padding=_VALID, StrideW=1, StrideH=1,
        DilationWFactor=1, DilationHFactor=1, DepthMultiplier=1,
        FusedActivationFunction=fused(node),
    )  # fmt: skip


@lowers("batch_norm")
def _batch_norm(ctx: Context, node: Node) -> None:
    rank = len(node.op.output)
    order = channels_last(rank)
    x = ctx.ordered(node, node.inputs[0], order)
    shape, core = x.shape, core_name(node)
    quant = ctx.quant(core)
    scale, shift = ctx.parameter(node, "scale"), ctx.parameter(node, "shift")
    if rank == 4:
        out = scale_channels(ctx, node, x, scale, shift, ctx.tensor(core, shape, quant))
    else:
        flat = (shape[0], 1, int(np.prod(shape[1:-1])), shape[-1])
        wide = ctx.reshape(node, x, flat, f"{node.output}:wide")
        normed = ctx.tensor(f"{node.output}:normed", flat, quant)
        scale_channels(ctx, node, wide, scale, shift, normed)
        out = ctx.reshape(node, normed, shape, core)
    ctx.define(node, out, order)
