# SPDX-License-Identifier: Apache-2.0
"""``InvertedResidual``: expand, depthwise, project; MobileNetV2's block.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv 1801.04381; with squeeze-excite behind the depthwise convolution: Howard et al., "Searching
for MobileNetV3", ICCV 2019, arXiv 1905.02244, section 5.3.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.registry import register_block
from chipfit.blocks.squeeze_excite import SqueezeExcite, reduced_channels
from chipfit.errors import BadInput


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
            expansion, ``None`` takes them from ``expansion``.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        act: Activation behind the first two convolutions.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        eps: Of the batch norms.
        momentum: Of the batch norms.
        expansion: Hidden channels in units of the input channels, rounded; ``None`` is 6 where
            ``hidden`` does not say.
        squeeze_excite: Fraction of the hidden channels inside squeeze-excite; 0 leaves it out.
        gate: Of squeeze-excite, ``hardsigmoid`` or ``sigmoid``.

    Raises:
        BadInput: ``hidden`` and ``expansion`` are both given, or a value cannot be used.
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
        expansion: float | None = None,
        squeeze_excite: float = 0.0,
        gate: str = "hardsigmoid",
    ) -> None:
        super().__init__()
        hidden = hidden_channels(in_channels, hidden, expansion, 6)
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
        if squeeze_excite:
            layers.append(SqueezeExcite(hidden, reduced_channels(hidden, squeeze_excite), gate))
        layers.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        layers.append(nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)


def hidden_channels(
    in_channels: int, hidden: int | None, expansion: float | None, default: float
) -> int:
    """Return the channels inside an inverted residual.

    Args:
        in_channels: Of the block.
        hidden: The number itself, or ``None``.
        expansion: The number in units of ``in_channels``, or ``None``.
        default: Expansion where neither is given.

    Raises:
        BadInput: Both are given, or the number is not positive.
    """
    if hidden is not None and expansion is not None:
        raise BadInput(
            f"hidden={hidden} and expansion={expansion} say the same twice", "give one of them"
        )
    if hidden is None:
        hidden = round(in_channels * (default if expansion is None else expansion))
    if hidden < 1:
        raise BadInput(f"{hidden} hidden channels", "give a larger hidden or expansion")
    return hidden
