# SPDX-License-Identifier: Apache-2.0
"""Activation functions, arithmetic and calls that change nothing at inference."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


def _activation(name: str) -> None:
    @lowers(name)
    def handler(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any, **__: Any) -> None:
        g.emit("activation", [input], out, activation=name)


for _name in ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu", "tanh", "mish"):
    _activation(_name)


@lowers("hardtanh", "clamp", "clip")
def _clamp(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, min: Any = None, max: Any = None,
    *_: Any, min_val: Any = None, max_val: Any = None, inplace: bool = False,
) -> None:  # fmt: skip
    hard = min is None and max is None and min_val is None and max_val is None
    low = -1.0 if hard else (min if min is not None else min_val)
    high = 1.0 if hard else (max if max is not None else max_val)
    named: dict[Any, str] = {(0, None): "relu", (0, 6): "relu6"}
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        raise Declined("limits that are tensors")
    kind = named.get((low, high))
    if kind is None:
        ends = [None if end is None else float(end) for end in (low, high)]
        g.emit("clamp", [input], out, low=ends[0], high=ends[1])
    else:
        g.emit("activation", [input], out, activation=kind)


@lowers("clamp_min")
def _clamp_min(g: Recorder, out: torch.Tensor, input: torch.Tensor, min: Any) -> None:
    _clamp(g, out, input, min)


@lowers("clamp_max")
def _clamp_max(g: Recorder, out: torch.Tensor, input: torch.Tensor, max: Any) -> None:
    _clamp(g, out, input, None, max)


@lowers("gelu")
def _gelu(g: Recorder, out: torch.Tensor, input: torch.Tensor, approximate: str = "none") -> None:
    g.emit("activation", [input], out, activation="gelu", approximate=approximate)


@lowers("leaky_relu")
def _leaky_relu(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, negative_slope: float = 0.01,
    inplace: bool = False,
) -> None:  # fmt: skip
    g.emit("activation", [input], out, activation="leaky_relu", slope=float(negative_slope))


@lowers("elu")
def _elu(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, alpha: float = 1.0, *_: Any, **__: Any
) -> None:
    g.emit("activation", [input], out, activation="elu", alpha=float(alpha))


@lowers("softplus")
def _softplus(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, beta: float = 1, threshold: float = 20
) -> None:
    if beta != 1:
        raise Declined(f"beta {beta}")
    g.emit("activation", [input], out, activation="softplus")


@lowers("prelu")
def _prelu(g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor) -> None:
    slope = weight.detach().expand(input.shape[1]).contiguous()
    g.emit("activation", [input], out, activation="prelu", params={"slope": slope})


@lowers("softmax")
def _softmax(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, *_: Any, **__: Any
) -> None:
    if dim is None:
        raise Declined("no axis is given")
    g.emit("softmax", [input], out, axis=int(dim) % input.dim())


def _arithmetic(name: str, kind: str) -> None:
    @lowers(name)
    def handler(
        g: Recorder, out: torch.Tensor, input: Any, other: Any, *, alpha: float = 1,
        rounding_mode: Any = None, out_: Any = None,
    ) -> None:  # fmt: skip
        if alpha != 1 or rounding_mode is not None:
            raise Declined("alpha or a rounding mode")
        g.emit(kind, [input, other], out, broadcast=True)


for _name, _kind in {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "multiply": "mul",
    "subtract": "sub", "divide": "div", "true_divide": "div", "maximum": "maximum",
    "minimum": "minimum",
}.items():  # fmt: skip
    _arithmetic(_name, _kind)


@lowers("rsub")
def _rsub(g: Recorder, out: torch.Tensor, input: Any, other: Any, *, alpha: float = 1) -> None:
    if alpha != 1:
        raise Declined("alpha")
    g.emit("sub", [other, input], out, broadcast=True)


@lowers("reciprocal_div")
def _reciprocal_div(g: Recorder, out: torch.Tensor, input: Any, other: Any) -> None:
    g.emit("div", [other, input], out, broadcast=True)


@lowers("neg")
def _neg(g: Recorder, out: torch.Tensor, input: torch.Tensor) -> None:
    g.emit("mul", [input, -1.0], out, broadcast=True)


@lowers("square")
def _square(g: Recorder, out: torch.Tensor, input: torch.Tensor) -> None:
    g.emit("mul", [input, input], out)


@lowers(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout", "contiguous", "clone", "detach", "to", "float", "type_as", "cpu", "cuda",
    "requires_grad", "alias", "positive", "half", "bfloat16", "double", "type", "get_data",
    "lift_fresh", "resolve_conj", "resolve_neg",
)  # fmt: skip
def _unchanged(g: Recorder, out: torch.Tensor, input: torch.Tensor, *_: Any, **__: Any) -> None:
    if not out.dtype.is_floating_point:
        raise Declined(f"a conversion to {out.dtype}")
    g.alias(out, input)
