# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing calls."""

from __future__ import annotations

from typing import Any

import torch

from chipfit.graph.handlers import Declined, lowers
from chipfit.graph.lowering.layers import pair, single
from chipfit.graph.record import Recorder


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
    bare = pair(padding) == (0, 0)
    cut = tuple(out.shape[2:]) != tuple(floor)
    if divisor_override or (cut and count_include_pad and not bare):
        raise Declined("a divisor of its own, or windows cut by ceil mode")
    # Windows that ceil mode lets reach past the border are divided by what lies inside.
    _pool(g, "avg_pool2d", out, input, kernel_size, stride, padding,
          count_include_pad=not cut and (count_include_pad or bare))  # fmt: skip


def _flat(name: str, kind: str) -> None:
    windowed = {"max": _max_pool2d, "avg": _avg_pool2d}[kind]

    @lowers(name)
    def handler(
        g: Recorder, out: torch.Tensor, input: torch.Tensor, kernel_size: Any, stride: Any = None,
        padding: Any = 0, *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        image, result = input.unsqueeze(-2), out.unsqueeze(-2)
        step = single(stride) if stride not in (None, (), []) else single(kernel_size)
        g.emit("reshape", [input], image)
        windowed(g, result, image, (1, single(kernel_size)), (1, step), (0, single(padding)),
                 *args, **kwargs)  # fmt: skip
        g.emit("reshape", [result], out)


for _name in ("max", "avg"):
    _flat(f"{_name}_pool1d", _name)


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
    elif whole == "mean":
        g.emit("adaptive_avg_pool2d", [input], out)
    else:
        raise Declined(f"{tuple(size)} is not a multiple of {tuple(result)}")


@lowers("adaptive_avg_pool1d")
def _adaptive_avg_pool1d(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, output_size: Any
) -> None:
    image, result = input.unsqueeze(-1), out.unsqueeze(-1)
    if out.shape[-1] == 1:
        g.emit("mean", [input], out, axes=(input.dim() - 1,), keepdim=True)
        return
    g.emit("reshape", [input], image)
    _adaptive(g, result, image, "mean", "avg_pool2d", count_include_pad=True)
    g.emit("reshape", [result], out)


@lowers("interpolate", "upsample")
def _interpolate(
    g: Recorder, out: torch.Tensor, input: torch.Tensor, size: Any = None, scale_factor: Any = None,
    mode: str = "nearest", align_corners: Any = None, recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> None:  # fmt: skip
    if antialias or input.dim() not in (3, 4):
        raise Declined("antialiasing, or volumes")
    if input.dim() == 3:
        image, result = input.unsqueeze(-2), out.unsqueeze(-2)
        g.emit("reshape", [input], image)
        modes = {"linear": "bilinear"}
        _interpolate(g, result, image, mode=modes.get(mode, mode), align_corners=align_corners)
        g.emit("reshape", [result], out)
        return
    if mode == "area":
        _adaptive(g, out, input, "mean", "avg_pool2d", count_include_pad=True)
        return
    if mode not in ("nearest", "bilinear", "nearest-exact", "bicubic"):
        raise Declined(f"mode {mode}")
    if scale_factor is not None and not recompute_scale_factor:
        exact = zip(input.shape[2:], out.shape[2:], _factors(scale_factor), strict=True)
        if any(before * factor != after for before, after, factor in exact):
            raise Declined("a factor that does not give whole sizes")
    if out.shape == input.shape:
        g.alias(out, input)
    else:
        g.emit("resize", [input], out, mode=mode, align_corners=bool(align_corners))


def _factors(value: Any) -> tuple[float, float]:
    return (value, value) if isinstance(value, (int, float)) else (value[0], value[-1])


@lowers("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(g: Recorder, out: torch.Tensor, input: torch.Tensor, factor: int) -> None:
    up = out.shape[-1] > input.shape[-1]
    kind = "pixel_shuffle" if up else "pixel_unshuffle"
    g.emit(kind, [input], out, factor=int(factor))
