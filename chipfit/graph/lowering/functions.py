# SPDX-License-Identifier: Apache-2.0
"""Functions of single values, masks, and sums of products."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


def _unary(name: str) -> None:
    @lowers(name)
    def handler(g: Recorder, out: torch.Tensor, input: torch.Tensor, **_: Any) -> None:
        g.emit("unary", [input], out, function=name)


for _name in ("abs", "exp", "log", "sqrt", "rsqrt", "erf", "sin", "cos", "sign", "floor", "ceil",
              "round", "log1p", "expm1"):  # fmt: skip
    _unary(_name)


@lowers("absolute")
def _absolute(g: Recorder, out: torch.Tensor, input: torch.Tensor) -> None:
    g.emit("unary", [input], out, function="abs")


@lowers("reciprocal")
def _reciprocal(g: Recorder, out: torch.Tensor, input: torch.Tensor) -> None:
    g.emit("div", [1.0, input], out, broadcast=True)


@lowers("pow", "float_power")
def _pow(g: Recorder, out: torch.Tensor, input: Any, exponent: Any) -> None:
    if not isinstance(exponent, (int, float)) or not isinstance(input, torch.Tensor):
        raise Declined("an exponent that is a tensor")
    if exponent == 1:
        g.alias(out, input)
    elif exponent == 2:
        g.emit("mul", [input, input], out)
    elif exponent in (0.5, -0.5):
        g.emit("unary", [input], out, function="sqrt" if exponent > 0 else "rsqrt")
    else:
        g.emit("unary", [input], out, function="pow", exponent=float(exponent))


@lowers("log_softmax")
def _log_softmax(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, *_: Any, **__: Any
) -> None:
    if dim is None:
        raise Declined("no axis is given")
    shares = input.softmax(dim)
    g.emit("softmax", [input], shares, axis=int(dim) % input.dim())
    g.emit("unary", [shares], out, function="log")


@lowers("logsigmoid")
def _logsigmoid(g: Recorder, out: torch.Tensor, input: torch.Tensor) -> None:
    gate = input.sigmoid()
    g.emit("activation", [input], gate, activation="sigmoid")
    g.emit("unary", [gate], out, function="log")


@lowers("glu")
def _glu(g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int = -1) -> None:
    axis = dim % input.dim()
    half = input.shape[axis] // 2
    value, gate = input.narrow(axis, 0, half), input.narrow(axis, half, half)
    for part, start in ((value, 0), (gate, half)):
        g.emit("slice", [input], part, axis=axis, start=start, end=start + half, step=1)
    opened = gate.sigmoid()
    g.emit("activation", [gate], opened, activation="sigmoid")
    g.emit("mul", [value, opened], out)


def _sum_of_parts(name: str, kind: str) -> None:
    @lowers(name)
    def handler(
        g: Recorder, out: torch.Tensor, input: torch.Tensor, tensor1: torch.Tensor,
        tensor2: torch.Tensor, *, value: float = 1,
    ) -> None:  # fmt: skip
        part = tensor1 * tensor2 if kind == "mul" else tensor1 / tensor2
        if g.is_activation(tensor1) or g.is_activation(tensor2):
            g.emit(kind, [tensor1, tensor2], part, broadcast=True)
        if value != 1:
            scaled = part * value
            if g.is_activation(part):
                g.emit("mul", [part, float(value)], scaled, broadcast=True)
            part = scaled
        g.emit("add", [input, part], out, broadcast=True)


_sum_of_parts("addcmul", "mul")
_sum_of_parts("addcdiv", "div")


@lowers("lerp")
def _lerp(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, end: torch.Tensor, weight: Any
) -> None:
    way = end - input
    g.emit("sub", [end, input], way, broadcast=True)
    step = way * weight
    g.emit("mul", [way, weight], step, broadcast=True)
    g.emit("add", [input, step], out, broadcast=True)


@lowers("masked_fill")
def _masked_fill(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, mask: torch.Tensor, value: Any
) -> None:
    if g.is_activation(mask) or g.is_activation(value):
        raise Declined("a mask that depends on the input")
    _choose(g, out, torch.as_tensor(float(value)), input, mask)


@lowers("where")
def _where(g: Recorder, out: torch.Tensor, condition: torch.Tensor, input: Any, other: Any) -> None:
    if g.is_activation(condition):
        raise Declined("a condition that depends on the input")
    _choose(g, out, torch.as_tensor(input), torch.as_tensor(other), condition)


def _choose(
    g: Recorder, out: torch.Tensor, chosen: torch.Tensor, other: torch.Tensor, mask: torch.Tensor
) -> None:
    """Write ``chosen`` where a constant ``mask`` is true: products with zeros and ones.

    A constant of minus infinity is added instead, as the masks of attention are.
    """
    parts = []
    for value, keep in ((chosen, mask), (other, ~mask)):
        if not g.is_activation(value):
            parts.append(torch.where(keep, value.float(), 0.0))
            continue
        part = value * keep
        g.emit("mul", [value, keep.float()], part, broadcast=True)
        parts.append(part)
    fixed = [part for part in parts if g.is_constant(part)]
    if not all(bool(torch.isfinite(part).all()) for part in fixed):
        live = other if g.is_activation(other) else chosen
        g.emit("add", [live, fixed[0]], out, broadcast=True)
        return
    g.emit("add", parts, out, broadcast=True)


@lowers("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like",
        "full_like", "empty_like")  # fmt: skip
def _constant(g: Recorder, out: torch.Tensor, *_: Any, **__: Any) -> None:
    """Record nothing: only the shape of the input matters."""


@lowers("copy")
def _copy(g: Recorder, out: torch.Tensor, target: torch.Tensor, source: torch.Tensor, *_: Any,
          **__: Any) -> None:  # fmt: skip
    if g.is_constant(source):
        raise Declined("a constant written over the data")
    if source.shape == out.shape:
        g.alias(out, source)
    else:
        g.expand(out, source)
