# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, with the usual stem or one for small images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. Parameter
names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from chipfit.blocks.basic_residual import BasicResidual
from chipfit.nets.channels import stage_numbers
from chipfit.nets.registry import register_net

#: Channels, repeats and first stride of each layer.
RESNET18 = ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))


class ResNet(nn.Module):
    """A stem, layers of basic residual blocks, global average pooling and a classifier.

    Args:
        layers: Channels, repeats and first stride of each of the four layers.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        small_stem: A 3x3 convolution of stride 1 without pooling, for images of about 32 pixels.
    """

    def __init__(
        self,
        layers: tuple[tuple[int, int, int], ...],
        num_classes: int,
        input_shape: tuple[int, int, int, int],
        small_stem: bool,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.widths = tuple(channels for channels, _, _ in layers)
        self.depths = tuple(repeats for _, repeats, _ in layers)
        self._strides = tuple(stride for _, _, stride in layers)
        self._rest = (num_classes, input_shape, small_stem)
        channels = layers[0][0]
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(input_shape[1], channels, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
        stages: list[nn.Sequential] = []
        for out, repeats, first_stride in layers:
            blocks = []
            for index in range(repeats):
                blocks.append(BasicResidual(channels, out, first_stride if index == 0 else 1))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> ResNet:
        """Return a new network with these channels and blocks of each layer.

        The stem has the channels of the first layer.

        Raises:
            BadInput: There are not four positive numbers of each.
        """
        numbers = stage_numbers(len(self.widths), widths, depths)
        layers = tuple((w, d, s) for (w, d), s in zip(numbers, self._strides, strict=True))
        return ResNet(layers, *self._rest)


@register_net(
    "resnet18",
    summary="ResNet-18, 11.7 M parameters, 1.8 G MACs at 224 x 224",
    source="He et al., CVPR 2016, arXiv 1512.03385",
)
def resnet18(
    *,
    num_classes: int = 1000,
    input_shape: tuple[int, int, int, int] = (1, 3, 224, 224),
    small_stem: bool | None = None,
) -> ResNet:
    """Build ResNet-18.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        small_stem: Keep the full resolution in the stem; by default so for images below 64 pixels.
    """
    small = min(input_shape[2:]) < 64 if small_stem is None else small_stem
    return ResNet(RESNET18, num_classes, input_shape, small)
