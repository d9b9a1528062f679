# SPDX-License-Identifier: Apache-2.0
"""Algebra that merges linear layers into one convolution; kernels and biases in double precision.

Ding et al., "Diverse Branch Block: Building a Convolution as an Inception-like Unit", CVPR 2021,
arXiv 2103.13425, section 3.2 (transforms I to VI); the first three are also those of RepVGG,
arXiv 2101.03697. A merged convolution is its kernel ``(C_out, C_in, k, k)`` and its bias
``(C_out,)``; results are double, because several roundings would add up otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from chipfit.errors import BadInput

#: Kernel and bias of a convolution.
Merged = tuple[Tensor, Tensor]


def with_norm(merged: Merged, norm: nn.BatchNorm2d) -> Merged:
    """Return the convolution with the batch norm behind it folded in (transform I).

    Raises:
        BadInput: ``norm`` keeps no statistics, or has no affine map.
    """
    if norm.running_mean is None or norm.running_var is None or norm.weight is None:
        raise BadInput("a batch norm without statistics or affine map cannot be folded")
    weight, bias = merged
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return weight.double() * scale[:, None, None, None], bias.double() * scale + shift


def bias_free(weight: Tensor) -> Merged:
    """Return kernel and a bias of zeros."""
    return weight.double(), weight.new_zeros(len(weight), dtype=torch.float64)


def parallel(branches: Iterable[Merged]) -> Merged:
    """Return the sum of convolutions of equal size and stride (transform II)."""
    weights, biases = zip(*branches, strict=True)
    return torch.stack(weights).sum(0), torch.stack(biases).sum(0)


def pointwise_first(first: Merged, second: Merged) -> Merged:
    """Return a 1x1 convolution followed by a kxk one as one (transform III).

    Equal everywhere if the second one sees, outside the image, what the first makes of zeros, that
    is its bias; zeros there instead would be equal in the interior only.
    """
    weight = torch.einsum("opkl,pi->oikl", second[0], first[0][:, :, 0, 0])
    return weight, second[1] + torch.einsum("opkl,p->o", second[0], first[1])


def average(channels: int, kernel: int, like: Tensor) -> Merged:
    """Return average pooling as a dense convolution (transform V); padding counts as zeros."""
    unit = torch.eye(channels, dtype=torch.float64, device=like.device)[:, :, None, None]
    return bias_free(unit.expand(-1, -1, kernel, kernel) / kernel**2)


def identity(channels: int, kernel: int, like: Tensor) -> Merged:
    """Return the identity as a convolution of stride 1, padded by ``kernel // 2``."""
    unit = torch.eye(channels, dtype=torch.float64, device=like.device)[:, :, None, None]
    return bias_free(centred(unit, kernel))


def centred(weight: Tensor, kernel: int) -> Tensor:
    """Return a smaller kernel with zeros around it, ``kernel`` a side (transform VI)."""
    (height, width) = ((kernel - size) // 2 for size in weight.shape[2:])
    return pad(weight, (width, width, height, height))


@torch.no_grad()
def convolution(merged: Merged, like: Tensor, stride: int, padding: int) -> nn.Conv2d:
    """Return the convolution as a module, of ``like``'s type and on its device."""
    weight, bias = merged
    conv = nn.Conv2d(weight.shape[1], len(weight), weight.shape[2], stride, padding).to(like)
    conv.weight.copy_(weight)
    assert conv.bias is not None
    conv.bias.copy_(bias)
    return conv
