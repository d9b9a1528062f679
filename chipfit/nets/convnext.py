# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt-T, S and B.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from chipfit.blocks.convnext_block import EPS, ChannelNorm, ConvNeXtBlock
from chipfit.errors import BadInput
from chipfit.nets.channels import stage_numbers
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: The network halves the image five times without padding.
SMALLEST = 32


@dataclass(frozen=True)
class Stages:
    """Blocks and channels of the four stages."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    def scaled(self, width: float, depth: float, width_multiple: int = 1) -> Stages:
        """Return the stages with depths and widths multiplied and rounded.

        Args:
            width: Factor of the widths.
            depth: Factor of the depths.
            width_multiple: Widths are rounded to the nearest multiple of it.

        Raises:
            BadInput: ``width_multiple`` is not positive.
        """
        if width_multiple < 1:
            raise BadInput(f"width_multiple={width_multiple} must be positive")
        step = width_multiple
        return Stages(
            tuple(round(d * depth) for d in self.depths),
            tuple(max(1, round(w * width / step)) * step for w in self.widths),
        )


CONVNEXT_T = Stages((3, 3, 9, 3), (96, 192, 384, 768))
CONVNEXT_S = Stages((3, 3, 27, 3), (96, 192, 384, 768))
CONVNEXT_B = Stages((3, 3, 27, 3), (128, 256, 512, 1024))


class ConvNeXt(nn.Module):
    """4x4 patches, four stages with 2x2 convolutions between them, pooling, norm, classifier.

    Parameter names are the authors'.

    Args:
        stages: Depths and widths.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``, at least 32 pixels a side.
        drop_path: Stochastic depth of the last block while training; it rises linearly from 0.

    Raises:
        BadInput: The images are too small.
    """

    def __init__(
        self, stages: Stages, num_classes: int, input_shape: Shape4, drop_path: float
    ) -> None:
        super().__init__()
        if min(input_shape[2:]) < SMALLEST:
            raise BadInput(
                f"ConvNeXt takes images of at least {SMALLEST} pixels, not {input_shape[2:]}",
                "use resnet18 or tiny_mobilenet_v2 for smaller ones",
            )
        self.input_shape = input_shape
        self.widths, self.depths = stages.widths, stages.depths
        self._rest = (num_classes, input_shape, drop_path)
        last = sum(stages.depths) - 1
        rates = [drop_path * i / last for i in range(last + 1)]
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        before = input_shape[1]
        for number, (depth, width) in enumerate(zip(stages.depths, stages.widths, strict=True)):
            if number == 0:
                parts = [nn.Conv2d(before, width, 4, 4), ChannelNorm(width, eps=EPS)]
            else:
                parts = [ChannelNorm(before, eps=EPS), nn.Conv2d(before, width, 2, 2)]
            self.downsample_layers.append(nn.Sequential(*parts))
            own, rates = rates[:depth], rates[depth:]
            self.stages.append(nn.Sequential(*[ConvNeXtBlock(width, rate) for rate in own]))
            before = width
        self.norm = nn.LayerNorm(before, eps=EPS)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(shrink(x))
        return self.head(self.norm(x.mean((-2, -1))))

    def scaled(self, widths: Sequence[int], depths: Sequence[int]) -> ConvNeXt:
        """Return a new network with these channels and blocks of each stage.

        Raises:
            BadInput: There are not four positive numbers of each.
        """
        numbers = stage_numbers(len(self.widths), widths, depths)
        stages = Stages(tuple(d for _, d in numbers), tuple(w for w, _ in numbers))
        return ConvNeXt(stages, *self._rest)


_SOURCE = "Liu et al., CVPR 2022, arXiv 2201.03545"


@register_net(
    "convnext_tiny",
    summary="ConvNeXt-T, 28.6 M parameters, 4.46 G MACs at 224 x 224",
    source=_SOURCE,
)
def convnext_tiny(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    drop_path: float = 0.1,
) -> ConvNeXt:
    """Build ConvNeXt-T."""
    return ConvNeXt(CONVNEXT_T, num_classes, input_shape, drop_path)


@register_net(
    "convnext_small",
    summary="ConvNeXt-S, 50.2 M parameters, 8.68 G MACs at 224 x 224",
    source=_SOURCE,
)
def convnext_small(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    drop_path: float = 0.4,
) -> ConvNeXt:
    """Build ConvNeXt-S."""
    return ConvNeXt(CONVNEXT_S, num_classes, input_shape, drop_path)


@register_net(
    "convnext_base",
    summary="ConvNeXt-B, 88.6 M parameters, 15.4 G MACs at 224 x 224",
    source=_SOURCE,
)
def convnext_base(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    drop_path: float = 0.5,
) -> ConvNeXt:
    """Build ConvNeXt-B."""
    return ConvNeXt(CONVNEXT_B, num_classes, input_shape, drop_path)
