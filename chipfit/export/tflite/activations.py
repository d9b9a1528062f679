# SPDX-License-Identifier: Apache-2.0
"""Activation functions that TFLite does not fuse, as operators of their own."""

from __future__ import annotations

import math

import numpy as np

from chipfit.errors import UnsupportedOp
from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.ir import TFTensor, quant_of_range
from chipfit.export.tflite.layout import Order, identity
from chipfit.export.tflite.ranges import SIGNED_UNIT, UNIT
from chipfit.graph.workload import Node

_BUILTIN = {
    "relu": "RELU", "relu6": "RELU", "hardswish": "HARD_SWISH", "sigmoid": "LOGISTIC",
    "tanh": "TANH", "gelu": "GELU", "leaky_relu": "LEAKY_RELU",
}  # fmt: skip


def span(x: TFTensor) -> tuple[float, float]:
    """Return the lowest and the highest value that a tensor can stand for."""
    assert x.quant is not None
    step, zero = x.quant.step, x.quant.zero_point
    return (-128 - zero) * step, (127 - zero) * step


@lowers("activation")
def _activation(ctx: Context, node: Node) -> None:
    value = ctx.value(node.inputs[0])
    ctx.define(node, value.tensor, value.order)


def activate(ctx: Context, node: Node, x: TFTensor, order: Order) -> TFTensor:
    """Apply the activation of ``node`` to ``x``, stored in ``order``; writes ``node.output``."""
    name = node.op.activation
    out = ctx.tensor(node.output, x.shape, ctx.quant(node.output))
    if name == "gelu":
        tanh = node.op.get("approximate", "none") == "tanh"
        return ctx.emit(node, "GELU", [x], out, Approximate=tanh)
    if name == "leaky_relu":
        return ctx.emit(node, "LEAKY_RELU", [x], out, Alpha=float(node.op.get("slope", 0.01)))
    if name in _BUILTIN:
        # relu6 is a RELU whose output saturates at six: its range ends there.
        return ctx.emit(node, _BUILTIN[name], [x], out)
    if name == "silu":
        gate = ctx.emit(node, "LOGISTIC", [x], ctx.tensor(f"{node.output}:sigmoid", x.shape, UNIT))
        return ctx.emit(node, "MUL", [x, gate], out, FusedActivationFunction=0)
    if name == "hardsigmoid":
        return _hardsigmoid(ctx, node, x, out)
    if name == "softplus":
        return _softplus(ctx, node, x, out)
    if name == "mish":
        high = span(x)[1]
        quant = quant_of_range(0.0, math.log1p(math.exp(-abs(high))) + max(high, 0.0))
        plus = _softplus(ctx, node, x, ctx.tensor(f"{node.output}:softplus", x.shape, quant))
        gate = ctx.tensor(f"{node.output}:tanh", x.shape, SIGNED_UNIT)
        ctx.emit(node, "TANH", [plus], gate)
        return ctx.emit(node, "MUL", [x, gate], out, FusedActivationFunction=0)
    if name == "elu":
        return _elu(ctx, node, x, out)
    if name == "prelu":
        slope = ctx.parameter(node, "slope")
        rank = len(order)
        shape = (1, -1, *[1] * (rank - 2))
        stored = slope.reshape(shape).transpose(order)[0]
        return ctx.emit(node, "PRELU", [x, ctx.constant(f"{node.output}/slope", stored)], out)
    raise UnsupportedOp(f"{node.name}: activation {name!r} cannot be written to TFLite")


def _scalar(ctx: Context, name: str, value: float, rank: int) -> TFTensor:
    return ctx.constant(name, np.full((1,) * rank, value))


def _hardsigmoid(ctx: Context, node: Node, x: TFTensor, out: TFTensor) -> TFTensor:
    low, high = span(x)
    rank = len(x.shape)
    sixth = ctx.tensor(f"{node.output}:sixth", x.shape, quant_of_range(low / 6, high / 6))
    factor = _scalar(ctx, f"{node.output}/sixth", 1 / 6, rank)
    ctx.emit(node, "MUL", [x, factor], sixth, FusedActivationFunction=0)
    # The output stands for [0, 1] exactly, so it saturates where the function is flat.
    half = _scalar(ctx, f"{node.output}/half", 0.5, rank)
    return ctx.emit(node, "ADD", [sixth, half], out, FusedActivationFunction=0)


def _softplus(ctx: Context, node: Node, x: TFTensor, out: TFTensor) -> TFTensor:
    """Write ``max(x, 0) - log(sigmoid(|x|))``, whose parts all have short ranges."""
    low, high = span(x)
    base = node.output

    def part(role: str, quant_low: float, quant_high: float) -> TFTensor:
        return ctx.tensor(f"{base}:{role}", x.shape, quant_of_range(quant_low, quant_high))

    size = ctx.emit(node, "ABS", [x], part("abs", 0.0, max(-low, high)))
    gate = ctx.tensor(f"{base}:gate", x.shape, UNIT)
    ctx.emit(node, "LOGISTIC", [size], gate)
    rest = ctx.emit(node, "LOG", [gate], part("log", -math.log(2.0), 0.0))
    line = ctx.emit(node, "RELU", [x], part("line", 0.0, max(high, 0.0)))
    return ctx.emit(node, "SUB", [line, rest], out, FusedActivationFunction=0)


def _elu(ctx: Context, node: Node, x: TFTensor, out: TFTensor) -> TFTensor:
    alpha = float(node.op.get("alpha", 1.0))
    if alpha == 1.0:
        return ctx.emit(node, "ELU", [x], out)
    high = max(span(x)[1], 0.0)
    base, rank = node.output, len(identity(len(x.shape)))

    def scaled(source: TFTensor, role: str, factor: float, low: float) -> TFTensor:
        ends = sorted((low * factor, high * factor))
        result = ctx.tensor(f"{base}:{role}", x.shape, quant_of_range(*ends))
        constant = _scalar(ctx, f"{base}/{role}", factor, rank)
        return ctx.emit(node, "MUL", [source, constant], result, FusedActivationFunction=0)

    curve = ctx.tensor(f"{base}:elu", x.shape, quant_of_range(-1.0, high))
    ctx.emit(node, "ELU", [x], curve)
    line = ctx.tensor(f"{base}:relu", x.shape, quant_of_range(0.0, high))
    ctx.emit(node, "RELU", [x], line)
    parts = [scaled(curve, "curve", alpha, -1.0), scaled(line, "line", 1.0 - alpha, 0.0)]
    return ctx.emit(node, "ADD", parts, out, FusedActivationFunction=0)
