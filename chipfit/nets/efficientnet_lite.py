# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-excite, with ReLU6.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
arXiv 1905.11946, gives the scaling; the Lite variants were released by its authors for mobile and
embedded devices, with stem, head and the first and last stage of fixed depth. Padding is SAME for
the image size that the network is built for.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.nets.channels import scale_channels
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Per stage: expansion, channels, repeats, stride, kernel (at width and depth 1).
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
EPS, MOMENTUM = 1e-3, 0.01


class EfficientNetLite(nn.Module):
    """Stem, seven stages of inverted residuals, 1x1 head, average pooling and a classifier.

    Args:
        width: Multiplier of the stages' channels.
        depth: Multiplier of the repeats of all stages but the first and the last.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; fixes the padding.
        dropout: Probability before the classifier.
        activation: Everywhere in the network.
    """

    def __init__(
        self,
        width: float,
        depth: float,
        num_classes: int,
        input_shape: Shape4,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        size = (input_shape[2], input_shape[3])
        layers: list[nn.Module] = [
            ConvBNAct(
                input_shape[1], 32, 3, 2, act=activation, same_size=size, eps=EPS, momentum=MOMENTUM
            )
        ]
        size, channels = (-(-size[0] // 2), -(-size[1] // 2)), 32
        for number, (expansion, base, repeats, first_stride, kernel) in enumerate(STAGES):
            fixed = number in (0, len(STAGES) - 1)
            out = scale_channels(base, width)
            for index in range(repeats if fixed else math.ceil(repeats * depth)):
                stride = first_stride if index == 0 else 1
                layers.append(
                    InvertedResidual(
                        channels,
                        out,
                        channels * expansion,
                        kernel,
                        stride,
                        act=activation,
                        same_size=size,
                        eps=EPS,
                        momentum=MOMENTUM,
                    )
                )
                channels, size = out, (-(-size[0] // stride), -(-size[1] // stride))
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
    return EfficientNetLite(1.0, 1.0, num_classes, input_shape, dropout, activation)


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
    return EfficientNetLite(1.0, 1.1, num_classes, input_shape, dropout, activation)


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
    return EfficientNetLite(1.1, 1.2, num_classes, input_shape, dropout, activation)
