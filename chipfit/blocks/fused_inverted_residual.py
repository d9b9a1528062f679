# SPDX-License-Identifier: Apache-2.0
"""``FusedInvertedResidual``: a dense convolution expands, a 1x1 convolution projects.

Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, arXiv 2104.00298,
section 3.2 and figure 2: early in a network one dense convolution is faster than a 1x1 and a
depthwise one although it has more MACs.
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import hidden_channels
from chipfit.blocks.registry import register_block
from chipfit.blocks.squeeze_excite import SqueezeExcite, reduced_channels


@register_block(
    "fused_inverted_residual",
    summary="dense kxk expansion, linear 1x1 projection",
    source="Tan and Le, ICML 2021, arXiv 2104.00298",
)
class FusedInvertedResidual(nn.Module):
    """Dense expansion, linear 1x1 projection, and a shortcut where it fits.

    The shortcut is there when ``stride`` is 1 and ``in_channels`` equals ``out_channels``.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        hidden: Channels between the two convolutions; ``None`` takes them from ``expansion``.
        kernel: Of the first convolution.
        stride: Of the first convolution.
        act: Activation behind the first convolution.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        eps: Of the batch norms.
        momentum: Of the batch norms.
        expansion: Hidden channels in units of the input channels, rounded; ``None`` is 4 where
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
        hidden = hidden_channels(in_channels, hidden, expansion, 4)
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = [
            ConvBNAct(
                in_channels,
                hidden,
                kernel,
                stride,
                act=act,
                same_size=same_size,
                eps=eps,
                momentum=momentum,
            )
        ]
        if squeeze_excite:
            layers.append(SqueezeExcite(hidden, reduced_channels(hidden, squeeze_excite), gate))
        layers.append(ConvBNAct(hidden, out_channels, act="none", eps=eps, momentum=momentum))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)
