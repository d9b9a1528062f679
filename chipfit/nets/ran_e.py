# SPDX-License-Identifier: Apache-2.0
"""RAN-e: EfficientNet-Lite's skeleton, every block collapsed to one convolution or not.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, with the block tables
of the networks that its authors released; any other pattern of blocks can be built too (see
:mod:`chipfit.nets.ran_e_pattern`). Padding is SAME for the image size that the network is built
for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct, activation_module, same_padding
from chipfit.blocks.fused_inverted_residual import FusedInvertedResidual
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.blocks.pre_activation_conv import PreActivationConv
from chipfit.blocks.shortcut import Shortcut
from chipfit.errors import BadInput
from chipfit.nets.ran_e_pattern import COLLAPSED, FUSED, BlockKind, Pattern
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]
Size = tuple[int, int]

EPS = 1e-3


@dataclass(frozen=True)
class Skeleton:
    """What a pattern does not decide.

    Args:
        stem: Channels of the first convolution, 3x3.
        widths: Output channels of the blocks.
        strides: Of the blocks.
        head: Channels of the 1x1 convolution behind the blocks.
        head_kernel: Of the depthwise convolution behind that; 0 for none.
        stem_stride: Of the first convolution.
        stem_norm: Whether batch norm and activation follow the first convolution.
        narrowing: A residual block of this width narrows to half of it inside, unless it is fused;
            0 for none.
        momentum: Of the batch norms; 0.01 needs trainings of thousands of steps.
    """

    stem: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    head: int
    head_kernel: int = 0
    stem_stride: int = 2
    stem_norm: bool = False
    narrowing: int = 0
    momentum: float = 0.01

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.strides):
            raise BadInput(f"{len(self.widths)} widths, but {len(self.strides)} strides")

    def scaled(self, factor: float) -> Skeleton:
        """Return a copy with all widths multiplied and rounded to multiples of 8."""

        def width(old: int) -> int:
            return max(8, round(old * factor / 8) * 8)

        return replace(
            self, stem=width(self.stem), widths=tuple(map(width, self.widths)),
            head=width(self.head), narrowing=width(self.narrowing) if self.narrowing else 0,
        )  # fmt: skip


_RAN_E = Skeleton(
    16, (32, 48, 64, 80, 80, 80, 96, 96, 128, 128, 160, 176, 176, 176, 224, 224),
    (1, 2, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1), 1344, 7, narrowing=128,
)  # fmt: skip
_LITE0 = Skeleton(
    32, (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320),
    (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1), 1280, stem_norm=True,
)  # fmt: skip


def _small(skeleton: Skeleton, factor: float, strided: tuple[int, ...], stem: int) -> Skeleton:
    """Return a skeleton for images of 32 pixels, with fewer strides than the published one."""
    strides = tuple(2 if place in strided else 1 for place in range(len(skeleton.widths)))
    return replace(
        skeleton.scaled(factor), stem_stride=stem, strides=strides, momentum=0.1,
        head_kernel=3 if skeleton.head_kernel else 0,
    )  # fmt: skip


#: Skeletons by name. ``lite0`` has EfficientNet-Lite0's blocks. ``_32`` is for images of 32 pixels,
#: with two strides less and half the channels; ``_tiny`` has a quarter of them and one stride less.
#: ``six_28`` has six blocks, for images of 28 pixels.
SKELETONS = {
    "ran_e": _RAN_E,
    "ran_e_32": _small(_RAN_E, 0.5, (1, 4, 10), stem=1),
    "ran_e_tiny": _small(_RAN_E, 0.25, (1, 4, 10), stem=2),
    "lite0": _LITE0,
    "lite0_32": _small(_LITE0, 0.5, (3, 5, 11), stem=1),
    "lite0_tiny": _small(_LITE0, 0.25, (1, 5, 11), stem=2),
    "six_28": Skeleton(
        8, (8, 16, 16, 24, 24, 24), (1, 2, 1, 1, 1, 1), 64, stem_norm=True, momentum=0.1
    ),
}

RAN_E_GT = "4c_2i5x6_2i3x4_2c_i7x6_3i3x4_2i5x6"
RAN_E_C = "2c_i3x6_c_i5x6_c_i5x4_c_2i3x6_c_i7x4_i3x4_c_2i5x6"
#: EfficientNet-Lite0's own blocks.
LITE0 = "i3x1_2i3x6_2i5x6_3i3x6_7i5x6_i3x6"


class RanE(nn.Module):
    """Stem, blocks, 1x1 and depthwise head, pooling, classifier.

    Args:
        pattern: What the blocks are.
        skeleton: Widths, strides and head.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; fixes the padding.
        activation: Of everything that the pattern gives none.
        dropout: Probability before the classifier.

    Raises:
        BadInput: The pattern has another number of blocks than the skeleton.
    """

    def __init__(
        self,
        pattern: Pattern,
        skeleton: Skeleton,
        num_classes: int,
        input_shape: Shape4,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__()
        if len(pattern.blocks) != len(skeleton.widths):
            raise BadInput(
                f"the pattern {pattern} has {len(pattern.blocks)} blocks, the skeleton"
                f" {len(skeleton.widths)}"
            )
        self.input_shape = input_shape
        size: Size = (input_shape[2], input_shape[3])
        self.stem = _stem(skeleton, input_shape[1], size, activation)
        size, channels = _divided(size, skeleton.stem_stride), skeleton.stem
        layers: list[nn.Module] = []
        rows = zip(pattern.blocks, skeleton.widths, skeleton.strides, strict=True)
        for kind, width, stride in rows:
            act = kind.activation or activation
            narrows = stride == 1 and channels == width == skeleton.narrowing
            layers.append(
                _block(kind, channels, width, stride, size, act, narrows, skeleton.momentum)
            )
            channels, size = width, _divided(size, stride)
        self.blocks = nn.Sequential(*layers)
        act, head = pattern.head or activation, skeleton.head
        momentum = skeleton.momentum
        tail = [ConvBNAct(channels, head, act=act, eps=EPS, momentum=momentum)]
        if skeleton.head_kernel:
            tail.append(
                ConvBNAct(
                    head, head, skeleton.head_kernel, groups=head, act=act, eps=EPS,
                    momentum=momentum,
                )
            )  # fmt: skip
        self.head = nn.Sequential(*tail)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, num_classes))
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


def _divided(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


def _stem(skeleton: Skeleton, channels: int, size: Size, activation: str) -> nn.Sequential:
    (top, bottom), (left, right) = (same_padding(s, 3, skeleton.stem_stride) for s in size)
    layers: list[nn.Module] = [
        nn.ZeroPad2d((left, right, top, bottom)),
        nn.Conv2d(channels, skeleton.stem, 3, skeleton.stem_stride, bias=False),
    ]
    if skeleton.stem_norm:
        layers.append(nn.BatchNorm2d(skeleton.stem, eps=EPS, momentum=skeleton.momentum))
        layers.append(activation_module(activation))
    return nn.Sequential(*layers)


def _block(
    kind: BlockKind,
    channels: int,
    width: int,
    stride: int,
    size: Size,
    act: str,
    narrows: bool,
    momentum: float,
) -> nn.Module:
    half = width // 2 if narrows else None
    if kind.letter == COLLAPSED:
        return PreActivationConv(
            channels, width, kind.kernel, stride,
            hidden=half, act=act, same_size=size, eps=EPS, momentum=momentum,
        )  # fmt: skip

    def inverted(into: int, out: int, hidden: int) -> nn.Module:
        make = FusedInvertedResidual if kind.letter == FUSED else InvertedResidual
        return make(
            into, out, hidden=hidden, kernel=kind.kernel, stride=stride,
            act=act, same_size=size, eps=EPS, momentum=momentum,
        )  # fmt: skip

    if half is None or kind.letter == FUSED:
        return inverted(channels, width, channels * kind.expansion)
    hidden = channels * kind.expansion  # of both halves
    return Shortcut(inverted(channels, half, hidden), inverted(half, width, hidden))


_SOURCE = "Bhardwaj et al., 2022, arXiv 2208.08562"


@register_net(
    "ran_e",
    summary="RAN-e of any pattern of blocks, ran_e:pattern=4c_2i5x6_...; GT's where none is given",
    source=_SOURCE,
)
def ran_e(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    pattern: str = RAN_E_GT,
    skeleton: str = "ran_e",
    width: float = 1.0,
    activation: str = "hardswish",
    dropout: float = 0.2,
) -> RanE:
    """Build a RAN-e network.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        pattern: As :meth:`chipfit.nets.ran_e_pattern.Pattern.parse` reads it.
        skeleton: A key of :data:`SKELETONS`.
        width: Multiplies all channels; the products become multiples of 8.
        activation: Of everything that the pattern gives none.
        dropout: Probability before the classifier.

    Raises:
        BadInput: The pattern cannot be read or does not fit; no such skeleton.
    """
    if skeleton not in SKELETONS:
        raise BadInput(f"unknown skeleton {skeleton!r}", f"known: {', '.join(SKELETONS)}")
    if not width > 0:
        raise BadInput(f"width={width} must be positive")
    rows = SKELETONS[skeleton] if width == 1 else SKELETONS[skeleton].scaled(width)
    return RanE(Pattern.parse(pattern), rows, num_classes, input_shape, activation, dropout)


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
    pattern = Pattern.parse(RAN_E_GT)
    return RanE(pattern, _RAN_E, num_classes, input_shape, activation, dropout)


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
    pattern = Pattern.parse(RAN_E_C)
    return RanE(pattern, _RAN_E, num_classes, input_shape, activation, dropout)
