# SPDX-License-Identifier: Apache-2.0
"""``RegNetXBlock``: 1x1, grouped 3x3 and 1x1 convolutions with a shortcut.

Radosavovic et al., "Designing Network Design Spaces", CVPR 2020, arXiv 2003.13678, figure 4, with
a bottleneck ratio of 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "regnet_x_block",
    summary="1x1, grouped 3x3 and 1x1 convolutions with a shortcut",
    source="Radosavovic et al., CVPR 2020, arXiv 2003.13678",
)
class RegNetXBlock(nn.Module):
    """Three convolutions of equal width with batch norm, the shortcut, ReLU.

    The shortcut is a strided 1x1 convolution with batch norm where shapes differ.

    Args:
        in_channels: Input channels.
        out_channels: Output channels, and those between the convolutions.
        stride: Of the grouped convolution.
        group_width: Channels of a group, at most ``out_channels``; a divisor of them, or more.

    Raises:
        BadInput: The groups do not divide the channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, group_width: int = 16
    ) -> None:
        super().__init__()
        group = min(group_width, out_channels)
        if group < 1 or out_channels % group:
            raise BadInput(
                f"groups of {group_width} channels do not divide {out_channels}",
                "use a divisor as group_width",
            )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(
            out_channels, out_channels, 3, stride, 1, groups=out_channels // group, bias=False
        )
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu3 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return self.relu3(self.bn3(self.conv3(y)) + self.downsample(x))
