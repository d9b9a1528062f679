# SPDX-License-Identifier: Apache-2.0
"""``ConvNeXtBlock``: 7x7 depthwise convolution, layer norm and a two-layer MLP over channels.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 2 and figure 4. Also the
block of RAN-i (Bhardwaj et al., arXiv 2208.08562).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.blocks.drop_path import DropPath
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput

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
        kernel: Of the depthwise convolution, odd.
        expansion: Channels inside the MLP in units of ``channels``.
    """

    def __init__(
        self, channels: int, drop_path: float = 0.0, *, kernel: int = 7, expansion: int = 4
    ) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, expansion * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(expansion * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


@register_block(
    "convnext_block",
    summary="depthwise convolution, layer norm and a two-layer MLP over channels",
    source="Liu et al., CVPR 2022, arXiv 2201.03545",
)
def convnext_block(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    *,
    drop_path: float = 0.0,
    kernel: int = 7,
    expansion: int = 4,
) -> ConvNeXtBlock:
    """Build a :class:`ConvNeXtBlock`.

    Args:
        in_channels: Input channels.
        out_channels: The same.
        stride: 1.
        drop_path: Probability of dropping the branch while training.
        kernel: Of the depthwise convolution, odd.
        expansion: Channels inside the MLP in units of the input channels.

    Raises:
        BadInput: The block would have to change the channels or the size, or the kernel is even.
    """
    if kernel % 2 == 0:
        raise BadInput(f"kernel={kernel} of a ConvNeXt block", "use an odd one")
    if in_channels != out_channels or stride != 1:
        raise BadInput(
            f"a ConvNeXt block keeps its shape, not {in_channels} to {out_channels} channels at "
            f"stride {stride}",
            "ConvNeXt changes it between stages, by a 2x2 convolution",
        )
    return ConvNeXtBlock(in_channels, drop_path, kernel=kernel, expansion=expansion)
