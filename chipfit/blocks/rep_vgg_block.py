# SPDX-License-Identifier: Apache-2.0
"""``RepVGGBlock``: parallel branches while training, one 3x3 convolution when deployed.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv 2101.03697,
sections 3.2 (branches) and 3.3 (merging them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class _ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, under the authors' names ``conv`` and ``bn``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


class RepVGGBlock(nn.Module):
    """3x3, 1x1 and identity branches, each with batch norm, summed; then ReLU.

    The identity branch is there when ``stride`` is 1 and the channels agree. Parameter names are
    the authors' (``rbr_dense``, ``rbr_1x1``, ``rbr_identity``; deployed ``rbr_reparam``).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the 3x3 and 1x1 convolutions.
        deploy: One 3x3 convolution with bias instead of the branches.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, deploy: bool = True
    ) -> None:
        super().__init__()
        self.deploy = deploy
        self.stride = stride
        if deploy:
            self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        else:
            identity = stride == 1 and in_channels == out_channels
            self.rbr_identity = nn.BatchNorm2d(in_channels) if identity else None
            self.rbr_dense = _ConvNorm(in_channels, out_channels, 3, stride)
            self.rbr_1x1 = _ConvNorm(in_channels, out_channels, 1, stride)
        self.nonlinearity = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        if self.deploy:
            return self.nonlinearity(self.rbr_reparam(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.nonlinearity(y if self.rbr_identity is None else y + self.rbr_identity(x))

    @torch.no_grad()
    def deployed(self) -> RepVGGBlock:
        """Return the block with its branches merged; equal in evaluation mode (figure 4).

        A 1x1 kernel is a 3x3 one that is zero but for its centre, and the identity is a 1x1
        convolution with the unit matrix, so the folded kernels and biases add.
        """
        if self.deploy:
            return self
        dense = self.rbr_dense.conv
        channels = (dense.in_channels, dense.out_channels)
        parts = [
            _folded(dense.weight, self.rbr_dense.bn),
            _folded(pad(self.rbr_1x1.conv.weight, (1, 1, 1, 1)), self.rbr_1x1.bn),
        ]
        if self.rbr_identity is not None:
            unit = torch.eye(channels[0]).to(dense.weight)[:, :, None, None]
            parts.append(_folded(pad(unit, (1, 1, 1, 1)), self.rbr_identity))
        merged = RepVGGBlock(*channels, self.stride).to(dense.weight)
        merged.rbr_reparam.weight.copy_(torch.stack([weight for weight, _ in parts]).sum(0))
        assert merged.rbr_reparam.bias is not None
        merged.rbr_reparam.bias.copy_(torch.stack([bias for _, bias in parts]).sum(0))
        return merged.train(self.training)


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight ``(C_out, C_in, 3, 3)`` and bias with ``norm`` folded in (equation 3)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # In double precision: three roundings would add up otherwise.
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.double() * scale[:, None, None, None], bias
