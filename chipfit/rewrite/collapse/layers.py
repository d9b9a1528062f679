# SPDX-License-Identifier: Apache-2.0
"""Layers as affine maps; ``None`` where a layer is none, or its borders make it none."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from chipfit.rewrite.collapse.affine import Affine, Sizes


def _sizes(value: Any, axes: int) -> Sizes:
    if isinstance(value, int):
        return (value,) * axes
    sizes = tuple(int(size) for size in value)
    return sizes * axes if len(sizes) == 1 else sizes


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu()


def convolution(
    axes: int, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Affine:  # fmt: skip
    """Return a convolution that pads with zeros; arguments as ``torch.nn.functional.conv2d``."""
    kernel, spread = weight.shape[2:], _sizes(dilation, axes)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
        before = tuple(t // 2 for t in total)
        after = tuple(t - t // 2 for t in total)
    else:
        before = after = _sizes(0 if padding == "valid" else padding, axes)
    shift = torch.zeros(len(weight)) if bias is None else bias
    return Affine(
        _plain(weight),
        _plain(shift),
        _sizes(stride, axes),
        spread,
        before,
        after,
        groups,
        bias is not None,
    )


def linear(weight: Tensor, bias: Tensor | None = None) -> Affine:
    """Return a linear layer, ``weight`` being ``(C_out, C_in)``."""
    shift = torch.zeros(len(weight)) if bias is None else bias
    return Affine(_plain(weight), _plain(shift), (), (), (), (), 1, bias is not None)


def norm(
    axes: int, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float,
) -> Affine | None:  # fmt: skip
    """Return a batch norm with running statistics; one without computes them from its input."""
    if mean is None or variance is None:
        return None
    scale = (_plain(variance).double() + eps).rsqrt()
    if weight is not None:
        scale = scale * _plain(weight)
    shift = -_plain(mean) * scale
    return Affine.diagonal(scale, shift if bias is None else shift + _plain(bias), axes, True)


def pooling(
    axes: int, channels: int, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Affine | None:  # fmt: skip
    """Return average pooling as a depthwise convolution with equal weights.

    Not affine in one way everywhere: a mean that leaves out the padding, whose divisor differs at
    the borders, and rounded-up sizes, whose last window may be cut.
    """
    kernel, pad = _sizes(kernel_size, axes), _sizes(padding, axes)
    if ceil_mode or (any(pad) and not count_include_pad and not divisor_override):
        return None
    steps = kernel if stride is None or stride == () else _sizes(stride, axes)
    value = 1.0 / (divisor_override or prod(kernel))
    weight = torch.full((channels, 1, *kernel), value, dtype=torch.float64)
    none = torch.zeros(channels, dtype=torch.float64)
    return Affine(weight, none, steps, (1,) * axes, pad, pad, channels)


def zeros(axes: int, shape: Sequence[int], padding: Any) -> Affine | None:
    """Return padding with zeros along the axes that convolutions slide along.

    Args:
        axes: How many there are, the last ones.
        shape: Of the input, channels on axis 1.
        padding: As ``torch.nn.functional.pad`` takes it: the last axis first.
    """
    sides = [int(side) for side in padding]
    if not axes or min(sides, default=0) < 0 or any(sides[2 * axes :]):
        return None
    sides = (sides + [0] * (2 * axes))[: 2 * axes]
    one = (1,) * axes
    weight = torch.ones(shape[1], 1, *one, dtype=torch.float64)
    none = torch.zeros(shape[1], dtype=torch.float64)
    return Affine(
        weight, none, one, one, tuple(sides[0::2][::-1]), tuple(sides[1::2][::-1]), shape[1]
    )
