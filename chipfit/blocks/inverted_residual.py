# SPDX-License-Identifier: Apache-2.0
"""``InvertedResidual``: expand, depthwise, project; MobileNetV2's block.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv 1801.04381.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.registry import register_block


@register_block(
    "inverted_residual",
    summary="1x1 expansion, depthwise convolution, linear 1x1 projection",
    source="Sandler et al., CVPR 2018, arXiv 1801.04381",
)
class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection, and a shortcut where it fits.

    The shortcut is there when ``stride`` is 1 and ``in_channels`` equals ``out_channels``.
    Parameter names are torchvision's (``conv.0.0.weight`` and so on).

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        hidden: Channels of the depthwise convolution; equal to ``in_channels`` drops the
            expansion, ``None`` means six times as many.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        act: Activation behind the first two convolutions.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        eps: Of the batch norms.
        momentum: Of the batch norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int | None = None,
        kernel: int = 3,
        stride: int = 1,
        *,
        act: str = "relu6",
        same_size: tuple[int, int] | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = 6 * in_channels if hidden is None else hidden
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(ConvBNAct(in_channels, hidden, act=act, eps=eps, momentum=momentum))
        layers.append(
            ConvBNAct(
                hidden,
                hidden,
                kernel,
                stride,
                groups=hidden,
                act=act,
                same_size=same_size,
                eps=eps,
                momentum=momentum,
            )
        )
        layers.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        layers.append(nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)
