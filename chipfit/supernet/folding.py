# SPDX-License-Identifier: Apache-2.0
"""Weights of a network's convolutions with, and apart from, the batch norms behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.blocks import ConvSite


def folded(net: nn.Module, site: ConvSite) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias with its batch norm folded in."""
    (weight, bias), norm = apart(net, site)
    if norm is None:
        return weight, bias
    scale, shift = scale_shift(norm)
    return weight * scale.reshape(-1, 1, 1, 1), bias * scale + shift


def apart(net: nn.Module, site: ConvSite) -> tuple[tuple[Tensor, Tensor], nn.BatchNorm2d | None]:
    """Return a convolution's weight and bias (zeros where it has none), and its batch norm."""
    conv, norm = net.get_submodule(site.module), site.norm and net.get_submodule(site.norm)
    if not isinstance(conv, nn.Conv2d):
        raise BadInput(f"{site.module} is no Conv2d")
    weight = conv.weight.detach()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    return (weight, bias), norm if isinstance(norm, nn.BatchNorm2d) else None


def scale_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return ``(C,)`` scale and shift of a batch norm in evaluation mode.

    Raises:
        BadInput: It keeps no running statistics.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise BadInput("a batch norm without running statistics cannot be folded")
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
    scale = gamma / (variance + norm.eps).sqrt()
    return scale, beta - mean * scale


@torch.no_grad()
def take_norm(
    after: nn.BatchNorm2d,
    norm: nn.BatchNorm2d | None,
    bias: Tensor,
    keep: Tensor | None = None,
) -> None:
    """Make ``after(y)`` what ``norm(y + bias)`` is; without a norm, ``y + bias``.

    Args:
        after: Changed in place; its own ``eps`` stays.
        norm: In evaluation mode.
        bias: ``(C,)``.
        keep: Indices of the channels that ``after`` has; all where ``None``.
    """
    index = torch.arange(len(bias)) if keep is None else keep
    if norm is None:
        after.running_mean.copy_(-bias[index])  # type: ignore[union-attr]
        after.running_var.fill_(1.0 - after.eps)  # type: ignore[union-attr]
        return
    scale, shift = scale_shift(norm)
    mean: Tensor = norm.running_mean  # type: ignore[assignment]
    variance: Tensor = norm.running_var  # type: ignore[assignment]
    wanted = (variance + norm.eps - after.eps).clamp(min=0)
    after.running_var.copy_(wanted[index])  # type: ignore[union-attr]
    after.weight.copy_((scale * (wanted + after.eps).sqrt())[index])
    after.running_mean.copy_((mean - bias)[index])  # type: ignore[union-attr]
    after.bias.copy_((shift + mean * scale)[index])
