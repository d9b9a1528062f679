# SPDX-License-Identifier: Apache-2.0
"""``Bottleneck``: 1x1 to fewer channels, a dense convolution there, 1x1 back.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385, figure 5
(right). It ends linearly, like an inverted residual; ``activated`` puts the activation behind it.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


@register_block(
    "bottleneck",
    summary="1x1 reduction, dense convolution between few channels, linear 1x1 expansion",
    source="He et al., CVPR 2016, arXiv 1512.03385",
)
class Bottleneck(nn.Module):
    """1x1 reduction, dense convolution, linear 1x1 expansion, and a shortcut where it fits.

    The shortcut is there when ``stride`` is 1 and ``in_channels`` equals ``out_channels``.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        stride: Of the convolution in the middle.
        hidden: Channels in the middle; ``None`` is half of ``out_channels``, rounded up.
        kernel: Of the convolution in the middle.
        groups: Of the convolution in the middle.
        act: Activation behind the first two convolutions.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.

    Raises:
        BadInput: ``hidden`` is not positive, or ``groups`` does not divide it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        hidden: int | None = None,
        kernel: int = 3,
        groups: int = 1,
        act: str = "relu",
        same_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        hidden = -(-out_channels // 2) if hidden is None else hidden
        if hidden < 1 or groups < 1 or hidden % groups:
            raise BadInput(
                f"{hidden} channels in the middle of a bottleneck, in {groups} groups",
                "give a positive hidden, and groups that divide it",
            )
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            ConvBNAct(in_channels, hidden, act=act),
            ConvBNAct(
                hidden, hidden, kernel, stride, groups=groups, act=act, same_size=same_size
            ),
            ConvBNAct(hidden, out_channels, act="none"),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)
