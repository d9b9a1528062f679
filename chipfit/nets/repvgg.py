# SPDX-License-Identifier: Apache-2.0
"""RepVGG-A0: plain 3x3 convolutions, as deployed or with the branches that it is trained with.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv 2101.03697, table 2.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Channels and blocks of each stage; every stage halves the image in its first block.
REPVGG_A0 = ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))


class RepVGG(nn.Module):
    """Stages of :class:`RepVGGBlock`, average pooling and a classifier.

    Parameter names are the authors'.

    Args:
        stages: Channels and blocks of each stage.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        deploy: One convolution a block; otherwise the branches.
    """

    #: Block of every place; subclasses take another one with ``deploy`` and ``deployed()``.
    block: ClassVar[type[nn.Module]] = RepVGGBlock

    def __init__(
        self,
        stages: tuple[tuple[int, int], ...],
        num_classes: int,
        input_shape: Shape4,
        deploy: bool,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        channels = input_shape[1]
        for number, (out, repeats) in enumerate(stages):
            blocks: list[nn.Module] = []
            for index in range(repeats):
                stride = 2 if index == 0 else 1
                blocks.append(self.block(channels, out, stride, deploy=deploy))
                channels = out
            # The first stage is a single block without an index in its parameters' names.
            stage = blocks[0] if number == 0 else nn.Sequential(*blocks)
            self.add_module(f"stage{number}", stage)
        self.stages = len(stages)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        for number in range(self.stages):
            x = getattr(self, f"stage{number}")(x)
        return self.linear(self.gap(x).flatten(1))

    def merge(self) -> RepVGG:
        """Merge the branches of every block in place; outputs in evaluation mode stay equal."""
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, self.block):
                    setattr(parent, name, child.deployed())  # type: ignore[operator]
        return self


@register_net(
    "repvgg_a0",
    summary="RepVGG-A0 as deployed, 8.31 M parameters, 1.36 G MACs at 224 x 224",
    source="Ding et al., CVPR 2021, arXiv 2101.03697",
)
def repvgg_a0(
    *,
    num_classes: int = 1000,
    input_shape: Shape4 = (1, 3, 224, 224),
    deploy: bool = True,
) -> RepVGG:
    """Build RepVGG-A0.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        deploy: Plain 3x3 convolutions; ``False`` builds the branches to train with, which
            :meth:`RepVGG.merge` merges.
    """
    return RepVGG(REPVGG_A0, num_classes, input_shape, deploy)
