# SPDX-License-Identifier: Apache-2.0
"""Convolution, linear, normalisation, pooling and resizing calls."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.record import Declined, Recorder, lowers


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
    if input.dim() != 4:
        raise Declined("its input has no batch axis")
    kernel, dilation = pair(weight.shape[2:]), pair(dilation)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    else:
        sides = _sides(0 if padding == "valid" else padding)
    params = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    g.emit("conv2d", [input], out, params=params, kernel=kernel, stride=pair(stride),
           padding=sides, dilation=dilation, groups=int(groups), bias=bias is not None)  # fmt: skip


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


@lowers("max_pool2d")
def _max_pool2d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, kernel_size: Any, stride: Any = None,
    padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> None:  # fmt: skip
    if pair(dilation) != (1, 1) or return_indices:
        raise Declined("dilated pooling, or pooling that returns indices")
    _pool(g, "max_pool2d", out, input, kernel_size, stride, padding)


@lowers("avg_pool2d")
def _avg_pool2d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, kernel_size: Any, stride: Any = None,
    padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: Any = None,
) -> None:  # fmt: skip
    floor = [
        (s + 2 * p - k) // t + 1
        for s, p, k, t in zip(input.shape[2:], pair(padding), pair(kernel_size),
                              pair(stride or kernel_size), strict=True)
    ]  # fmt: skip
    if divisor_override or tuple(out.shape[2:]) != tuple(floor):
        raise Declined("a divisor of its own, or windows cut by ceil mode")
    _pool(g, "avg_pool2d", out, input, kernel_size, stride, padding,
          count_include_pad=count_include_pad or pair(padding) == (0, 0))  # fmt: skip


def _pool(
    g: Recorder, kind: str, out: torch.Tensor, input: torch.Tensor, kernel_size: Any, stride: Any,
    padding: Any, **attrs: Any,
) -> None:  # fmt: skip
    kernel, stride, (ph, pw) = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    # Ceil mode reaches past the far border; written out, it is padding on that side.
    far = [
        max((o - 1) * t + k - s - p, p if kind == "avg_pool2d" else 0)
        for o, t, k, s, p in zip(out.shape[2:], stride, kernel, input.shape[2:], (ph, pw),
                                 strict=True)
    ]  # fmt: skip
    g.emit(kind, [input], out, kernel=kernel, stride=stride, padding=(ph, far[0], pw, far[1]),
           **attrs)  # fmt: skip


@lowers("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, output_size: Any
) -> None:
    _adaptive(g, out, input, "mean", "avg_pool2d", count_include_pad=True)


@lowers("adaptive_max_pool2d")
def _adaptive_max_pool2d(
    g: Recorder, out: Any, input: torch.Tensor, output_size: Any, return_indices: bool = False
) -> None:
    if return_indices or not isinstance(out, torch.Tensor):
        raise Declined("pooling that returns indices")
    _adaptive(g, out, input, "amax", "max_pool2d")


def _adaptive(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, whole: str, windowed: str, **attrs: Any
) -> None:
    size, result = input.shape[2:], out.shape[2:]
    if tuple(result) == (1, 1):
        g.emit(whole, [input], out, axes=(2, 3), keepdim=True)
    elif size == result:
        g.alias(out, input)
    elif all(s % r == 0 for s, r in zip(size, result, strict=True)):
        kernel = tuple(s // r for s, r in zip(size, result, strict=True))
        g.emit(windowed, [input], out, kernel=kernel, stride=kernel, padding=(0, 0, 0, 0), **attrs)
    else:
        raise Declined(f"{tuple(size)} is not a multiple of {tuple(result)}")


@lowers("mean")
def _reduce(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = None, keepdim: bool = False,
    amax: bool = False, **_: Any,
) -> None:  # fmt: skip
    dims = range(input.dim()) if dim is None else ([dim] if isinstance(dim, int) else dim)
    axes = tuple(sorted(d % input.dim() for d in dims))
    if 0 in axes:
        raise Declined("it reduces over the batch")
    kind = "amax" if amax else "mean"
    g.emit(kind, [input], out, axes=axes, keepdim=bool(keepdim))


@lowers("amax")
def _amax(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, dim: Any = (), keepdim: bool = False
) -> None:
    _reduce(g, out, input, dim if dim != () else None, keepdim, amax=True)


@lowers("interpolate", "upsample")
def _interpolate(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, size: Any = None, scale_factor: Any = None,
    mode: str = "nearest", align_corners: Any = None, recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> None:  # fmt: skip
    if mode not in ("nearest", "bilinear") or antialias or input.dim() != 4:
        raise Declined(f"mode {mode}")
    if out.shape == input.shape:
        g.alias(out, input)
    else:
        g.emit("resize", [input], out, mode=mode, align_corners=bool(align_corners))


@lowers("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(g: Recorder, out: torch.Tensor, input: torch.Tensor, factor: int) -> None:
    up = out.shape[-1] > input.shape[-1]
    kind = "pixel_shuffle" if up else "pixel_unshuffle"
    g.emit(kind, [input], out, factor=int(factor))
