# SPDX-License-Identifier: Apache-2.0
"""G-Ghost-RegNetX: RegNetX whose longer stages are :class:`GGhostStage`.

Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022, arXiv 2201.03297;
depths, widths and group widths are those of RegNetX (Radosavovic et al., CVPR 2020,
arXiv 2003.13678, table 11).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from chipfit.blocks.g_ghost_stage import GGhostStage
from chipfit.blocks.regnet_x_block import RegNetXBlock
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Depths, widths and group width by name of the RegNetX, which is its MACs in units of 100 M.
REGNET_X = {
    "032": ((2, 6, 15, 2), (96, 192, 432, 1008), 48),
    "040": ((2, 5, 14, 2), (80, 240, 560, 1360), 40),
    "080": ((2, 5, 15, 1), (80, 240, 720, 1920), 120),
    "160": ((2, 6, 13, 1), (256, 512, 896, 2048), 128),
}
STEM = 32
#: A stage of fewer blocks stays as it is in RegNetX.
SHORTEST = 3


class GGhostRegNet(nn.Module):
    """3x3 stem, four stages that halve the image, average pooling and a classifier.

    Args:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        group_width: Channels of a group.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        cheap_ratio: Fraction of a G-Ghost stage's channels that its cheap branch makes.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        group_width: int,
        num_classes: int,
        input_shape: Shape4,
        cheap_ratio: float,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.conv1 = nn.Conv2d(input_shape[1], STEM, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        channels, stages = STEM, []
        for depth, width in zip(depths, widths, strict=True):
            stages.append(_stage(channels, width, depth, group_width, cheap_ratio))
            channels = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(
    channels: int, width: int, depth: int, group_width: int, cheap_ratio: float
) -> nn.Module:
    if depth >= SHORTEST:
        return GGhostStage(
            channels, width, 2, depth=depth, group_width=group_width, cheap_ratio=cheap_ratio
        )
    blocks: list[nn.Module] = []
    for index in range(depth):
        blocks.append(RegNetXBlock(channels, width, 1 if index else 2, group_width=group_width))
        channels = width
    return nn.Sequential(*blocks)


_SOURCE = "Han et al., IJCV 2022, arXiv 2201.03297"


#: By name: RegNetX's GFLOPs, and parameters and MACs of the G-Ghost form as published.
_FIGURES = {
    "032": ("3.2GF", "10.5 M parameters, 1.8 G MACs"),
    "040": ("4.0GF", "15.7 M parameters, 2.2 G MACs"),
    "080": ("8.0GF", "24.6 M parameters, 4.2 G MACs"),
    "160": ("16.0GF", "32.4 M parameters, 9.0 G MACs"),
}


def _register(name: str, size: str, figures: str) -> None:
    @register_net(
        f"g_ghost_regnet_{name}",
        summary=f"G-Ghost-RegNetX-{size}, {figures} at 224 x 224",
        source=_SOURCE,
    )
    def build(
        *,
        num_classes: int = 1000,
        input_shape: Shape4 = (1, 3, 224, 224),
        cheap_ratio: float = 0.5,
    ) -> GGhostRegNet:
        """Build a G-Ghost form of RegNetX; ``cheap_ratio`` is 0.5 as published."""
        depths, widths, group_width = REGNET_X[name]
        return GGhostRegNet(depths, widths, group_width, num_classes, input_shape, cheap_ratio)


for _name, (_size, _text) in _FIGURES.items():
    _register(_name, _size, _text)
