# SPDX-License-Identifier: Apache-2.0
"""``RepVGGBlock``: parallel branches while training, one 3x3 convolution when deployed.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv 2101.03697,
sections 3.2 (branches) and 3.3 (merging them).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.blocks.merge import bias_free, centred, convolution, identity, parallel, with_norm
from chipfit.blocks.registry import register_block


class _ConvNorm(nn.Sequential):
    """Convolution without bias and batch norm, under the authors' names ``conv`` and ``bn``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


@register_block(
    "rep_vgg_block",
    summary="3x3, 1x1 and identity branches, or one 3x3 convolution as deployed; ReLU",
    source="Ding et al., CVPR 2021, arXiv 2101.03697",
)
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
        parts = [
            with_norm(bias_free(dense.weight), self.rbr_dense.bn),
            with_norm(bias_free(centred(self.rbr_1x1.conv.weight, 3)), self.rbr_1x1.bn),
        ]
        if self.rbr_identity is not None:
            unit = identity(dense.in_channels, 3, dense.weight)
            parts.append(with_norm(unit, self.rbr_identity))
        merged = RepVGGBlock(dense.in_channels, dense.out_channels, self.stride)
        merged.rbr_reparam = convolution(parallel(parts), dense.weight, self.stride, 1)
        return merged.train(self.training)
