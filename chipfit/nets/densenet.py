# SPDX-License-Identifier: Apache-2.0
"""DenseNet: every layer reads the channels of all layers before it.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, arXiv 1608.06993, table 1.
Parameter names are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chipfit.nets.channels import stage_numbers
from chipfit.nets.registry import register_net

#: Layers of each dense block and their growth rate (channels that a layer adds).
DENSENET121 = ((6, 12, 24, 16), 32)
#: A 1x1 convolution narrows what a layer reads to this many times the growth rate.
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3; what comes out joins what came in.

    Args:
        in_channels: Channels of the input.
        growth: Channels that are added.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C + growth, H, W)``."""
        y = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """A stem, dense blocks with halving transitions between them, pooling and a classifier.

    ``widths`` are the growth rates of the blocks, ``depths`` their layers; the stem has twice the
    first growth rate.

    Args:
        widths: Growth rate of each block.
        depths: Layers of each block.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        small_stem: A 3x3 convolution of stride 1 without pooling, for images of about 32 pixels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        num_classes: int,
        input_shape: tuple[int, int, int, int],
        small_stem: bool,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.widths, self.depths = tuple(widths), tuple(depths)
        self._rest = (num_classes, input_shape, small_stem)
        channels = 2 * widths[0]
        kernel, stride = (3, 1) if small_stem else (7, 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv0"] = nn.Conv2d(
            input_shape[1], channels, kernel, stride, kernel // 2, bias=False
        )
        layers["norm0"], layers["relu0"] = nn.BatchNorm2d(channels), nn.ReLU()
        layers["pool0"] = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
        for stage, (growth, depth) in enumerate(zip(widths, depths, strict=True), 1):
            block: OrderedDict[str, nn.Module] = OrderedDict()
            for index in range(1, depth + 1):
                block[f"denselayer{index}"] = DenseLayer(channels, growth)
                channels += growth
            layers[f"denseblock{stage}"] = nn.Sequential(block)
            if stage < len(self.widths):
                layers[f"transition{stage}"] = _transition(channels)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        return self.classifier(self.pool(self.relu(self.features(x))).flatten(1))

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> DenseNet:
        """Return a new network with these growth rates and layers of each block.

        Raises:
            BadInput: The numbers are not positive, or not one for each block.
        """
        numbers = stage_numbers(len(self.widths), widths, depths)
        return DenseNet([w for w, _ in numbers], [d for _, d in numbers], *self._rest)


def _transition(channels: int) -> nn.Sequential:
    """Halve the channels and the image."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )


@register_net(
    "densenet",
    summary="DenseNet-121, 8.0 M parameters, 2.8 G MACs at 224 x 224",
    source="Huang et al., CVPR 2017, arXiv 1608.06993",
)
def densenet(
    *,
    num_classes: int = 1000,
    input_shape: tuple[int, int, int, int] = (1, 3, 224, 224),
    small_stem: bool | None = None,
) -> DenseNet:
    """Build DenseNet-121; others by ``widths`` and ``depths`` in its name.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        small_stem: Keep the full resolution in the stem; by default so for images below 64 pixels.
    """
    small = min(input_shape[2:]) < 64 if small_stem is None else small_stem
    depths, growth = DENSENET121
    return DenseNet((growth,) * len(depths), depths, num_classes, input_shape, small)
