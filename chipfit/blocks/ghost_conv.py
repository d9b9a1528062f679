# SPDX-License-Identifier: Apache-2.0
"""``GhostConv``: some channels by a convolution, the others by cheap filters of these.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907, section
3.1; called C-Ghost in Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations",
IJCV 2022, arXiv 2201.03297.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import activation_module
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "ghost_conv",
    summary="some channels by a convolution, the others by depthwise filters of these",
    source="Han et al., CVPR 2020, arXiv 1911.11907",
)
class GhostConv(nn.Module):
    """``ceil(C_out / ratio)`` intrinsic channels and their ghosts, concatenated and cropped.

    Both parts have batch norm and activation. Parameter names are the authors'
    (``primary_conv``, ``cheap_operation``).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the convolution.
        kernel: Of the convolution.
        ratio: Output channels for each intrinsic one; 1 leaves the plain convolution.
        cheap_kernel: Of the depthwise filters.
        act: Key of :data:`~chipfit.blocks.conv_bn_act.ACTIVATION_MODULES`, or ``none``.

    Raises:
        BadInput: ``ratio`` is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        kernel: int = 1,
        ratio: int = 2,
        cheap_kernel: int = 3,
        act: str = "relu",
    ) -> None:
        super().__init__()
        if ratio < 1:
            raise BadInput(f"ratio={ratio} of a ghost convolution", "1 makes no ghosts, 2 half")
        self.out_channels = out_channels
        own = -(-out_channels // ratio)

        def unit(into: int, out: int, size: int, step: int, groups: int) -> nn.Sequential:
            layers = [
                nn.Conv2d(into, out, size, step, size // 2, groups=groups, bias=False),
                nn.BatchNorm2d(out),
                nn.Identity() if act == "none" else activation_module(act),
            ]
            return nn.Sequential(*layers)

        self.primary_conv = unit(in_channels, own, kernel, stride, 1)
        ghosts = own * (ratio - 1)
        self.cheap_operation = unit(own, ghosts, cheap_kernel, 1, own) if ghosts else None
        self.crops = own * ratio > out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        own = self.primary_conv(x)
        if self.cheap_operation is None:
            return own
        both = torch.cat([own, self.cheap_operation(own)], dim=1)
        return both[:, : self.out_channels] if self.crops else both
