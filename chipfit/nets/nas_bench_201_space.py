# SPDX-License-Identifier: Apache-2.0
"""The networks of NAS-Bench-201 with the space of their cell.

Dong and Yang, ICLR 2020, arXiv 2001.00326: five operations on each of six edges, the same cell
everywhere, 15 625 networks.
"""

from __future__ import annotations

from chipfit.nets.nas_bench_201 import (
    BEST,
    OPERATIONS,
    Cell,
    NasBench201,
    Shape4,
)
from chipfit.nets.registry import register_net
from chipfit.space import Swap
from chipfit.space import nas_bench_201 as table
from chipfit.space.blocks import BlockChoice, BlockSpace, Operation


class NasBench201Space(NasBench201):
    """The network of a cell that carries the space of all cells as ``block_space``.

    Args:
        cell: In the paper's notation.
        cells: In each stage.
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``; ``H`` and ``W`` multiples of 4.
    """

    def __init__(self, cell: str, cells: int, num_classes: int, input_shape: Shape4) -> None:
        super().__init__(cell, cells, num_classes, input_shape)
        self.block_space = cell_space(self)
        self.empty_nodes = {
            f"cells.{i}.sums.3": (f"cells.{i}.zero", f"cells.{i - 1}" if i else "stem")
            for i, layer in enumerate(self.cells)
            if isinstance(layer, Cell)
        }


def cell_space(net: NasBench201) -> BlockSpace:
    """Return the space: a choice per edge, ``"0-1"`` to ``"2-3"``, which decides it in all cells.

    Its choices and operations are those of :func:`chipfit.space.nas_bench_201.cell_space`.
    """
    cells = [(i, layer) for i, layer in enumerate(net.cells) if isinstance(layer, Cell)]
    choices = []
    for edge in table.EDGES:
        places = {f"cells.{i}.edges.{edge}": cell.channels for i, cell in cells}
        operations = tuple(
            Operation(name, tuple(_swap(place, name, width) for place, width in places.items()))
            for name in table.OPERATIONS
        )
        choices.append(BlockChoice(edge, tuple(places), operations))
    return BlockSpace(tuple(choices))


def _swap(place: str, operation: str, channels: int) -> Swap:
    block, options = OPERATIONS[operation]
    return Swap(place, block, channels, channels, 1, options)


@register_net(
    "nas_bench_201_space",
    summary="the space of NAS-Bench-201's cell; by default the most accurate cell",
    source="Dong and Yang, ICLR 2020, arXiv 2001.00326",
)
def nas_bench_201_space(
    *,
    num_classes: int = 10,
    input_shape: Shape4 = (1, 3, 32, 32),
    cell: str = BEST,
    cells: int = 5,
) -> NasBench201Space:
    """Build the network of a cell, which carries the space of all cells as ``block_space``.

    A node keeps as many edges as are not ``none``: the space knows cells of 0 to 6 edges.

    Args:
        num_classes: Outputs.
        input_shape: ``(1, C, H, W)``.
        cell: As in ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|``.
        cells: In each of the three stages: 5 as published, 1 trains on a CPU.
    """
    return NasBench201Space(cell, cells, num_classes, input_shape)
