# SPDX-License-Identifier: Apache-2.0
"""Linear chains of convolutions as one dense convolution, differentiable in their weights.

A kernel of size ``k1`` and stride ``s1`` followed by one of size ``k2`` is one of size
``k1 + s1 (k2 - 1)``: ``K[o, i, n] = sum_{h, m} W2[o, h, m] W1[h, i, n - s1 m]``, which is what a
transposed convolution computes. Zeros around the input stand for the zeros that the chain puts
around its inner tensors, so the dense convolution equals a chain that is padded once, at its
input; it differs at the borders from one whose inner tensors are padded behind a bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def dense_weight(weight: Tensor) -> Tensor:
    """Return a depthwise weight ``(C, 1, k, k)`` as a dense one ``(C, C, k, k)``."""
    channels = len(weight)
    dense = weight.new_zeros(channels, channels, *weight.shape[2:])
    index = torch.arange(channels)
    return dense.index_put((index, index), weight[:, 0])


def compose(first: Tensor, second: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
    """Return the weight of the convolution that equals ``first`` and then ``second``.

    Args:
        first: ``(hidden, in, k1, k1)``.
        second: ``(out, hidden, k2, k2)``, or ``(hidden, 1, k2, k2)`` where ``depthwise``.
        stride: Of the first.
        depthwise: Whether the second is depthwise.

    Returns:
        ``(out, in, k, k)`` with ``k = k1 + stride (k2 - 1)``.
    """
    if depthwise and first.shape[2] == 1 == stride:
        return second * first  # no sum over hidden channels: far cheaper than the dense form
    dense = dense_weight(second) if depthwise else second
    return functional.conv_transpose2d(dense, first, stride=stride)


def compose_chain(
    weights: Sequence[Tensor], strides: Sequence[int], depthwise: Sequence[bool]
) -> Tensor:
    """Return the one weight ``(out, in, k, k)`` of a chain.

    Args:
        weights: Of its convolutions, in order.
        strides: Likewise.
        depthwise: Likewise; a depthwise weight is ``(C, 1, k, k)``.
    """
    total = dense_weight(weights[0]) if depthwise[0] else weights[0]
    step = strides[0]
    for weight, stride, each in zip(weights[1:], strides[1:], depthwise[1:], strict=True):
        total = compose(total, weight, step, each)
        step *= stride
    return total


def chain_bias(
    weights: Sequence[Tensor], biases: Sequence[Tensor], depthwise: Sequence[bool]
) -> Tensor:
    """Return what a chain adds to every output ``(out,)``, away from the borders."""
    total = biases[0]
    for weight, bias, each in zip(weights[1:], biases[1:], depthwise[1:], strict=True):
        sums = weight.sum((2, 3))
        total = bias + (sums[:, 0] * total if each else sums @ total)
    return total


def cropped(weight: Tensor, before: tuple[int, int], size: int) -> Tensor:
    """Return the part of a kernel that starts ``before`` (top, left) and is ``size`` wide."""
    top, left = before
    return weight[:, :, top : top + size, left : left + size]
