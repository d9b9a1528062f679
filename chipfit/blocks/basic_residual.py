# SPDX-License-Identifier: Apache-2.0
"""``BasicResidual``: two 3x3 convolutions with a shortcut; the block of ResNet-18 and ResNet-34.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.registry import register_block


@register_block(
    "basic_residual",
    summary="two 3x3 convolutions with a shortcut",
    source="He et al., CVPR 2016, arXiv 1512.03385",
)
class BasicResidual(nn.Module):
    """Two 3x3 convolutions; the shortcut is a strided 1x1 convolution where shapes differ.

    Parameter names are torchvision's (``conv1``, ``bn1``, ``conv2``, ``bn2``, ``downsample``).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))
