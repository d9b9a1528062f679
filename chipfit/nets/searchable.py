# SPDX-License-Identifier: Apache-2.0
"""``SearchableNet``: a network of layers, each with candidate blocks, that carries its space.

The skeleton holds a default block at every place and is a network like any other; its
``block_space`` says what else may stand there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.errors import BadInput
from chipfit.space import BlockChoice, BlockSpace, Operation, Swap

Shape4 = tuple[int, int, int, int]
#: Operation that drops a layer.
SKIP = "skip"
#: Sizes of the searchable networks: as published, and for images of 28 to 32 pixels.
SIZES = ("small", "imagenet")
#: Five halvings leave 2 pixels of these.
LEAST_IMAGENET_PIXELS = 64


@dataclass(frozen=True)
class Candidate:
    """A block that may stand at a layer.

    Args:
        name: Of the operation.
        block: Of the registry.
        options: Of the block; JSON values.
    """

    name: str
    block: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchStage:
    """Layers of equal width; the first takes the stride.

    Args:
        channels: Output channels.
        repeats: Layers.
        stride: Of the first.
        candidates: Of every layer; a single one is no choice.
        default: Name of the candidate that the skeleton has.
        skip: Whether layers that keep the shape may be dropped.
    """

    channels: int
    repeats: int
    stride: int
    candidates: tuple[Candidate, ...]
    default: str
    skip: bool = True


def inverted_residuals(
    kernels: Sequence[int], expansions: Sequence[int], act: str
) -> tuple[Candidate, ...]:
    """Return inverted residuals of all kernels and expansions, called ``k3_e6`` and so on."""
    return tuple(
        Candidate(
            f"k{kernel}_e{expansion}",
            "inverted_residual",
            {"kernel": kernel, "expansion": expansion, "act": act},
        )
        for kernel in kernels
        for expansion in expansions
    )


class SearchableNet(nn.Module):
    """A 3x3 stem of stride 2, layers, a 1x1 head, global average pooling and a classifier.

    Layer ``i`` is the module ``blocks.i``, and the choice about it is called ``bi`` (``b07``).
    Layers of stride 2 are padded SAME for ``input_shape``, which needs no padding operator on
    TFLite targets.

    Args:
        stages: The table.
        stem: Channels of the stem.
        head: Channels of the 1x1 convolution before pooling.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        act: Activation of stem and head.
        dropout: Probability before the classifier.
        fixed: Further 3x3 convolutions behind the stem, which keep its channels.
    """

    def __init__(
        self,
        stages: Sequence[SearchStage],
        *,
        stem: int,
        head: int,
        num_classes: int,
        input_shape: Shape4,
        act: str,
        dropout: float = 0.0,
        fixed: int = 0,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        height, width = input_shape[2:]
        self.stem = nn.Sequential(
            ConvBNAct(input_shape[1], stem, 3, 2, act=act, same_size=(height, width)),
            *(ConvBNAct(stem, stem, 3, act=act) for _ in range(fixed)),
        )
        #: Operation of the skeleton, by choice.
        self.default: dict[str, str] = {}
        blocks: list[nn.Module] = []
        choices: list[BlockChoice] = []
        size, channels = (-(-height // 2), -(-width // 2)), stem
        for stage in stages:
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                place = f"blocks.{len(blocks)}"
                operations = _operations(stage, place, channels, stride, size)
                if len(operations) > 1:
                    name = f"b{len(blocks):02d}"
                    choices.append(BlockChoice(name, (place,), operations))
                    self.default[name] = stage.default
                own = next(o for o in operations if o.name == stage.default)
                blocks.append(own.swaps[0].build())
                size = (-(-size[0] // stride), -(-size[1] // stride))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvBNAct(channels, head, act=act)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head, num_classes))
        self.block_space = BlockSpace(tuple(choices))
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


def _operations(
    stage: SearchStage, place: str, in_channels: int, stride: int, size: tuple[int, int]
) -> tuple[Operation, ...]:
    padding = {"same_size": list(size)} if stride > 1 else {}
    found = [
        Operation(
            c.name,
            (Swap(place, c.block, in_channels, stage.channels, stride, {**c.options, **padding}),),
        )
        for c in stage.candidates
    ]
    if stage.skip and stride == 1 and in_channels == stage.channels:
        found.append(Operation(SKIP, (Swap(place, SKIP, in_channels, in_channels),)))
    return tuple(found)


def check_size(net: str, size: str, input_shape: Shape4) -> bool:
    """Return whether the small size is asked for.

    Raises:
        BadInput: There is no such size, or the images are too small for it.
    """
    if size not in SIZES:
        raise BadInput(f"size={size!r} of net {net!r}", f"known: {', '.join(SIZES)}")
    if size == "imagenet" and min(input_shape[2:]) < LEAST_IMAGENET_PIXELS:
        raise BadInput(
            f"five halvings leave nothing of images of {input_shape[2:]} pixels",
            f"write {net}:size=small, or give images of {LEAST_IMAGENET_PIXELS} pixels or more",
        )
    return size == "small"
