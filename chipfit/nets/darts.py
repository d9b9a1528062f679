# SPDX-License-Identifier: Apache-2.0
"""Networks of two repeated cells, a normal and a reduction one, and the space of these cells.

Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, sections 2.1
and 3.1.1, for images of about 32 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.nets.darts_cell import FOUND, OPERATIONS, Cell, CellEdges, read_cell
from chipfit.nets.registry import register_net
from chipfit.space import BlockChoice, BlockSpace, Operation, Swap
from chipfit.space.node_rule import NodeRule

Shape4 = tuple[int, int, int, int]
KINDS = ("normal", "reduce")


@dataclass(frozen=True)
class Size:
    """A network and its space; ``stem`` counts in ``channels``, strides in pixels."""

    cells: int
    channels: int
    nodes: int
    stem: int
    stem_stride: int
    operations: tuple[str, ...]


SIZES = {
    # What the paper searches on; it trains the cells found in 20 cells with 36 channels.
    "published": Size(8, 16, 4, 3, 1, tuple(OPERATIONS)),
    # Our own, to train on a CPU.
    "small": Size(3, 8, 3, 2, 2, (
        "none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3",
    )),
}  # fmt: skip


class Darts(nn.Module):
    """A 3x3 stem, cells of which two reduce, pooling and a classifier.

    Args:
        edges: By kind of cell, its edges.
        size: Cells, channels of the first ones, nodes, stem.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
    """

    def __init__(
        self, edges: Mapping[str, CellEdges], size: Size, num_classes: int, input_shape: Shape4
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        stem = size.stem * size.channels
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[1], stem, 3, size.stem_stride, 1, bias=False),
            nn.BatchNorm2d(stem),
        )
        self.cells = nn.ModuleList()
        before, channels, before_reduced = (stem, stem), size.channels, False
        for index in range(size.cells):
            reduction = index in (size.cells // 3, 2 * size.cells // 3)
            channels *= 2 if reduction else 1
            own = edges["reduce" if reduction else "normal"]
            cell = Cell(own, size.nodes, before, channels, reduction, before_reduced)
            self.cells.append(cell)
            before, before_reduced = (before[1], size.nodes * channels), reduction
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before[1], num_classes)
        self.block_space = cell_space(self.cells, size)
        self.empty_nodes = {
            f"cells.{i}.sums.{node}": (f"cells.{i}.zeros.{node}", f"cells.{i}.pre1")
            for i in range(size.cells)
            for node in range(2, size.nodes + 2)
        }
        self.decode_nodes = NodeRule(
            tuple(
                tuple(f"{kind}.{source}-{node}" for source in range(node))
                for kind in KINDS
                for node in range(2, size.nodes + 2)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, C, H, W)`` to logits ``(N, num_classes)``."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(self.pool(last).flatten(1))


def cell_space(cells: nn.ModuleList, size: Size) -> BlockSpace:
    """Return the space of the cells: a choice per edge, which decides it in all cells of a kind."""
    choices = []
    for kind in KINDS:
        own = [
            (f"cells.{i}.edges", c) for i, c in enumerate(cells)
            if isinstance(c, Cell) and c.reduction == (kind == "reduce")
        ]  # fmt: skip
        edges = [f"{source}-{node}" for node in range(2, size.nodes + 2) for source in range(node)]
        for edge in edges:
            operations = tuple(
                Operation(name, tuple(_swap(f"{at}.{edge}", c, edge, name) for at, c in own))
                for name in size.operations
            )
            places = tuple(f"{at}.{edge}" for at, _ in own)
            choices.append(BlockChoice(f"{kind}.{edge}", places, operations))
    return BlockSpace(tuple(choices))


def _swap(place: str, cell: Cell, edge: str, operation: str) -> Swap:
    block, stride, options = cell.block(edge, operation)
    return Swap(place, block, cell.channels, cell.channels, stride, options)


@register_net(
    "darts_space",
    summary="the space of DARTS's cells; by default the cells found, at the size of the search",
    source="Liu et al., ICLR 2019, arXiv 1806.09055",
)
def darts_space(
    *,
    num_classes: int = 10,
    input_shape: Shape4 = (1, 3, 32, 32),
    size: str = "published",
    cells: int = 0,
    channels: int = 0,
    nodes: int = 0,
    operations: str = "",
    normal: str = "",
    reduce: str = "",
) -> Darts:
    """Build a network of cells that carries their space as ``block_space``.

    Poolings have no batch norm behind them, as in the networks that the paper trains, not in those
    that it searches on: what is searched is what is deployed.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        size: ``"published"``: 8 cells from 16 channels with 4 nodes and 8 operations, whose cells
            the paper then trains as ``cells=20,channels=36``; or ``"small"``, 3 cells from 8
            channels with 3 nodes and 5 operations, behind a stem that halves the image.
        cells: In another number; two of them reduce.
        channels: Of the first cells, in another number; each reduction doubles them.
        nodes: In each cell, in another number.
        operations: Of the space, joined by ``+`` and with ``none`` among them; those of the size
            where empty.
        normal: The normal cell, as :func:`read_cell` reads it; by default that of the paper where
            it has 4 nodes, else a separable convolution from either input into every node.
        reduce: The reduction cell, likewise.

    Raises:
        BadInput: A number, an operation or a cell is not possible.
    """
    if size not in SIZES:
        raise BadInput(f"unknown size {size!r} of darts_space", f"known: {', '.join(SIZES)}")
    base = SIZES[size]
    names = tuple(operations.split("+")) if operations else base.operations
    chosen = Size(cells or base.cells, channels or base.channels, nodes or base.nodes, base.stem,
                  base.stem_stride, names)  # fmt: skip
    if chosen.cells < 3 or chosen.channels < 2 or chosen.channels % 2 or chosen.nodes < 1:
        raise BadInput(
            f"darts_space with {chosen.cells} cells of {chosen.channels} channels and "
            f"{chosen.nodes} nodes",
            "3 or more cells, an even number of channels, 1 or more nodes",
        )
    if "none" not in names or not set(names) <= set(OPERATIONS) or len(set(names)) < len(names):
        raise BadInput(
            f"operations {'+'.join(names)} of darts_space",
            f"none and others of: {', '.join(OPERATIONS)}",
        )
    default = "+".join(["|sep_conv_3x3~0|sep_conv_3x3~1|"] * chosen.nodes)
    texts = {
        kind: text or (FOUND[kind] if chosen.nodes == 4 else default)
        for kind, text in (("normal", normal), ("reduce", reduce))
    }
    edges = {kind: read_cell(text, chosen.nodes) for kind, text in texts.items()}
    return Darts(edges, chosen, num_classes, input_shape)
