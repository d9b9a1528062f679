# SPDX-License-Identifier: Apache-2.0
"""``replacement_space``: which blocks of the registry may stand for the blocks of any network.

A pool of alternatives of equal input and output for every layer of a trained network is LANA's:
Molchanov et al., "LANA: Latency Aware Network Acceleration", ECCV 2022, arXiv 2107.10624. Its pool
holds up to 197 operations a layer; this one, and that blocks are found by themselves, is ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chipfit.blocks.registry import BLOCKS
from chipfit.errors import BadInput
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.replacements_places import Place, find_places

#: Channels of a group in grouped convolutions come from so many groups.
GROUPS = 4


@dataclass(frozen=True)
class Pool:
    """Which replacements are offered.

    Args:
        kinds: Names of :data:`KINDS`.
        kernels: Of depthwise and dense convolutions; odd.
        expansions: Hidden channels of inverted residuals in units of the input channels.
        alignment: Hidden channels are multiples of it.
    """

    kinds: tuple[str, ...]
    kernels: tuple[int, ...] = (3, 5)
    expansions: tuple[float, ...] = (2.0, 4.0)
    alignment: int = 8

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise BadInput(
                f"unknown kinds of replacements: {', '.join(unknown) or 'none given'}",
                f"known: {', '.join(KINDS)}",
            )
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise BadInput(f"kernels {self.kernels} must be odd, as they keep the size of images")
        if self.alignment < 1 or any(expansion <= 0 for expansion in self.expansions):
            raise BadInput(
                f"expansions {self.expansions} and alignment {self.alignment} must be positive"
            )

    def aligned(self, channels: float) -> int:
        """Return a number of channels as a multiple of the alignment, at least one."""
        return max(self.alignment, round(channels / self.alignment) * self.alignment)

    def fitting(self, place: Place) -> list[int]:
        """Return the kernels that see more than padding at a place."""
        return [k for k in self.kernels if k // 2 < min(place.in_shape[2:])]


#: A replacement before it is a swap: its name, block and options.
Offer = tuple[str, str, dict[str, Any]]


def _skip(place: Place, pool: Pool) -> Iterator[Offer]:
    if place.keeps_shape:
        yield "skip", "skip", {}


def _separable(place: Place, pool: Pool) -> Iterator[Offer]:
    for k in pool.fitting(place):
        options = {"hidden": place.in_shape[1], "kernel": k, "act": place.inner}
        yield f"separable_k{k}", "inverted_residual", options


def _inverted(place: Place, pool: Pool) -> Iterator[Offer]:
    for k in pool.fitting(place):
        for expansion in pool.expansions:
            hidden = pool.aligned(expansion * place.in_shape[1])
            if hidden != place.in_shape[1]:
                options = {"hidden": hidden, "kernel": k, "act": place.inner}
                yield f"inverted_k{k}_h{hidden}", "inverted_residual", options


def _fused(place: Place, pool: Pool) -> Iterator[Offer]:
    for k in pool.fitting(place)[:1]:
        for expansion in pool.expansions:
            hidden = pool.aligned(expansion * place.in_shape[1])
            options = {"hidden": hidden, "kernel": k, "act": place.inner}
            yield f"fused_k{k}_h{hidden}", "fused_inverted_residual", options


def _conv(place: Place, pool: Pool) -> Iterator[Offer]:
    for k in sorted({1, *pool.fitting(place)}):
        yield f"conv_k{k}", "conv_bn_act", {"kernel": k}


def _grouped(place: Place, pool: Pool) -> Iterator[Offer]:
    if place.in_shape[1] % GROUPS or place.out_shape[1] % GROUPS:
        return
    for k in pool.fitting(place):
        yield f"grouped_k{k}_g{GROUPS}", "conv_bn_act", {"kernel": k, "groups": GROUPS}


def _ghost(place: Place, pool: Pool) -> Iterator[Offer]:
    for k in sorted({1, *pool.fitting(place)[:1]}):
        yield f"ghost_k{k}", "ghost_conv", {"kernel": k}


def _bottleneck(place: Place, pool: Pool) -> Iterator[Offer]:
    hidden = pool.aligned(place.out_shape[1] / 2)
    for k in pool.fitting(place):
        options = {"hidden": hidden, "kernel": k, "act": place.inner}
        yield f"bottleneck_k{k}_h{hidden}", "bottleneck", options


def _low_rank(place: Place, pool: Pool) -> Iterator[Offer]:
    rank = pool.aligned(place.out_shape[1] / 2)
    for k in pool.fitting(place):
        if k > 1:
            yield f"low_rank_k{k}_r{rank}", "low_rank_conv", {"kernel": k, "rank": rank}


#: What can be offered, by name.
KINDS: dict[str, Callable[[Place, Pool], Iterator[Offer]]] = {
    "skip": _skip, "separable": _separable, "inverted": _inverted, "fused": _fused, "conv": _conv,
    "grouped": _grouped, "ghost": _ghost, "bottleneck": _bottleneck, "low-rank": _low_rank,
}  # fmt: skip
#: Blocks that take the activation behind them as an option.
_ENDING = ("conv_bn_act", "ghost_conv", "low_rank_conv")


def replacement_space(
    net: nn.Module,
    example: torch.Tensor,
    pool: Pool,
    blocks: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> BlockSpace:
    """Return the space of a network: a choice for every block, called like its module.

    The first operation of each is ``keep``; every other has the block's own input and output
    shapes, its padding, and ends with the activation that it ends with.

    Args:
        net: The network; it is not changed.
        example: Its input, ``(1, C, H, W)``.
        pool: What is offered.
        blocks: Patterns of the names of blocks; none to find them (:func:`find_places`).
        keep: Prefixes of modules to leave alone.

    Raises:
        BadInput: There is no block, or nothing else could stand for any of them.

    Example:
        net.block_space = replacement_space(net, x, Pool(("skip", "conv", "separable")))
    """
    found = space_of(choice_of(place, pool) for place in find_places(net, example, blocks, keep))
    if found is None:
        raise BadInput(
            "this network has no block that another could stand for",
            "a block maps one image (N, C, H, W) to one, at a stride of 1 or 2; name blocks with"
            " a pattern (blocks=layers.*), or narrow the network with netadapt",
        )
    return found


def space_of(choices: Iterable[BlockChoice]) -> BlockSpace | None:
    """Return the space of those choices that have more than one operation; ``None`` without any."""
    found = tuple(choice for choice in choices if len(choice.operations) > 1)
    return BlockSpace(found) if found else None


def choice_of(place: Place, pool: Pool) -> BlockChoice:
    """Return the choice of a place; operations of one name are offered once."""
    operations = {KEEP: Operation(KEEP)}
    for kind in pool.kinds:
        for name, block, options in KINDS[kind](place, pool):
            operations.setdefault(name, Operation(name, (_swap(place, block, options),)))
    return BlockChoice(place.module, (place.module,), tuple(operations.values()))


def _swap(place: Place, block: str, options: dict[str, Any]) -> Swap:
    if place.pads_same and "same_size" in inspect.signature(BLOCKS.get(block).value).parameters:
        options = {**options, "same_size": list(place.in_shape[2:])}
    if block in _ENDING:
        options = {**options, "act": place.last}
    elif place.last != "none" and block != "skip":
        block, options = "activated", {"block": block, "act": place.last, "options": options}
    return Swap(
        place.module, block, place.in_shape[1], place.out_shape[1], place.stride, options
    )  # fmt: skip


def with_keep(space: BlockSpace) -> BlockSpace:
    """Return a space in which every choice may also stay as it is, first of its operations."""
    choices = []
    for choice in space:
        others = tuple(o for o in choice.operations if o.name != KEEP)
        choices.append(BlockChoice(choice.name, choice.places, (Operation(KEEP), *others)))
    return BlockSpace(tuple(choices))
