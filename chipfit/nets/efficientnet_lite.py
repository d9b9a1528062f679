# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-excite, with ReLU6.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
arXiv 1905.11946, gives the scaling; the Lite variants were released by its authors for mobile and
embedded devices, with stem, head and the first and last stage of fixed depth. Padding is SAME for
the image size that the network is built for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.nets.channels import scale_channels
from chipfit.nets.mobilenet_v2 import Stage, with_numbers
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: At width and depth 1.
STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1),
)
EPS, MOMENTUM = 1e-3, 0.01


class EfficientNetLite(nn.Module):
    """Stem, seven stages of inverted residuals, 1x1 head, average pooling and a classifier.

    Args:
        stages: The table.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; fixes the padding.
        dropout: Probability before the classifier.
        activation: Everywhere in the network.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        num_classes: int,
        input_shape: Shape4,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.widths = tuple(stage.channels for stage in stages)
        self.depths = tuple(stage.repeats for stage in stages)
        self._stages, self._rest = stages, (num_classes, input_shape, dropout, activation)
        size = (input_shape[2], input_shape[3])
        layers: list[nn.Module] = [
            ConvBNAct(
                input_shape[1], 32, 3, 2, act=activation, same_size=size, eps=EPS, momentum=MOMENTUM
            )
        ]
        size, channels = (-(-size[0] // 2), -(-size[1] // 2)), 32
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
                        act=activation,
                        same_size=size,
                        eps=EPS,
                        momentum=MOMENTUM,
                    )
                )
                channels = stage.channels
                size = (-(-size[0] // stride), -(-size[1] // stride))
        layers.append(ConvBNAct(channels, 1280, act=activation, eps=EPS, momentum=MOMENTUM))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> EfficientNetLite:
        """Return a new network with these channels and blocks of each stage.

        Stem and head keep their channels.

        Raises:
            BadInput: There are not seven positive numbers of each.
        """
        return EfficientNetLite(with_numbers(self._stages, widths, depths), *self._rest)


def lite_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """Return :data:`STAGES` scaled.

    Args:
        width: Multiplier of the channels.
        depth: Multiplier of the repeats of all stages but the first and the last.
    """
    widths = [scale_channels(stage.channels, width) for stage in STAGES]
    depths = [math.ceil(stage.repeats * depth) for stage in STAGES]
    depths[0], depths[-1] = STAGES[0].repeats, STAGES[-1].repeats
    return with_numbers(STAGES, widths, depths)


_SOURCE = "Tan and Le, ICML 2019, arXiv 1905.11946 (Lite variant)"


@register_net(
    "efficientnet_lite0",
    summary="EfficientNet-Lite0, 4.65 M parameters, 385 M MACs at 224 x 224",
    source=_SOURCE,
)
def efficientnet_lite0(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    dropout: float = 0.2,
    activation: str = "relu6",
) -> EfficientNetLite:
    """Build EfficientNet-Lite0; ``activation`` is ``relu6`` as published."""
    return EfficientNetLite(lite_stages(1.0, 1.0), num_classes, input_shape, dropout, activation)


@register_net(
    "efficientnet_lite1",
    summary="EfficientNet-Lite1, 5.42 M parameters, at 240 x 240",
    source=_SOURCE,
)
def efficientnet_lite1(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 240, 240),
    dropout: float = 0.2,
    activation: str = "relu6",
) -> EfficientNetLite:
    """Build EfficientNet-Lite1; ``activation`` is ``relu6`` as published."""
    return EfficientNetLite(lite_stages(1.0, 1.1), num_classes, input_shape, dropout, activation)


@register_net(
    "efficientnet_lite2",
    summary="EfficientNet-Lite2, 6.09 M parameters, at 260 x 260",
    source=_SOURCE,
)
def efficientnet_lite2(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 260, 260),
    dropout: float = 0.3,
    activation: str = "relu6",
) -> EfficientNetLite:
    """Build EfficientNet-Lite2; ``activation`` is ``relu6`` as published."""
    return EfficientNetLite(lite_stages(1.1, 1.2), num_classes, input_shape, dropout, activation)
