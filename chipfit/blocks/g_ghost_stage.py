# SPDX-License-Identifier: Apache-2.0
"""``GGhostStage``: a whole stage, part of whose channels are made from its first block alone.

Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022,
arXiv 2201.03297, section 4, as the authors released it: depthwise filters are slow on GPUs, so the
cheap part is a 1x1 convolution for all blocks of a stage together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.blocks.registry import register_block
from chipfit.blocks.regnet_x_block import RegNetXBlock
from chipfit.errors import BadInput

#: Groups inside a stage are this fraction of the network's groups wide.
GROUP_SHARE = 0.75


@register_block(
    "g_ghost_stage",
    summary="a RegNetX stage whose middle blocks make a part of the channels; the rest is cheap",
    source="Han et al., IJCV 2022, arXiv 2201.03297",
)
class GGhostStage(nn.Module):
    """First block, middle blocks on some channels, a cheap branch for the others, last block.

    The cheap branch is a 1x1 convolution of the first block's other channels, plus the mix: the
    means of all that the stage computed, through two 1x1 convolutions, added to every pixel.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the first block.
        depth: Blocks, at least 3.
        group_width: Channels of a group of the first and the last block.
        cheap_ratio: Fraction of the channels that the cheap branch makes; the others are a
            multiple of the middle blocks' group width.

    Raises:
        BadInput: The stage is too short, or no channels are left for one of the branches.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        depth: int = 3,
        group_width: int = 8,
        cheap_ratio: float = 0.5,
    ) -> None:
        super().__init__()
        if depth < 3:
            raise BadInput(f"a G-Ghost stage of {depth} blocks", "it takes at least 3")
        group = int(group_width * GROUP_SHARE)
        raw = int(out_channels * (1 - cheap_ratio) / group) * group if group else 0
        cheap = out_channels - raw
        if raw < 1 or cheap < 1:
            raise BadInput(
                f"a G-Ghost stage of {out_channels} channels, groups of {group_width} and "
                f"cheap_ratio={cheap_ratio} leaves {raw} channels to compute",
                "use narrower groups or another ratio",
            )
        self.raw = raw
        self.base = RegNetXBlock(in_channels, out_channels, stride, group_width=group_width)
        self.layers = nn.ModuleList(
            RegNetXBlock(raw, raw, group_width=group) for _ in range(depth - 2)
        )
        self.merge = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels + raw * (depth - 2), cheap, 1, bias=False),
            nn.BatchNorm2d(cheap),
            nn.ReLU(),
            nn.Conv2d(cheap, cheap, 1, bias=False),
            nn.BatchNorm2d(cheap),
        )
        self.cheap = nn.Sequential(
            nn.Conv2d(cheap, cheap, 1, bias=False),
            nn.BatchNorm2d(cheap),
        )
        self.cheap_relu = nn.ReLU()
        self.end = RegNetXBlock(out_channels, out_channels, group_width=group_width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        first = self.base(x)
        raw, made = first[:, : self.raw], [first]
        for layer in self.layers:
            raw = layer(raw)
            made.append(raw)
        mix = self.merge(torch.cat(made, dim=1))
        cheap = self.cheap_relu(self.cheap(first[:, self.raw :]) + mix)
        return self.end(torch.cat([raw, cheap], dim=1))
