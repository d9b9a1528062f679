# SPDX-License-Identifier: Apache-2.0
"""What every operator kind computes, in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from chipfit.errors import UnsupportedOp
from chipfit.graph.op import Op

State = dict[str, torch.Tensor]
Kernel = Callable[[Op, Sequence[torch.Tensor], State], torch.Tensor]

#: The function that computes each operator kind.
KERNELS: dict[str, Kernel] = {}


def _kernel(*kinds: str) -> Callable[[Kernel], Kernel]:
    def add(function: Kernel) -> Kernel:
        for kind in kinds:
            KERNELS[kind] = function
        return function

    return add


def _per_channel(vector: torch.Tensor, rank: int) -> torch.Tensor:
    return vector.reshape(1, -1, *[1] * (rank - 2))


@_kernel("conv2d")
def _conv2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    image, padding = x[0], (top, left)
    if (top, left) != (bottom, right):
        image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
    return F.conv2d(
        image, p["weight"], p.get("bias"), op["stride"], padding, op["dilation"], op["groups"]
    )


@_kernel("conv_transpose2d")
def _conv_transpose2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.conv_transpose2d(
        x[0], p["weight"], p.get("bias"), op["stride"], op["padding"], op["output_padding"],
        op["groups"], op["dilation"],
    )  # fmt: skip


@_kernel("linear")
def _linear(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.linear(x[0], p["weight"], p.get("bias"))


@_kernel("matmul")
def _matmul(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return torch.matmul(x[0], x[1])


@_kernel("add", "sub", "mul", "div")
def _arithmetic(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    if op.kind == "add":
        return x[0] + x[1]
    if op.kind == "sub":
        return x[0] - x[1]
    return x[0] * x[1] if op.kind == "mul" else x[0] / x[1]


@_kernel("maximum", "minimum")
def _extreme(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return torch.maximum(x[0], x[1]) if op.kind == "maximum" else torch.minimum(x[0], x[1])


@_kernel("unary")
def _unary(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    if op["function"] == "pow":
        return x[0] ** op["exponent"]
    result: torch.Tensor = getattr(torch, op["function"])(x[0])
    return result


@_kernel("clamp")
def _clamp(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    if op["low"] is None and op["high"] is None:
        return x[0]
    return torch.clamp(x[0], op["low"], op["high"])


@_kernel("gather")
def _gather(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].index_select(op["axis"], torch.tensor(op["index"], device=x[0].device))


@_kernel("unfold")
def _unfold(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.unfold(x[0], op["kernel"], op["dilation"], op["padding"], op["stride"])


@_kernel("fold")
def _fold(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.fold(
        x[0], tuple(op.output[2:]), op["kernel"], op["dilation"], op["padding"], op["stride"]
    )


@_kernel("embedding")
def _embedding(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.embedding(x[0].long(), p["weight"])


@_kernel("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.adaptive_avg_pool2d(x[0], (op.output[2], op.output[3]))


@_kernel("cumsum")
def _cumsum(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].cumsum(op["axis"])


@_kernel("batch_norm")
def _batch_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    rank = len(op.output)
    return x[0] * _per_channel(p["scale"], rank) + _per_channel(p["shift"], rank)


@_kernel("layer_norm")
def _layer_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    shape = [op.output[axis] for axis in op["axes"]]
    return F.layer_norm(x[0], shape, p.get("weight"), p.get("bias"), op["eps"])


@_kernel("group_norm")
def _group_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.group_norm(x[0], op["groups"], p.get("weight"), p.get("bias"), op["eps"])


@_kernel("concat")
def _concat(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    parts = list(x)
    if op["axis"] != 0 and op.constants and len(op.constants) < len(parts):
        # A constant (a class token, say) is stored once and follows the batch of the others.
        live = next(t for i, t in enumerate(parts) if i not in op.constants)
        for i in op.constants:
            parts[i] = parts[i].expand(live.shape[0], *parts[i].shape[1:])
    return torch.cat(parts, op["axis"])


@_kernel("slice")
def _slice(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    index: list[slice] = [slice(None)] * len(op.output)
    index[op["axis"]] = slice(op["start"], op["end"], op["step"])
    return x[0][tuple(index)]


@_kernel("pad")
def _pad(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    sides = [side for both in reversed(op["padding"]) for side in both]
    return F.pad(x[0], sides, value=op["value"])


@_kernel("max_pool2d")
def _max_pool2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    kernel = op["kernel"]
    if top >= bottom and left >= right and 2 * top <= kernel[0] and 2 * left <= kernel[1]:
        # Rows that no window reaches were left out of the padding; the operator may have them.
        pooled = F.max_pool2d(x[0], kernel, op["stride"], (top, left))
        if pooled.shape[2:] == op.output[2:]:
            return pooled
    image = F.pad(x[0], (left, right, top, bottom), value=-math.inf)
    return F.max_pool2d(image, kernel, op["stride"])


@_kernel("avg_pool2d")
def _avg_pool2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    sides = (left, right, top, bottom)
    pooled = F.avg_pool2d(F.pad(x[0], sides), op["kernel"], op["stride"])
    if op["count_include_pad"] or not any(sides):
        return pooled
    ones = F.pad(torch.ones(1, 1, *op.inputs[0][2:], dtype=pooled.dtype), sides)
    return pooled / F.avg_pool2d(ones, op["kernel"], op["stride"]).to(pooled.device)


@_kernel("mean")
def _mean(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].mean(op["axes"], keepdim=op["keepdim"])


@_kernel("amax")
def _amax(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].amax(op["axes"], keepdim=op["keepdim"])


@_kernel("resize")
def _resize(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    corners = bool(op["align_corners"]) if op["mode"] in ("bilinear", "bicubic") else None
    return F.interpolate(x[0], op.output[2:], mode=op["mode"], align_corners=corners)


@_kernel("pixel_shuffle")
def _pixel_shuffle(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.pixel_shuffle(x[0], op["factor"])


@_kernel("pixel_unshuffle")
def _pixel_unshuffle(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.pixel_unshuffle(x[0], op["factor"])


@_kernel("softmax")
def _softmax(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return torch.softmax(x[0], op["axis"])


@_kernel("permute")
def _permute(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].permute(op["dims"])


@_kernel("reshape")
def _reshape(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    # The leading axis carries the batch, so that any batch size can pass.
    return x[0].reshape(-1, *op.output[1:]) if op.output else x[0].reshape(())


@_kernel("activation")
def _identity(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0]


def activate(op: Op, x: torch.Tensor, parameters: State) -> torch.Tensor:
    """Apply the activation of ``op`` to ``x`` (any shape; prelu's slope lies along axis 1)."""
    simple: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "none": lambda t: t, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid, "silu": F.silu,
        "tanh": torch.tanh, "softplus": F.softplus, "mish": F.mish,
    }  # fmt: skip
    if op.activation in simple:
        return simple[op.activation](x)
    if op.activation == "gelu":
        return F.gelu(x, approximate=op.get("approximate", "none"))
    if op.activation == "leaky_relu":
        return F.leaky_relu(x, op.get("slope", 0.01))
    if op.activation == "elu":
        return F.elu(x, op.get("alpha", 1.0))
    if op.activation == "prelu":
        return F.prelu(x, parameters["slope"])
    raise UnsupportedOp(f"unknown activation {op.activation!r}")


def run_op(op: Op, inputs: Sequence[torch.Tensor], parameters: State) -> torch.Tensor:
    """Compute one operator without its activation."""
    return KERNELS[op.kind](op, inputs, parameters)
