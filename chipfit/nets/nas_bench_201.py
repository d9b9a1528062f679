# SPDX-License-Identifier: Apache-2.0
"""Networks of NAS-Bench-201: one small cell, repeated, for images of 32 pixels.

Dong and Yang, ICLR 2020, arXiv 2001.00326, section 2.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from chipfit.blocks.edge_sum import EdgeSum, EmptyNode
from chipfit.blocks.registry import create_block
from chipfit.blocks.relu_conv_bn import ReLUConvBN
from chipfit.blocks.skip import is_absent
from chipfit.errors import BadInput
from chipfit.nets.registry import register_net

Shape4 = tuple[int, int, int, int]

#: Channels of the three stages.
WIDTHS = (16, 32, 64)
#: The cell with the highest CIFAR-10 accuracy in the paper.
BEST = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
    "|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)


#: Block and options of each operation.
OPERATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "none": ("none", {}),
    "skip_connect": ("skip", {}),
    "nor_conv_1x1": ("relu_conv_bn", {"kernel": 1}),
    "nor_conv_3x3": ("relu_conv_bn", {"kernel": 3}),
    "avg_pool_3x3": ("pool", {"kind": "avg"}),
}


def operation(name: str, channels: int) -> nn.Module:
    """Return the module of an edge.

    Raises:
        BadInput: There is no such operation.
    """
    if name not in OPERATIONS:
        raise BadInput(f"unknown operation {name!r} of a cell", f"known: {', '.join(OPERATIONS)}")
    block, options = OPERATIONS[name]
    return create_block(block, channels, channels, **options)


def read_cell(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the operations into nodes 1, 2 and 3, each in the order of the nodes they come from.

    Raises:
        BadInput: The text is not in the paper's notation.
    """
    nodes = text.split("+")
    read = [re.findall(r"([a-z0-9_]+)~(\d)\|", node) for node in nodes]
    complete = [[int(source) for _, source in edges] for edges in read] == [[0], [0, 1], [0, 1, 2]]
    rebuilt = "+".join("|" + "".join(f"{name}~{i}|" for name, i in edges) for edges in read)
    if not complete or rebuilt != text:
        raise BadInput(f"cannot read the cell {text!r}", f"as in {BEST}")
    return tuple(tuple(name for name, _ in edges) for edges in read)


class Cell(nn.Module):
    """Node ``j`` is the sum of an operation on every node before it; the last one is the output.

    Edges are modules ``edges.0-1`` and so on; those of the block ``none`` are left out.

    Args:
        operations: By node from 1, the operations on the nodes before it.
        channels: Of every node.
    """

    def __init__(self, operations: tuple[tuple[str, ...], ...], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.edges = nn.ModuleDict()
        self.sums = nn.ModuleDict()
        for node, names in enumerate(operations, 1):
            self.sums[str(node)] = EdgeSum()
            for source, name in enumerate(names):
                self.edges[f"{source}-{node}"] = operation(name, channels)
        self.nodes = len(operations) + 1
        self.zero = EmptyNode()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape; zeros where no edge leads to the last node."""
        values: list[Tensor | None] = [x]
        for node in range(1, self.nodes):
            terms = []
            for source in range(node):
                value, edge = values[source], self.edges[f"{source}-{node}"]
                if value is not None and not is_absent(edge):
                    terms.append(edge(value))
            values.append(self.sums[str(node)](terms) if terms else None)
        result = values[-1]
        return self.zero(x) if result is None else result


class Reduction(nn.Module):
    """The residual block between stages: two 3x3 convolutions, the first of stride 2.

    Its shortcut is a 2x2 average pooling and a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(in_channels, out_channels, 2, kernel=3)
        self.conv_b = ReLUConvBN(out_channels, out_channels, kernel=3)
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, 2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to ``(N, C_out, H / 2, W / 2)``."""
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class NasBench201(nn.Module):
    """A 3x3 stem, three stages of cells with reductions between them, pooling, a classifier.

    Args:
        cell: In the paper's notation.
        cells: In each stage.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; ``H`` and ``W`` multiples of 4.

    Raises:
        BadInput: The cell cannot be read, or the images do not halve twice.
    """

    def __init__(self, cell: str, cells: int, num_classes: int, input_shape: Shape4) -> None:
        super().__init__()
        if input_shape[2] % 4 or input_shape[3] % 4:
            raise BadInput(f"nas_bench_201 halves images twice, which {input_shape[2:]} do not")
        if cells < 1:
            raise BadInput(f"cells={cells} of net 'nas_bench_201' must be positive")
        self.input_shape = input_shape
        operations = read_cell(cell)
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[1], WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
        )
        layers: list[nn.Module] = []
        for stage, channels in enumerate(WIDTHS):
            if stage:
                layers.append(Reduction(WIDTHS[stage - 1], channels))
            layers += [Cell(operations, channels) for _ in range(cells)]
        self.cells = nn.Sequential(*layers)
        self.lastact = nn.Sequential(nn.BatchNorm2d(WIDTHS[-1]), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        x = self.lastact(self.cells(self.stem(x)))
        return self.classifier(self.pool(x).flatten(1))


@register_net(
    "nas_bench_201",
    summary="a cell of NAS-Bench-201, by default 1.29 M parameters, 185 M MACs at 32 x 32",
    source="Dong and Yang, ICLR 2020, arXiv 2001.00326",
)
def nas_bench_201(
    *,
    num_classes: int = 10,
    input_shape: Shape4 = (1, 3, 32, 32),
    cell: str = BEST,
    cells: int = 5,
) -> NasBench201:
    """Build the network of a cell.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        cell: As in ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|``.
        cells: In each of the three stages, 5 as published.
    """
    return NasBench201(cell, cells, num_classes, input_shape)
