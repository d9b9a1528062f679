# SPDX-License-Identifier: Apache-2.0
"""``ConvNeXtBlock``: 7x7 depthwise convolution, layer norm and a two-layer MLP over channels.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 2 and figure 4. Also the
block of RAN-i (Bhardwaj et al., arXiv 2208.08562).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.blocks.drop_path import DropPath

#: Of every layer norm in ConvNeXt.
EPS = 1e-6
#: Initial value of the scale of a block's branch.
LAYER_SCALE = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of images ``(N, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """``x + gamma * MLP(norm(depthwise(x)))``; the MLP widens to four times the channels.

    Parameter names are the authors' (``dwconv``, ``norm``, ``pwconv1``, ``pwconv2``, ``gamma``).

    Args:
        channels: Input and output channels.
        drop_path: Probability of dropping the branch while training.
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))
