# SPDX-License-Identifier: Apache-2.0
"""``GroupedInvertedResidual``: an inverted residual whose 1x1 convolutions come in groups.

Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture
Search", CVPR 2019, arXiv 1812.03443, section 3.1 and figure 3: channels are shuffled between the
groups, as in ShuffleNet (Zhang et al., CVPR 2018, arXiv 1707.01083, section 3.1).
"""

from __future__ import annotations

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import hidden_channels
from chipfit.blocks.registry import register_block
from chipfit.errors import BadInput


class ChannelShuffle(nn.Module):
    """Interleave the channels of groups: ``a0 a1 b0 b1`` becomes ``a0 b0 a1 b1``.

    Args:
        groups: Their number, a divisor of the channels.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        n, c, h, w = x.shape
        # Four axes are enough, and what more devices transpose than five.
        parts = x.reshape(n, self.groups, c // self.groups, h * w)
        return parts.transpose(1, 2).reshape(n, c, h, w)

    def extra_repr(self) -> str:
        """Return the number of groups."""
        return f"{self.groups}"


@register_block(
    "grouped_inverted_residual",
    summary="1x1 convolution, channel shuffle, depthwise and linear 1x1 convolution, 1x1 in groups",
    source="Wu et al., FBNet, CVPR 2019, arXiv 1812.03443",
)
class GroupedInvertedResidual(nn.Module):
    """FBNet's block: 1x1 convolution, channel shuffle, depthwise convolution, linear 1x1.

    Unlike in :class:`~chipfit.blocks.inverted_residual.InvertedResidual`, the first convolution is
    there at expansion 1 too. The shortcut is there when ``stride`` is 1 and ``in_channels`` equals
    ``out_channels``.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        hidden: Channels of the depthwise convolution; ``None`` takes them from ``expansion``.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        groups: Of both 1x1 convolutions; 1 leaves the shuffle out.
        act: Activation behind the first two convolutions.
        same_size: Input ``(H, W)`` for SAME padding; ``None`` pads ``kernel // 2`` on every side.
        expansion: Hidden channels in units of the input channels, rounded; ``None`` is 1 where
            ``hidden`` does not say.

    Raises:
        BadInput: The groups do not divide the channels, ``hidden`` and ``expansion`` are both
            given, or a value cannot be used.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int | None = None,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 2,
        act: str = "relu",
        same_size: tuple[int, int] | None = None,
        expansion: float | None = None,
    ) -> None:
        super().__init__()
        hidden = hidden_channels(in_channels, hidden, expansion, 1)
        if groups < 1 or any(c % groups for c in (in_channels, hidden, out_channels)):
            raise BadInput(
                f"groups={groups} must divide {in_channels}, {hidden} and {out_channels} channels"
            )
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = [ConvBNAct(in_channels, hidden, groups=groups, act=act)]
        if groups > 1:
            layers.append(ChannelShuffle(groups))
        layers += [
            ConvBNAct(
                hidden, hidden, kernel, stride, groups=hidden, act=act, same_size=same_size
            ),
            ConvBNAct(hidden, out_channels, groups=groups, act="none"),
        ]  # fmt: skip
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / stride, W / stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)
