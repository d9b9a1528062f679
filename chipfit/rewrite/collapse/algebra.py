# SPDX-License-Identifier: Apache-2.0
"""Affine maps in a row, side by side and stacked are affine maps: when, and which.

Ding et al., "Diverse Branch Block", CVPR 2021, arXiv 2103.13425, section 3.2, name the
transformations: a convolution and a batch norm (I), branches that add up (II), sequences (III),
concatenation (IV), average pooling (V), kernels of several sizes (VI). Theirs hold for 1x1 and kxk
kernels of stride 1 and change the padding of a sequence's middle; the conditions for equality at
the borders, and the general form (strides, dilations, groups, any padding), are our derivation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from math import gcd, prod
from typing import Any

import torch
from torch import Tensor

from chipfit.rewrite.collapse.affine import Affine, Sizes

#: Largest number of weights that a merged map may have: more is never worth it.
LARGEST = 1 << 26


def compose(first: Affine, second: Affine) -> Affine | None:
    """Return ``second(first(x))`` as one map; ``None`` where the borders forbid it.

    Tap ``u`` of the first and ``v`` of the second together read position ``j * s1 * s2 + v * d2 *
    s1 + u * d1`` of the padded input. Where the second pads, it puts zeros where a single map would
    compute something: the two agree only if that is zero too, which needs a first map without bias
    that, on that side, reads nothing but its own padding there.
    """
    if not _borders_agree(first, second):
        return None
    first, second = first.double(), second.double()
    groups = gcd(first.groups, second.groups)
    spacing = tuple(d * s for d, s in zip(second.dilation, first.stride, strict=True))
    near = [d if k > 1 else 0 for d, k in zip(first.dilation, first.kernel, strict=True)]
    far = [d if k > 1 else 0 for d, k in zip(spacing, second.kernel, strict=True)]
    dilation = tuple(gcd(a, b) or 1 for a, b in zip(near, far, strict=True))
    kernel = tuple(
        ((k1 - 1) * a + (k2 - 1) * b) // d + 1
        for k1, k2, a, b, d in zip(first.kernel, second.kernel, near, far, dilation, strict=True)
    )
    shape = (second.out_channels, first.in_channels // groups, *kernel)
    if prod(shape) > LARGEST:
        return None
    weight = first.weight.new_zeros(shape)
    for tap in product(*map(range, second.kernel)):
        place: list[Any] = [
            slice(t * b // d, t * b // d + (k - 1) * a // d + 1, a // d or 1)
            for t, k, a, b, d in zip(tap, first.kernel, near, far, dilation, strict=True)
        ]
        part: Any = (..., *tap)
        weight[(..., *place)] += _product(second.weight[part], first, second.groups, groups)
    summed = second.weight.flatten(2).sum(2) if second.kernel else second.weight
    blocks = summed.reshape(second.groups, -1, summed.shape[1])
    bias = second.bias + (blocks @ first.bias.reshape(second.groups, -1, 1)).flatten()
    return Affine(
        weight, bias, tuple(a * b for a, b in zip(first.stride, second.stride, strict=True)),
        dilation, _padding(first.before, second.before, first.stride),
        _padding(first.after, second.after, first.stride), groups,
        first.has_bias or second.has_bias,
    )  # fmt: skip


def _padding(first: Sizes, second: Sizes, stride: Sizes) -> Sizes:
    return tuple(a + b * s for a, b, s in zip(first, second, stride, strict=True))


def _borders_agree(first: Affine, second: Affine) -> bool:
    if not any((*second.before, *second.after)):
        return True
    if bool(first.bias.any()):
        return False
    for axis, extent in enumerate(first.extent):
        if second.before[axis] and first.before[axis] < extent - first.stride[axis]:
            return False
        if second.after[axis] and first.after[axis] < extent - 1:
            return False
    return True


def _product(tap: Tensor, first: Affine, second_groups: int, groups: int) -> Tensor:
    """Return what one tap ``(C_out, C_mid / second_groups)`` makes of the first map's weight."""
    weight, ones = first.weight, (1,) * len(first.kernel)
    middle = first.out_channels
    if second_groups == middle == len(tap):
        return tap.reshape(-1, 1, *ones) * weight
    if first.depthwise:
        left = tap.reshape(second_groups, -1, tap.shape[1], *ones)
        right = weight.reshape(second_groups, 1, -1, *first.kernel)
        return (left * right).flatten(0, 1)
    none = (0,) * 0
    dense = Affine(tap, tap.new_zeros(len(tap)), none, none, none, none, second_groups)
    left = dense.regrouped(groups).weight.reshape(groups, -1, middle // groups)
    right = first.regrouped(groups).weight.reshape(groups, middle // groups, -1)
    return (left @ right).reshape(len(tap), -1, *first.kernel)


def add(maps: Sequence[Affine]) -> Affine | None:
    """Return the sum of maps of the same input as one map; ``None`` where they do not align.

    Kernels of different sizes and paddings are put into one window and filled up with zeros. The
    caller knows that the outputs have the same size.
    """
    groups = reduce(gcd, (one.groups for one in maps))
    aligned = _aligned([one.double().regrouped(groups) for one in maps])
    if aligned is None:
        return None
    weight = torch.stack([one.weight for one in aligned]).sum(0)
    return _joined(aligned, weight, torch.stack([one.bias for one in aligned]).sum(0))


def concat(maps: Sequence[Affine]) -> Affine | None:
    """Return maps of the same input, concatenated along the channels, as one map.

    ``None`` where they do not align, as in :func:`add`.
    """
    if sum(one.out_channels for one in maps) * maps[0].in_channels > LARGEST:
        return None
    aligned = _aligned([one.double().regrouped(1) for one in maps])
    if aligned is None:
        return None
    weight = torch.cat([one.weight for one in aligned])
    return _joined(aligned, weight, torch.cat([one.bias for one in aligned]))


def _joined(parts: Sequence[Affine], weight: Tensor, bias: Tensor) -> Affine:
    biased = any(one.has_bias for one in parts)
    return replace(parts[0], weight=weight, bias=bias, has_bias=biased)


def _aligned(maps: Sequence[Affine]) -> list[Affine] | None:
    """Return the maps with equal kernel, dilation and padding."""
    if len({one.stride for one in maps}) > 1:
        return None
    stride = maps[0].stride
    size, spacing, low, after = [], [], [], []
    for axis in range(len(stride)):
        steps = [one.dilation[axis] for one in maps if one.kernel[axis] > 1]
        starts = [one.before[axis] for one in maps]
        # Output sizes are floor((L + rest) / stride) + 1, so equal rests mean equal sizes.
        rests = [one.before[axis] + one.after[axis] - one.extent[axis] for one in maps]
        if max(rests) - min(rests) >= stride[axis]:
            return None
        step = reduce(gcd, [*steps, *(max(starts) - start for start in starts)]) or 1
        high = max(one.extent[axis] - 1 - one.before[axis] for one in maps)
        low.append(max(starts))
        spacing.append(step)
        size.append((low[-1] + high) // step + 1)
        after.append(min(rests) + high + 1)
    if max(one.out_channels * one.weight.shape[1] for one in maps) * prod(size) > LARGEST:
        return None
    found = []
    for one in maps:
        weight = one.weight.new_zeros(*one.weight.shape[:2], *size)
        place: list[Any] = []
        for axis, step in enumerate(spacing):
            start = (low[axis] - one.before[axis]) // step
            stop = start + (one.extent[axis] - 1) // step + 1
            place.append(slice(start, stop, max(1, one.dilation[axis] // step)))
        weight[(..., *place)] = one.weight
        found.append(
            replace(one, weight=weight, dilation=tuple(spacing), before=tuple(low),
                    after=tuple(after))
        )  # fmt: skip
    return found
