# SPDX-License-Identifier: Apache-2.0
"""``GhostBottleneck``: two ghost convolutions in the place of an inverted residual.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907, section
3.2 and figure 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.ghost_conv import GhostConv
from chipfit.blocks.inverted_residual import hidden_channels
from chipfit.blocks.registry import register_block
from chipfit.blocks.squeeze_excite import SqueezeExcite, reduced_channels


@register_block(
    "ghost_bottleneck",
    summary="ghost expansion, depthwise convolution where strided, linear ghost projection",
    source="Han et al., CVPR 2020, arXiv 1911.11907",
)
class GhostBottleneck(nn.Module):
    """Ghost expansion, strided depthwise convolution, squeeze-excite, ghost projection, shortcut.

    The depthwise convolution is there only at a stride above 1. The shortcut is the identity where
    the shape stays, otherwise a depthwise and a 1x1 convolution. Parameter names are the authors'
    (``ghost1``, ``conv_dw``, ``se``, ``ghost2``, ``shortcut``).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the depthwise convolutions.
        hidden: Channels between the ghost convolutions; ``None`` takes them from ``expansion``.
        kernel: Of the depthwise convolutions, the cheap filters apart.
        expansion: Hidden channels in units of the input channels, rounded; ``None`` is 3 where
            ``hidden`` does not say.
        squeeze_excite: Fraction of the hidden channels inside squeeze-excite, in multiples of 4;
            0 leaves it out.
        ratio: Output channels of a ghost convolution for each intrinsic one.
        act: Activation behind the expansion.

    Raises:
        BadInput: ``hidden`` and ``expansion`` are both given, or a value cannot be used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        hidden: int | None = None,
        kernel: int = 3,
        expansion: float | None = None,
        squeeze_excite: float = 0.0,
        ratio: int = 2,
        act: str = "relu",
    ) -> None:
        super().__init__()
        hidden = hidden_channels(in_channels, hidden, expansion, 3)

        def depthwise(channels: int) -> nn.Conv2d:
            return nn.Conv2d(
                channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
            )

        self.ghost1 = GhostConv(in_channels, hidden, ratio=ratio, act=act)
        self.conv_dw = depthwise(hidden) if stride > 1 else None
        self.bn_dw = nn.BatchNorm2d(hidden) if stride > 1 else None
        self.se = None
        if squeeze_excite:
            self.se = SqueezeExcite(hidden, reduced_channels(hidden, squeeze_excite, 4))
        self.ghost2 = GhostConv(hidden, out_channels, ratio=ratio, act="none")
        self.shortcut = nn.Sequential()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                depthwise(in_channels),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        y = self.ghost1(x)
        if self.conv_dw is not None and self.bn_dw is not None:
            y = self.bn_dw(self.conv_dw(y))
        if self.se is not None:
            y = self.se(y)
        return self.ghost2(y) + self.shortcut(x)
