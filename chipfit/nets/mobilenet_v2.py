# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2, and a small relative of it for images of 8 to 32 pixels.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv 1801.04381. ``mobilenet_v2`` has torchvision's parameter names, so its published weights load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.errors import BadInput
from chipfit.nets.channels import scale_channels, stage_numbers
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Stage:
    """``repeats`` inverted residuals; the first takes the stride and the change of width."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)

TINY = (
    Stage(1, 16, 1, 1),
    Stage(4, 40, 1, 2),
    Stage(3, 40, 3, 1),
)


class MobileNetV2(nn.Module):
    """A stem, stages of inverted residuals, a 1x1 head, global average pooling and a classifier.

    Args:
        stages: The table.
        stem: Channels of the 3x3 stem, which halves the image.
        head: Channels of the 1x1 convolution before pooling.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        dropout: Probability before the classifier.
        same: SAME padding for ``input_shape``, which needs no padding operator on TFLite targets;
            otherwise ``kernel // 2`` on every side, as torchvision pads.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        *,
        stem: int,
        head: int,
        num_classes: int,
        input_shape: Shape4,
        dropout: float,
        same: bool,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.widths = tuple(stage.channels for stage in stages)
        self.depths = tuple(stage.repeats for stage in stages)
        self._stages, self._stem, self._head = stages, stem, head
        self._num_classes, self._dropout, self._same = num_classes, dropout, same
        height, width = input_shape[2:]
        layers: list[nn.Module] = [
            ConvBNAct(input_shape[1], stem, 3, 2, same_size=(height, width) if same else None)
        ]
        height, width, channels = -(-height // 2), -(-width // 2), stem
        for stage in stages:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                layers.append(
                    InvertedResidual(
                        channels,
                        stage.channels,
                        channels * stage.expansion,
                        stage.kernel,
                        stride,
                        same_size=(height, width) if same else None,
                    )
                )
                channels = stage.channels
                height, width = -(-height // stride), -(-width // stride)
        layers.append(ConvBNAct(channels, head))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, num_classes))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> MobileNetV2:
        """Return a new network with these channels and blocks of each stage.

        Stem and head keep their channels.

        Raises:
            BadInput: There are more or fewer numbers than stages, or one is not positive.
        """
        return MobileNetV2(
            with_numbers(self._stages, widths, depths),
            stem=self._stem,
            head=self._head,
            num_classes=self._num_classes,
            input_shape=self.input_shape,
            dropout=self._dropout,
            same=self._same,
        )


def with_numbers(
    stages: tuple[Stage, ...], widths: Sequence[int], depths: Sequence[int]
) -> tuple[Stage, ...]:
    """Return the table with other channels and repeats.

    Raises:
        BadInput: There are more or fewer numbers than stages, or one is not positive.
    """
    numbers = stage_numbers(len(stages), widths, depths)
    return tuple(
        replace(stage, channels=width, repeats=depth)
        for stage, (width, depth) in zip(stages, numbers, strict=True)
    )


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


@register_net(
    "mobilenet_v2",
    summary="MobileNetV2, 3.5 M parameters, 301 M MACs at 224 x 224",
    source="Sandler et al., CVPR 2018, arXiv 1801.04381",
)
def mobilenet_v2(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    width: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """Build MobileNetV2 with torchvision's parameter names and padding.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; the padding does not depend on it.
        width: Multiplier of all channels, rounded to multiples of 8; the head never shrinks.
        dropout: Probability before the classifier.
    """
    return MobileNetV2(
        _scaled(MOBILENET_V2, width),
        stem=scale_channels(32, width),
        head=scale_channels(1280, max(1.0, width)),
        num_classes=num_classes,
        input_shape=input_shape,
        dropout=dropout,
        same=False,
    )


@register_net(
    "tiny_mobilenet_v2",
    summary="MobileNetV2 for images of 8 to 32 pixels: 45 k parameters, 2.3 M MACs at 28 x 28",
    source="after Sandler et al., CVPR 2018, arXiv 1801.04381",
)
def tiny_mobilenet_v2(
    *,
    num_classes: int = 10,
    input_shape: Shape4 = (1, 1, 28, 28),
    width: float = 1.0,
    dropout: float = 0.0,
) -> MobileNetV2:
    """Build the small relative that trains in minutes on two CPU cores.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; images of 8 to 64 pixels, padded SAME.
        width: Multiplier of all channels, rounded to multiples of 8.
        dropout: Probability before the classifier.

    Raises:
        BadInput: The images are too small or too large for it.
    """
    if not all(8 <= size <= 64 for size in input_shape[2:]):
        raise BadInput(
            f"tiny_mobilenet_v2 takes images of 8 to 64 pixels, not {input_shape[2:]}",
            "use mobilenet_v2 for larger ones",
        )
    return MobileNetV2(
        _scaled(TINY, width),
        stem=scale_channels(16, width),
        head=scale_channels(128, width),
        num_classes=num_classes,
        input_shape=input_shape,
        dropout=dropout,
        same=True,
    )


def _scaled(stages: tuple[Stage, ...], width: float) -> tuple[Stage, ...]:
    if not 0.0 < width <= 8.0:
        raise BadInput(f"width={width} must lie between 0 and 8")
    return tuple(
        Stage(s.expansion, scale_channels(s.channels, width), s.repeats, s.stride, s.kernel)
        for s in stages
    )
