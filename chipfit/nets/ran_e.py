# SPDX-License-Identifier: Apache-2.0
"""RAN-e-GT and RAN-e-C: EfficientNet-Lite's skeleton, some blocks collapsed to one convolution.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, with the block tables
of the networks that its authors released. Padding is SAME for the image size that the network is
built for.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct, same_padding
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.blocks.pre_activation_conv import PreActivationConv
from chipfit.blocks.shortcut import Shortcut
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]
Size = tuple[int, int]

STEM, HEAD, HEAD_KERNEL = 16, 1344, 7
EPS, MOMENTUM = 1e-3, 0.01


@dataclass(frozen=True)
class Block:
    """One row of the table.

    Args:
        channels: Output channels.
        expansion: Hidden channels of an inverted residual in units of its input channels; 0 for a
            block that is collapsed to a dense 3x3 convolution.
        kernel: Of the depthwise convolution.
        stride: Of the block.
    """

    channels: int
    expansion: int = 0
    kernel: int = 3
    stride: int = 1


RAN_E_GT = (
    Block(32), Block(48, stride=2), Block(64, stride=2), Block(80),
    Block(80, 6, 5, 2), Block(80, 6, 5),
    Block(96, 4), Block(96, 4),
    Block(128), Block(128),
    Block(160, 6, 7, 2),
    Block(176, 4), Block(176, 4), Block(176, 4),
    Block(224, 6, 5), Block(224, 6, 5),
)  # fmt: skip

RAN_E_C = (
    Block(32), Block(48, stride=2), Block(64, 6, stride=2), Block(80),
    Block(80, 6, 5, 2), Block(80),
    Block(96, 4, 5), Block(96),
    Block(128, 6), Block(128, 6),
    Block(160, stride=2),
    Block(176, 4, 7), Block(176, 4), Block(176),
    Block(224, 6, 5), Block(224, 6, 5),
)  # fmt: skip

#: A residual block of this width narrows to half of it inside, collapsed or not.
NARROWING = 128
NARROWING_EXPANSION = 6


class RanE(nn.Module):
    """Stem without norm or activation, blocks, 1x1 and 7x7 depthwise head, pooling, classifier.

    Args:
        blocks: The table.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; fixes the padding.
        activation: Everywhere in the network.
        dropout: Probability before the classifier.
    """

    def __init__(
        self,
        blocks: tuple[Block, ...],
        num_classes: int,
        input_shape: Shape4,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        size: Size = (input_shape[2], input_shape[3])
        (top, bottom), (left, right) = (same_padding(s, 3, 2) for s in size)
        self.stem = nn.Sequential(
            nn.ZeroPad2d((left, right, top, bottom)),
            nn.Conv2d(input_shape[1], STEM, 3, 2, bias=False),
        )
        size, channels = _halved(size, 2), STEM
        layers: list[nn.Module] = []
        for row in blocks:
            layers.append(_block(row, channels, size, activation))
            channels, size = row.channels, _halved(size, row.stride)
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(
            ConvBNAct(channels, HEAD, act=activation, eps=EPS, momentum=MOMENTUM),
            ConvBNAct(
                HEAD, HEAD, HEAD_KERNEL, groups=HEAD, act=activation, eps=EPS, momentum=MOMENTUM
            ),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(HEAD, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.pool(x).flatten(1))


def _halved(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


def _block(row: Block, channels: int, size: Size, activation: str) -> nn.Module:
    narrowing = row.stride == 1 and channels == row.channels == NARROWING
    half = row.channels // 2 if narrowing else None
    if not row.expansion:
        return PreActivationConv(
            channels, row.channels, row.kernel, row.stride,
            hidden=half, act=activation, same_size=size, eps=EPS, momentum=MOMENTUM,
        )  # fmt: skip

    def inverted(into: int, out: int, hidden: int) -> InvertedResidual:
        return InvertedResidual(
            into, out, hidden, row.kernel, row.stride,
            act=activation, same_size=size, eps=EPS, momentum=MOMENTUM,
        )  # fmt: skip

    if half is None:
        return inverted(channels, row.channels, channels * row.expansion)
    hidden = channels * NARROWING_EXPANSION
    return Shortcut(inverted(channels, half, hidden), inverted(half, row.channels, hidden))


_SOURCE = "Bhardwaj et al., 2022, arXiv 2208.08562"


@register_net(
    "ran_e_gt",
    summary="RAN-e GT, 4.49 M parameters, 434 M MACs at 224 x 224",
    source=_SOURCE,
)
def ran_e_gt(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    activation: str = "hardswish",
    dropout: float = 0.2,
) -> RanE:
    """Build RAN-e GT; ``activation`` stands for every activation, ``hardswish`` as published."""
    return RanE(RAN_E_GT, num_classes, input_shape, activation, dropout)


@register_net(
    "ran_e_c",
    summary="RAN-e SubNetwork-C, 4.63 M parameters, 489 M MACs at 224 x 224",
    source=_SOURCE,
)
def ran_e_c(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    activation: str = "hardswish",
    dropout: float = 0.2,
) -> RanE:
    """Build RAN-e C; ``activation`` stands for every activation, ``hardswish`` as published."""
    return RanE(RAN_E_C, num_classes, input_shape, activation, dropout)
