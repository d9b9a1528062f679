# SPDX-License-Identifier: Apache-2.0
"""``HiddenGrid``: operations of a choice that are one block at several hidden widths.

A :class:`~chipfit.space.blocks.BlockSpace` needs no mark for it: operations whose swaps agree in
everything but the number of hidden channels (option ``hidden`` or ``expansion``) are a grid, such
as ``k3_h48``, ``k3_h72`` and ``k3_h96``. The operation that keeps a place belongs to the grid whose
block at the same width would be the very same module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from chipfit.blocks.inverted_residual import hidden_channels
from chipfit.blocks.registry import create_block
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import BlockChoice, Operation

#: Blocks with a hidden width, and their expansion where none is given.
BLOCKS = {"inverted_residual": 6.0, "fused_inverted_residual": 4.0}


@dataclass(frozen=True)
class HiddenGrid:
    """Operations that are one block, by ascending width; or a single operation of any kind.

    Args:
        operations: Their indices in the choice.
        widths: Hidden channels of each, by place; empty where it is a single operation.
        swaps: Of the widest, by place; empty where it is a single operation.
    """

    operations: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...] = ()
    swaps: tuple[Swap, ...] = ()

    @property
    def windowed(self) -> bool:
        """Whether there are widths to choose from."""
        return len(self.operations) > 1


def hidden_grids(net: nn.Module, choice: BlockChoice) -> tuple[HiddenGrid, ...]:
    """Return the grids and the single operations of a choice: every operation is in one of them.

    An inverted residual as wide as its input has no expansion, so it is no slice of a wider one and
    stands by itself. So does every block of another kind.

    Args:
        net: What the choice is of; its modules tell where an operation that keeps them belongs.
        choice: The choice.
    """
    families: dict[str, dict[tuple[int, ...], int]] = {}
    for i, operation in enumerate(choice.operations):
        widths = _widths(operation)
        if widths is not None:
            families.setdefault(_family(operation), {}).setdefault(widths, i)
    for i, operation in enumerate(choice.operations):
        for found in [] if operation.swaps else families.values():
            widths = _kept_widths(net, choice.operations[next(iter(found.values()))])
            if widths is not None and widths not in found:
                found[widths] = i
                break
    grids = [grid for found in families.values() for grid in _ascending(choice, found)]
    inside = {i for grid in grids for i in grid.operations}
    grids += [HiddenGrid((i,)) for i in range(len(choice.operations)) if i not in inside]
    return tuple(sorted(grids, key=lambda grid: grid.operations))


def swap_at(swap: Swap, width: int) -> Swap:
    """Return the swap to the same block with ``width`` hidden channels."""
    options = {k: v for k, v in swap.options.items() if k != "expansion"} | {"hidden": width}
    return Swap(swap.module, swap.block, swap.in_channels, swap.out_channels, swap.stride, options)


def block_shapes(swap: Swap, width: int) -> dict[str, torch.Size]:
    """Return the shapes of the parameters and buffers of a swap's block at a width."""
    with torch.device("meta"):
        block = _block(swap_at(swap, width))
    return {name: v.shape for name, v in block.state_dict().items()}


def _block(swap: Swap) -> nn.Module:
    return create_block(
        swap.block, swap.in_channels, swap.out_channels, swap.stride, **swap.options
    )


def _widths(operation: Operation) -> tuple[int, ...] | None:
    """Return the hidden channels at every place, or ``None`` where they are no grid's."""
    if not operation.swaps or any(s.block not in BLOCKS for s in operation.swaps):
        return None
    found = tuple(
        hidden_channels(
            s.in_channels, s.options.get("hidden"), s.options.get("expansion"), BLOCKS[s.block]
        )
        for s in operation.swaps
    )
    bare = any(
        s.block == "inverted_residual" and width == s.in_channels
        for s, width in zip(operation.swaps, found, strict=True)
    )
    return None if bare else found


def _family(operation: Operation) -> str:
    """Return what operations of one grid have in common."""
    parts = []
    for swap in operation.swaps:
        options = {k: v for k, v in swap.options.items() if k not in ("hidden", "expansion")}
        parts.append([swap.block, swap.in_channels, swap.out_channels, swap.stride, options])
    return json.dumps(parts, sort_keys=True, default=str)


def _kept_widths(net: nn.Module, like: Operation) -> tuple[int, ...] | None:
    """Return the widths at which the blocks of ``like`` are the modules that stand there."""
    found = []
    for swap in like.swaps:
        try:
            old = net.get_submodule(swap.module)
        except AttributeError:  # the supernet will say that there is no such place
            return None
        convs = [m for m in old.modules() if isinstance(m, nn.Conv2d)]
        if len(convs) < 2 or (swap.block == "inverted_residual" and len(convs) < 3):
            return None
        width = convs[0].out_channels
        with torch.device("meta"):
            new = _block(swap_at(swap, width))
        # What a module prints is all of its hyperparameters.
        if type(old) is not type(new) or repr(old) != repr(new):
            return None
        found.append(width)
    return tuple(found)


def _ascending(choice: BlockChoice, found: Mapping[tuple[int, ...], int]) -> list[HiddenGrid]:
    """Return the grid, if its widths ascend at all places together."""
    widths = sorted(found)
    pairs = pairwise(widths)
    if len(widths) < 2 or any(a >= b for one, two in pairs for a, b in zip(one, two, strict=True)):
        return []
    widest = choice.operations[found[widths[-1]]]
    like = next(choice.operations[i] for i in found.values() if choice.operations[i].swaps)
    pattern = widest.swaps or like.swaps
    swaps = tuple(swap_at(s, w) for s, w in zip(pattern, widths[-1], strict=True))
    return [HiddenGrid(tuple(found[w] for w in widths), tuple(widths), swaps)]
