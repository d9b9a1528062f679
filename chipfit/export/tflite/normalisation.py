# SPDX-License-Identifier: Apache-2.0
"""Layer norm and group norm, written out in operators that int8 kernels have."""

from __future__ import annotations

import numpy as np
import torch

from chipfit.export.tflite.context import Context, lowers
from chipfit.export.tflite.convolution import scale_channels
from chipfit.export.tflite.elementwise import reduced
from chipfit.export.tflite.ir import TFTensor
from chipfit.export.tflite.layout import channels_last
from chipfit.export.tflite.ranges import core_name
from chipfit.graph.op import Op
from chipfit.graph.workload import Node


def intermediates(op: Op, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return values by role that the written-out form of ``op`` has and PyTorch's has not.

    Args:
        op: Any operator; norms and means over channels and other axes have such values.
        x: Its first input, any batch.
    """
    if op.kind == "mean" and len(op["axes"]) > 1 and 1 in op["axes"]:
        return {"inner": x.mean([axis for axis in op["axes"] if axis != 1], keepdim=True)}
    if op.kind not in ("layer_norm", "group_norm"):
        return {}
    if op.kind == "layer_norm":
        blocks = x.flatten(-len(op["axes"])).unsqueeze(1)
        return _parts(blocks, (-1,), op["eps"])
    return _parts(
        x.reshape(x.shape[0], op["groups"], -1, *x.shape[2:]).flatten(3), (3, 2), op["eps"]
    )


def _parts(x: torch.Tensor, axes: tuple[int, ...], eps: float) -> dict[str, torch.Tensor]:
    parts = {}

    def mean(value: torch.Tensor, role: str) -> torch.Tensor:
        for axis in axes[:-1]:
            value = parts[f"{role}_hw"] = value.mean(axis, keepdim=True)
        parts[role] = value.mean(axes[-1], keepdim=True)
        return parts[role]

    parts["centred"] = x - mean(x, "mean")
    parts["square"] = parts["centred"] ** 2
    parts["eps"] = mean(parts["square"], "var") + eps
    parts["rstd"] = parts["eps"].rsqrt()
    parts["unit"] = parts["centred"] * parts["rstd"]
    return parts


def _normalise(ctx: Context, node: Node, x: TFTensor, axes: tuple[int, ...], last: str) -> TFTensor:
    """Write ``(x - mean) / sqrt(var + eps)`` over stored ``axes`` into a tensor called ``last``."""
    base = node.output

    def part(role: str, shape: tuple[int, ...]) -> TFTensor:
        return ctx.tensor(f"{base}:{role}", shape, ctx.quant(f"{base}:{role}"))

    def mean(value: TFTensor, role: str) -> TFTensor:
        for axis in axes[:-1]:
            name = f"{base}:{role}_hw"
            value = reduced(ctx, node, "MEAN", value, (axis,), name, ctx.quant(name))
        name = f"{base}:{role}"
        return reduced(ctx, node, "MEAN", value, axes[-1:], name, ctx.quant(name))

    def both(kind: str, inputs: list[TFTensor], out: TFTensor) -> TFTensor:
        return ctx.emit(node, kind, inputs, out, FusedActivationFunction=0)

    centred = both("SUB", [x, mean(x, "mean")], part("centred", x.shape))
    variance = mean(both("MUL", [centred, centred], part("square", x.shape)), "var")
    eps = ctx.constant(f"{base}/eps", np.full((1,) * len(x.shape), node.op["eps"]))
    raised = both("ADD", [variance, eps], part("eps", variance.shape))
    rstd = ctx.emit(node, "RSQRT", [raised], part("rstd", variance.shape))
    out = ctx.tensor(last, x.shape, ctx.quant(last))
    return both("MUL", [centred, rstd], out)


def _finish(ctx: Context, node: Node, x: TFTensor, shape: tuple[int, ...]) -> TFTensor:
    """Scale and shift the last stored axis, and return to ``shape`` under the node's own name."""
    base, core = node.output, core_name(node)
    if not node.op["affine"]:
        return ctx.reshape(node, x, shape, core)
    weight, bias = (ctx.parameter(node, role).ravel() for role in ("weight", "bias"))
    if x.shape == shape:
        return scale_channels(ctx, node, x, weight, bias, ctx.tensor(core, shape, ctx.quant(core)))
    out = ctx.tensor(f"{base}:affine", x.shape, ctx.quant(core))
    return ctx.reshape(node, scale_channels(ctx, node, x, weight, bias, out), shape, core)


@lowers("layer_norm")
def _layer_norm(ctx: Context, node: Node) -> None:
    value, axes = ctx.value(node.inputs[0]), tuple(node.op["axes"])
    order = (*(a for a in value.order if a not in axes), *axes)
    x = ctx.ordered(node, node.inputs[0], order)
    depth = int(np.prod([value.shape[a] for a in axes]))
    rest = int(np.prod(x.shape[1:])) // depth
    flat = ctx.reshape(node, x, (x.shape[0], 1, rest, depth), f"{node.output}:flat")
    unit = _normalise(ctx, node, flat, (3,), f"{node.output}:unit")
    ctx.define(node, _finish(ctx, node, unit, x.shape), order)


@lowers("group_norm")
def _group_norm(ctx: Context, node: Node) -> None:
    order = channels_last(len(node.op.output))
    x = ctx.ordered(node, node.inputs[0], order)
    count, channels = node.op["groups"], x.shape[-1]
    rest = int(np.prod(x.shape[1:-1]))
    split = (x.shape[0], rest, count, channels // count)
    flat = ctx.reshape(node, x, split, f"{node.output}:flat")
    unit = _normalise(ctx, node, flat, (1, 3), f"{node.output}:unit")
    wide = ctx.reshape(node, unit, (x.shape[0], 1, rest, channels), f"{node.output}:wide")
    ctx.define(node, _finish(ctx, node, wide, x.shape), order)
