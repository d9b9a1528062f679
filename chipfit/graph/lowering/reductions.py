# SPDX-License-Identifier: Apache-2.0
"""Means, sums, variances, norms, largest and smallest values along axes."""

from __future__ import annotations

import math
from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


def _axes(dim: Any, rank: int) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(rank))
    return tuple(sorted(d % rank for d in ([dim] if isinstance(dim, int) else dim)))


def _reduce(
    g: Recorder, kind: str, out: torch.Tensor, input: torch.Tensor, dim: Any, keepdim: bool
) -> None:
    axes = _axes(dim, input.dim())
    g.emit(kind, [input], out, axes=axes, keepdim=bool(keepdim))


@lowers("mean")
def _mean(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, keepdim: bool = False,
    **_: Any,
) -> None:  # fmt: skip
    _reduce(g, "mean", out, input, dim, keepdim)


@lowers("sum")
def _sum(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, keepdim: bool = False,
    **_: Any,
) -> None:  # fmt: skip
    axes = _axes(dim, input.dim())
    count = math.prod(input.shape[axis] for axis in axes)
    if count == 1:
        g.emit("reshape", [input], out)
        return
    mean = input.mean(axes, keepdim=bool(keepdim))
    g.emit("mean", [input], mean, axes=axes, keepdim=bool(keepdim))
    g.emit("mul", [mean, float(count)], out, broadcast=True)


@lowers("amax")
def _amax(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = (), keepdim: bool = False
) -> None:
    _reduce(g, "amax", out, input, dim, keepdim)


@lowers("amin")
def _amin(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = (), keepdim: bool = False
) -> None:
    negative, axes = -input, _axes(dim, input.dim())
    g.emit("mul", [input, -1.0], negative, broadcast=True)
    largest = negative.amax(axes, keepdim=bool(keepdim))
    g.emit("amax", [negative], largest, axes=axes, keepdim=bool(keepdim))
    g.emit("mul", [largest, -1.0], out, broadcast=True)


def _extreme(name: str) -> None:
    pairwise, reduction = {"max": ("maximum", _amax), "min": ("minimum", _amin)}[name]

    @lowers(name)
    def handler(
        g: Recorder, out: Any, input: torch.Tensor, other: Any = None, keepdim: bool = False,
        *, dim: Any = None,
    ) -> None:  # fmt: skip
        if not input.dtype.is_floating_point:
            raise Declined(f"values of type {str(input.dtype).removeprefix('torch.')}")
        if isinstance(other, torch.Tensor):
            g.emit(pairwise, [input, other], out, broadcast=True)
            return
        axis = other if other is not None else dim
        if axis is None:
            reduction(g, out, input)
            return
        reduction(g, out.values, input, axis, keepdim)
        g.emit_unsupported(f"arg{name}", [input], [out.indices])


for _name in ("max", "min"):
    _extreme(_name)


def _variance(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any, unbiased: Any, correction: Any,
    keepdim: bool,
) -> None:  # fmt: skip
    """Write ``mean((x - mean(x)) ** 2)`` with Bessel's correction where it is wanted."""
    if isinstance(dim, bool):  # torch.var(x, unbiased)
        dim, unbiased = None, dim
    axes = _axes(dim, input.dim())
    less = correction if correction is not None else (1 if unbiased in (None, True) else 0)
    count = math.prod(input.shape[axis] for axis in axes)
    mean = input.mean(axes, keepdim=True)
    g.emit("mean", [input], mean, axes=axes, keepdim=True)
    centred = input - mean
    g.emit("sub", [input, mean], centred, broadcast=True)
    square = centred * centred
    g.emit("mul", [centred, centred], square)
    if not less:
        g.emit("mean", [square], out, axes=axes, keepdim=bool(keepdim))
        return
    variance = square.mean(axes, keepdim=bool(keepdim))
    g.emit("mean", [square], variance, axes=axes, keepdim=bool(keepdim))
    if count == less:
        raise Declined("the variance of one value")
    g.emit("mul", [variance, count / (count - less)], out, broadcast=True)


@lowers("var")
def _var(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, unbiased: Any = None,
    keepdim: bool = False, *, correction: Any = None,
) -> None:  # fmt: skip
    _variance(g, out, input, dim, unbiased, correction, keepdim)


@lowers("std")
def _std(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, unbiased: Any = None,
    keepdim: bool = False, *, correction: Any = None,
) -> None:  # fmt: skip
    variance = out * out
    _variance(g, variance, input, dim, unbiased, correction, keepdim)
    g.emit("unary", [variance], out, function="sqrt")


@lowers("norm", "vector_norm", "linalg_vector_norm", "linalg_norm")
def _norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, p: Any = 2, dim: Any = None,
    keepdim: bool = False, *, ord: Any = None, dtype: Any = None, **_: Any,
) -> None:  # fmt: skip
    order = {"fro": 2, None: 2}.get(p if ord is None else ord, p if ord is None else ord)
    if order not in (1, 2):
        raise Declined(f"order {order}")
    size = input * input if order == 2 else input.abs()
    if order == 2:
        g.emit("mul", [input, input], size)
    else:
        g.emit("unary", [input], size, function="abs")
    axes = _axes(dim, input.dim())
    if order == 1:
        _sum(g, out, size, axes, keepdim)
        return
    total = size.sum(axes, keepdim=bool(keepdim))
    _sum(g, total, size, axes, keepdim)
    g.emit("unary", [total], out, function="sqrt")


@lowers("rms_norm")
def _rms_norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, normalized_shape: Any,
    weight: Any = None, eps: Any = None,
) -> None:  # fmt: skip
    axes = tuple(range(input.dim() - len(normalized_shape), input.dim()))
    eps = torch.finfo(input.dtype).eps if eps is None else float(eps)
    square = input * input
    g.emit("mul", [input, input], square)
    mean = square.mean(axes, keepdim=True)
    g.emit("mean", [square], mean, axes=axes, keepdim=True)
    raised = mean + eps
    g.emit("add", [mean, eps], raised, broadcast=True)
    inverse = raised.rsqrt()
    g.emit("unary", [raised], inverse, function="rsqrt")
    if weight is None:
        g.emit("mul", [input, inverse], out, broadcast=True)
        return
    unit = input * inverse
    g.emit("mul", [input, inverse], unit, broadcast=True)
    g.emit("mul", [unit, weight], out, broadcast=True)


@lowers("cumsum")
def _cumsum(g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: int, **_: Any) -> None:
    g.emit("cumsum", [input], out, axis=dim % input.dim())
