# SPDX-License-Identifier: Apache-2.0
"""What soft masks put on the parameters of a network: masks, and scales of batch norms.

Humble et al., ECCV 2022, arXiv 2211.02206. They are parametrisations of PyTorch
(:mod:`torch.nn.utils.parametrize`): the layer computes with what they return, the optimizer moves
what they are given, and copies and state dictionaries keep working.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _StraightThrough(torch.autograd.Function):
    """``w * m`` forwards; backwards the gradient of the product as if there were no mask."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Rescaled(torch.autograd.Function):
    """``s * g`` forwards; backwards the gradient divided by ``s``, zero where ``s`` is zero.

    A step of gradient descent on ``g`` then moves ``s * g`` as if that were the parameter.
    """

    @staticmethod
    def forward(ctx: Any, gamma: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return gamma * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        inverse = torch.where(scale > 0, 1.0 / scale.clamp_min(1e-30), torch.zeros_like(scale))
        return gradient * inverse, None


class ChannelMask(nn.Module):
    """Zeroes some indices along one axis of a parameter.

    Args:
        like: The parameter.
        axis: Of the mask.
        straight: Whether gradients pass as if there were no mask.
    """

    mask: Tensor

    def __init__(self, like: Tensor, axis: int, straight: bool) -> None:
        super().__init__()
        self.axis, self.straight = axis, straight
        self.register_buffer("mask", torch.ones(like.shape[axis], dtype=like.dtype))
        self.to(like.device)

    def spread(self, like: Tensor) -> Tensor:
        """Return the mask in a shape that multiplies the parameter."""
        return self.mask.reshape([-1 if i == self.axis else 1 for i in range(like.dim())])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked parameter."""
        mask = self.spread(weight)
        return _StraightThrough.apply(weight, mask) if self.straight else weight * mask


class NormScale(nn.Module):
    """Multiplies the scale of a batch norm by one number, 1 at first.

    A layer that reads fewer channels writes smaller values, which its batch norm would make as
    large as before, and gradients through it larger; the factor undoes that.
    """

    scale: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=like.dtype))
        self.to(like.device)

    def forward(self, gamma: Tensor) -> Tensor:
        """Return the scaled parameter."""
        return _Rescaled.apply(gamma, self.scale)


def masks_of(module: nn.Module, name: str) -> list[ChannelMask]:
    """Return the masks on one parameter of a module."""
    held = getattr(module, "parametrizations", {})
    return [part for part in held[name] if isinstance(part, ChannelMask)] if name in held else []


def stored(module: nn.Module, name: str) -> Tensor:
    """Return a parameter as the optimizer sees it, whatever is put on it."""
    held = getattr(module, "parametrizations", {})
    return held[name].original if name in held else getattr(module, name)
