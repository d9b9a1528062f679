# SPDX-License-Identifier: Apache-2.0
"""``Affine``: the one form that everything linear in a network is brought to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """``y = weight * padded(x) + bias``: a convolution over any number of axes.

    Batch norms are 1x1 depthwise convolutions with a bias, average pooling is a depthwise one with
    equal weights, padding one that pads, and a linear layer one that has no axes to slide along.

    Args:
        weight: ``(C_out, C_in / groups, *kernel)``.
        bias: ``(C_out,)``.
        stride: Along each axis.
        dilation: Along each axis.
        before: Zeros put before the first position of each axis.
        after: Zeros put behind the last position of each axis.
        groups: Convolution groups.
        has_bias: Whether the layers it comes from have a bias, be it zero at present.
        offset: ``(1, C_out, *sizes)``, added to what comes out; only for images of one size.
    """

    weight: Tensor
    bias: Tensor
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes
    groups: int = 1
    has_bias: bool = False
    offset: Tensor | None = None

    @classmethod
    def diagonal(cls, scale: Tensor, shift: Tensor, axes: int, has_bias: bool = False) -> Affine:
        """Return ``x * scale + shift`` by channel, for tensors with ``axes`` axes to slide along.

        Args:
            scale: ``(C,)``.
            shift: ``(C,)``.
            axes: 2 for images.
            has_bias: Whether the shift is that of a layer.
        """
        one, none = (1,) * axes, (0,) * axes
        weight = scale.double().reshape(-1, 1, *one)
        return cls(weight, shift.double(), one, one, none, none, len(weight), has_bias)

    @classmethod
    def identity(cls, channels: int, axes: int) -> Affine:
        """Return the map that changes nothing."""
        return cls.diagonal(torch.ones(channels), torch.zeros(channels), axes)

    @property
    def out_channels(self) -> int:
        """Channels of what comes out."""
        return self.weight.shape[0]

    @property
    def in_channels(self) -> int:
        """Channels of what goes in."""
        return self.weight.shape[1] * self.groups

    @property
    def kernel(self) -> Sizes:
        """Taps along each axis."""
        return tuple(self.weight.shape[2:])

    @property
    def extent(self) -> Sizes:
        """Positions that the kernel spans along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads the input channel of the same number, and no other."""
        return self.groups == self.in_channels == self.out_channels

    @property
    def macs_per_position(self) -> int:
        """Multiply-accumulates for one position of the output."""
        return self.weight.numel()

    def is_padding(self) -> bool:
        """Whether it only pads, or does not even that."""
        if self.offset is not None:
            return False
        point = self.depthwise and prod(self.kernel) == 1 and prod(self.stride) == 1
        return point and bool((self.weight == 1).all()) and not bool(self.bias.any())

    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.is_padding() and not any((*self.before, *self.after))

    def double(self) -> Affine:
        """Return this in float64, in which all merging is done."""
        return replace(self, weight=self.weight.double(), bias=self.bias.double())

    def scaled(self, factor: float) -> Affine:
        """Return ``factor`` times this."""
        if factor == 1.0:
            return self
        return replace(self, weight=self.weight * factor, bias=self.bias * factor)

    def regrouped(self, groups: int) -> Affine:
        """Return the same map with fewer groups: what was apart is joined by zeros.

        Args:
            groups: Divides the groups there are.
        """
        if groups == self.groups:
            return self
        step = self.groups // groups
        per_group, inputs = self.out_channels // self.groups, self.weight.shape[1]
        blocks = self.weight.reshape(groups, step, per_group, inputs, *self.kernel)
        dense = blocks.new_zeros(groups, step, per_group, step, inputs, *self.kernel)
        index = torch.arange(step)
        dense[:, index, :, index] = blocks.transpose(0, 1)
        shape = (self.out_channels, step * inputs, *self.kernel)
        return replace(self, weight=dense.reshape(shape), groups=groups)
