# SPDX-License-Identifier: Apache-2.0
"""GhostNet.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv 1911.11907, table 1.
Parameter names are the authors', which timm shares.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from chipfit.blocks.ghost_bottleneck import GhostBottleneck
from chipfit.errors import BadInput
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Row:
    """One bottleneck: kernel, channels inside, output channels, squeeze-excite, stride."""

    kernel: int
    hidden: int
    channels: int
    squeeze_excite: bool = False
    stride: int = 1


#: Bottlenecks by stage; a stage that begins with stride 2 ends the one of its resolution before.
GHOSTNET = (
    (Row(3, 16, 16),),
    (Row(3, 48, 24, stride=2),),
    (Row(3, 72, 24),),
    (Row(5, 72, 40, True, 2),),
    (Row(5, 120, 40, True),),
    (Row(3, 240, 80, stride=2),),
    (
        Row(3, 200, 80), Row(3, 184, 80), Row(3, 184, 80),
        Row(3, 480, 112, True), Row(3, 672, 112, True),
    ),
    (Row(5, 672, 160, True, 2),),
    (Row(5, 960, 160), Row(5, 960, 160, True), Row(5, 960, 160), Row(5, 960, 160, True)),
)  # fmt: skip
STEM, HEAD = 16, 1280


class GhostNet(nn.Module):
    """Stem, ghost bottlenecks, 1x1 convolution, average pooling, 1x1 convolution, classifier.

    Args:
        stages: The table.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        width: Multiplier of all channels but the last 1280, rounded to multiples of 4.
        dropout: Probability before the classifier.
    """

    def __init__(
        self,
        stages: tuple[tuple[Row, ...], ...],
        num_classes: int,
        input_shape: Shape4,
        width: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels = _multiple_of_4(STEM * width)
        self.conv_stem = nn.Conv2d(input_shape[1], channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()
        parts: list[nn.Module] = []
        hidden = channels
        for rows in stages:
            blocks: list[nn.Module] = []
            for row in rows:
                out, hidden = (_multiple_of_4(n * width) for n in (row.channels, row.hidden))
                blocks.append(
                    GhostBottleneck(
                        channels,
                        out,
                        row.stride,
                        hidden=hidden,
                        kernel=row.kernel,
                        squeeze_excite=0.25 if row.squeeze_excite else 0.0,
                    )
                )
                channels = out
            parts.append(nn.Sequential(*blocks))
        unit = OrderedDict(
            conv=nn.Conv2d(channels, hidden, 1, bias=False),
            bn1=nn.BatchNorm2d(hidden),
            act1=nn.ReLU(),
        )
        parts.append(nn.Sequential(nn.Sequential(unit)))
        self.blocks = nn.Sequential(*parts)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(hidden, HEAD, 1)
        self.act2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        x = self.act2(self.conv_head(self.global_pool(x)))
        return self.classifier(self.dropout(x.flatten(1)))


def _multiple_of_4(channels: float) -> int:
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded


@register_net(
    "ghostnet",
    summary="GhostNet, 5.18 M parameters, 141 M MACs at 224 x 224",
    source="Han et al., CVPR 2020, arXiv 1911.11907",
)
def ghostnet(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    width: float = 1.0,
    dropout: float = 0.2,
) -> GhostNet:
    """Build GhostNet.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        width: Multiplier of all channels but the last 1280, rounded to multiples of 4.
        dropout: Probability before the classifier.

    Raises:
        BadInput: ``width`` cannot be used.
    """
    if not 0.0 < width <= 8.0:
        raise BadInput(f"width={width} must lie between 0 and 8")
    return GhostNet(GHOSTNET, num_classes, input_shape, width, dropout)
