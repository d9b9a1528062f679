# SPDX-License-Identifier: Apache-2.0
"""Convolution, linear, normalisation and embedding calls."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.record import Recorder


def pair(value: Any) -> tuple[int, int]:
    """Return ``(h, w)`` from an int or a sequence of one or two ints."""
    if isinstance(value, int):
        return value, value
    values = tuple(int(v) for v in value)
    return values if len(values) == 2 else (values[0], values[0])


def _sides(padding: Any) -> tuple[int, int, int, int]:
    h, w = pair(padding)
    return h, h, w, w


@lowers("conv2d")
def _conv2d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor,
    bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> None:  # fmt: skip
    if g.is_activation(weight) or g.is_activation(bias):
        raise Declined("its weight depends on the input")
    if input.dim() == 3:
        image, result = input.unsqueeze(0), out.unsqueeze(0)
        g.emit("reshape", [input], image)
        _conv2d(g, result, image, weight, bias, stride, padding, dilation, groups)
        g.emit("reshape", [result], out)
        return
    kernel, dilation = pair(weight.shape[2:]), pair(dilation)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    else:
        sides = _sides(0 if padding == "valid" else padding)
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    g.emit("conv2d", [input], out, params=params, kernel=kernel, stride=pair(stride),
           padding=sides, dilation=dilation, groups=int(groups), bias=bias is not None)  # fmt: skip


def single(value: Any) -> int:
    """Return an int from an int or a sequence that starts with one."""
    return int(value if isinstance(value, int) else value[0])


@lowers("conv1d")
def _conv1d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor,
    bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> None:  # fmt: skip
    batched = input if input.dim() == 3 else input.unsqueeze(0)
    image, result = batched.unsqueeze(2), out.reshape(batched.shape[0], -1, 1, out.shape[-1])
    g.emit("reshape", [input], image)
    sides = padding if isinstance(padding, str) else (0, single(padding))
    _conv2d(g, result, image, weight.unsqueeze(2), bias, (1, single(stride)), sides,
            (1, single(dilation)), groups)  # fmt: skip
    g.emit("reshape", [result], out)


@lowers("conv3d")
def _conv3d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor,
    bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> None:  # fmt: skip
    """Record a convolution that spans two of the three axes: the third is a batch."""
    steps, sides, gaps = (
        (value,) * 3 if isinstance(value, int) else tuple(value)
        for value in (stride, padding, dilation)
    )
    flat = [a for a in range(3) if weight.shape[2 + a] == 1 and steps[a] == 1 and sides[a] == 0]
    if isinstance(padding, str) or not flat or input.dim() != 5:
        raise Declined("three axes at once")
    left, right = (a for a in range(3) if a != flat[0])
    order = (0, 2 + flat[0], 1, 2 + left, 2 + right)
    moved, result = input.permute(order), out.permute(order)
    images, made = moved.flatten(0, 1), result.flatten(0, 1)
    g.emit("permute", [input], moved, dims=order)
    g.emit("reshape", [moved], images)
    _conv2d(g, made, images, weight.squeeze(2 + flat[0]), bias, (steps[left], steps[right]),
            (sides[left], sides[right]), (gaps[left], gaps[right]), groups)  # fmt: skip
    g.emit("reshape", [made], result)
    g.emit("permute", [result], out, dims=tuple(order.index(axis) for axis in range(5)))


@lowers("conv_transpose2d")
def _conv_transpose2d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor,
    bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> None:  # fmt: skip
    if g.is_activation(weight) or g.is_activation(bias) or input.dim() != 4:
        raise Declined("its weight depends on the input, or there is no batch axis")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    g.emit("conv_transpose2d", [input], out, params=params, kernel=pair(weight.shape[2:]),
           stride=pair(stride), padding=pair(padding), output_padding=pair(output_padding),
           dilation=pair(dilation), groups=int(groups), bias=bias is not None)  # fmt: skip


@lowers("linear")
def _linear(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, bias: Any = None
) -> None:
    if g.is_activation(weight) or g.is_activation(bias):
        raise Declined("its weight depends on the input")
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    g.emit("linear", [input], out, params=params, bias=bias is not None)


@lowers("addmm")
def _addmm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, mat1: torch.Tensor, mat2: torch.Tensor,
    *, beta: float = 1, alpha: float = 1,
) -> None:  # fmt: skip
    if beta != 1 or alpha != 1 or not g.is_constant(mat2) or not g.is_constant(input):
        raise Declined("only bias + x @ constant is understood")
    g.emit("linear", [mat1], out, params={"weight": mat2.t(), "bias": input}, bias=True)


@lowers("batch_norm")
def _batch_norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, running_mean: Any, running_var: Any,
    weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5, *_: Any,
) -> None:  # fmt: skip
    if running_mean is None or training:
        raise Declined("it normalises with the statistics of the batch")
    scale = torch.rsqrt(running_var.double() + eps)
    scale = scale * weight.double() if weight is not None else scale
    shift = -running_mean.double() * scale + (bias.double() if bias is not None else 0.0)
    g.emit("batch_norm", [input], out, params={"scale": scale, "shift": shift})


@lowers("layer_norm")
def _layer_norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, normalized_shape: Any,
    weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any,
) -> None:  # fmt: skip
    axes = tuple(range(input.dim() - len(normalized_shape), input.dim()))
    params = {}
    if weight is not None:
        params = {"weight": weight, "bias": bias if bias is not None else torch.zeros_like(weight)}
    g.emit("layer_norm", [input], out, params=params, axes=axes, eps=eps, affine=bool(params))


@lowers("group_norm")
def _group_norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, num_groups: int,
    weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any,
) -> None:  # fmt: skip
    params = {}
    if weight is not None:
        params = {"weight": weight, "bias": bias if bias is not None else torch.zeros_like(weight)}
    g.emit("group_norm", [input], out, params=params, groups=num_groups, eps=eps,
           affine=bool(params))  # fmt: skip


@lowers("instance_norm")
def _instance_norm(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, running_mean: Any = None,
    running_var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> None:  # fmt: skip
    if use_input_stats:
        _group_norm(g, out, input, input.shape[1], weight, bias, eps)
    else:
        _batch_norm(g, out, input, running_mean, running_var, weight, bias, False, momentum, eps)


@lowers("embedding")
def _embedding(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor, *_: Any, **__: Any
) -> None:
    if g.is_activation(weight):
        raise Declined("its table depends on the input")
    g.emit("embedding", [input], out, params={"weight": weight}, rows=int(weight.shape[0]))
