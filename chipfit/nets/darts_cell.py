# SPDX-License-Identifier: Apache-2.0
"""The cell of DARTS: nodes that sum operations on the nodes before them.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, sections 2.1
and 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.blocks.edge_sum import EdgeSum, EmptyNode
from chipfit.blocks.registry import create_block
from chipfit.blocks.relu_conv_bn import FactorisedReduce, ReLUConvBN
from chipfit.blocks.skip import is_absent
from chipfit.errors import BadInput

#: An operation per edge ``"0-2"``; edges that are not named are absent.
CellEdges = Mapping[str, str]

#: Block and options of each operation, in the paper's order.
OPERATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "none": ("none", {}),
    "max_pool_3x3": ("pool", {"kind": "max"}),
    "avg_pool_3x3": ("pool", {"kind": "avg"}),
    "skip_connect": ("skip", {}),
    "sep_conv_3x3": ("sep_conv", {"kernel": 3}),
    "sep_conv_5x5": ("sep_conv", {"kernel": 5}),
    "dil_conv_3x3": ("dil_conv", {"kernel": 3}),
    "dil_conv_5x5": ("dil_conv", {"kernel": 5}),
}
#: The cells that the paper found on CIFAR-10 (second order), in the notation of :func:`read_cell`.
FOUND = {
    "normal": "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|+"
    "|sep_conv_3x3~1|skip_connect~0|+|skip_connect~0|dil_conv_3x3~2|",
    "reduce": "|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~1|+"
    "|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|max_pool_3x3~1|",
}


def read_cell(text: str, nodes: int, operations: Sequence[str] = tuple(OPERATIONS)) -> CellEdges:
    """Read a cell: by node the operations into it and where from, as in :data:`FOUND`.

    Nodes 0 and 1 are the outputs of the two cells before; the first node of a cell is 2.

    Args:
        text: For instance ``|sep_conv_3x3~0|skip_connect~1|+|sep_conv_3x3~0|sep_conv_3x3~2|``.
        nodes: That the cell has between its inputs and its output.
        operations: Known.

    Raises:
        BadInput: The text is not in this notation, or no cell of so many nodes.
    """
    groups = text.split("+")
    edges: dict[str, str] = {}
    for node, group in enumerate(groups, 2):
        found = re.findall(r"([a-z0-9_]+)~(\d+)\|", group)
        if "|" + "".join(f"{name}~{source}|" for name, source in found) != group or not found:
            raise BadInput(f"cannot read the cell {text!r}", f"as in {FOUND['normal']}")
        for name, source in found:
            edge = f"{int(source)}-{node}"
            if name not in operations or int(source) >= node or edge in edges:
                raise BadInput(
                    f"{name}~{source} into node {node} of the cell {text!r}",
                    f"operations: {', '.join(operations)}; nodes from 0, each once",
                )
            edges[edge] = name
    if len(groups) != nodes:
        raise BadInput(f"{len(groups)} nodes in the cell {text!r}, not {nodes}")
    return edges


class Cell(nn.Module):
    """Nodes that sum an operation on every node before them; all of them concatenated.

    Edges are modules ``edges.0-2`` and so on. Those of the block ``none`` are left out; a node
    without any is zero.

    Args:
        edges: By edge, its operation.
        nodes: Between the inputs and the output.
        before: Channels of the outputs of the cell before the last, and of the last.
        channels: Of every node.
        reduction: Whether the cell halves the image.
        before_reduced: Whether the last cell did, so that its two inputs differ in size.
    """

    def __init__(
        self,
        edges: CellEdges,
        nodes: int,
        before: tuple[int, int],
        channels: int,
        reduction: bool,
        before_reduced: bool,
    ) -> None:
        super().__init__()
        self.channels, self.nodes, self.reduction = channels, nodes, reduction
        self.pre0: nn.Module = (
            FactorisedReduce(before[0], channels, 2)
            if before_reduced
            else ReLUConvBN(before[0], channels)
        )
        self.pre1 = ReLUConvBN(before[1], channels)
        self.edges = nn.ModuleDict()
        self.sums = nn.ModuleDict()
        self.zeros = nn.ModuleDict()
        for node in range(2, nodes + 2):
            self.sums[str(node)] = EdgeSum()
            self.zeros[str(node)] = EmptyNode(2 if reduction else 1)
            for source in range(node):
                edge = f"{source}-{node}"
                block, stride, options = self.block(edge, edges.get(edge, "none"))
                self.edges[edge] = create_block(block, channels, channels, stride, **options)

    def block(self, edge: str, operation: str) -> tuple[str, int, dict[str, Any]]:
        """Return block, stride and options of an operation on an edge of this cell."""
        block, options = OPERATIONS[operation]
        stride = 2 if self.reduction and int(edge.partition("-")[0]) < 2 else 1
        if block == "skip" and stride == 2:  # an identity cannot halve the image
            block = "factorised_reduce"
        return block, stride, dict(options)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map the outputs of the last two cells to ``(N, nodes * channels, H, W)``."""
        values = [self.pre0(x), self.pre1(y)]
        for node in range(2, self.nodes + 2):
            edges = [self.edges[f"{source}-{node}"] for source in range(node)]
            terms = [e(v) for e, v in zip(edges, values, strict=True) if not is_absent(e)]
            own = self.sums if terms else self.zeros
            values.append(own[str(node)](terms or values[1]))
        return torch.cat(values[2:], dim=1)
