# SPDX-License-Identifier: Apache-2.0
"""``blocks_space``: which blocks may stand in a user's own network.

Inverted residuals and fused ones are found by what they compute, so any class will do. Kernel and
expansion per block and dropping a block are what FBNet (Wu et al., CVPR 2019, arXiv 1812.03443) and
ProxylessNAS (Cai et al., ICLR 2019, arXiv 1812.00332) choose; that the choices come from the
network itself is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ACTIVATION_MODULES, same_padding
from chipfit.errors import BadInput
from chipfit.graph.blocks import ActivatedBlock, Unrecognised, find_blocks
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation

#: Block of the registry by the kind that is found.
BLOCKS = {
    "inverted_residual": "inverted_residual",
    "separable": "inverted_residual",
    "fused_inverted_residual": "fused_inverted_residual",
}
#: Name of the operation that drops a block.
SKIP = "skip"


def blocks_space(
    net: nn.Module,
    example: torch.Tensor,
    kernels: Sequence[int] = (3, 5),
    expansions: Sequence[float] = (2, 3, 4, 6),
    skip: bool = True,
    alignment: int = 8,
    keep: Sequence[str] = (),
) -> BlockSpace:
    """Return the space of a network: one choice per block, called like its module.

    Every block can be kept (``keep``), given another kernel or another number of hidden channels
    (``k5_h96``), or dropped where it keeps the shape (``skip``). A block with squeeze-excite is
    left alone.

    Args:
        net: The network; it is not changed.
        example: Its input, ``(1, C, H, W)``.
        kernels: Of the depthwise convolution, or of a fused block's dense one; odd.
        expansions: Hidden channels in units of the input channels.
        skip: Whether blocks that keep the shape may be dropped.
        alignment: Hidden channels are multiples of it.
        keep: Prefixes of modules to leave alone.

    Raises:
        BadInput: The network has no such block, or nothing can be chosen in any; or a kernel, an
            expansion or the alignment cannot be used.

    Example:
        net.block_space = blocks_space(net, torch.zeros(1, 3, 32, 32), kernels=(3, 5, 7))
    """
    if any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
        raise BadInput(f"kernels {tuple(kernels)} must be odd, as they keep the size of images")
    if alignment < 1 or any(expansion <= 0 for expansion in expansions):
        raise BadInput(f"expansions {tuple(expansions)} and alignment {alignment} must be positive")
    blocks, refused = find_blocks(net, example, keep)
    found = [_choice(b, kernels, expansions, skip, alignment) for b in blocks if _usable(b)]
    choices = tuple(choice for choice in found if len(choice.operations) > 1)
    if not choices:
        raise _nothing(blocks, refused)
    return BlockSpace(choices)


def _nothing(blocks: Sequence[ActivatedBlock], refused: Sequence[Unrecognised]) -> BadInput:
    reasons = [f"{b.module}: {_why_not(b)}" for b in blocks if not _usable(b)]
    reasons += [f"{u.module}: {u.reason}" for u in refused]
    return BadInput(
        "this network has no inverted residual that another could stand for"
        + (f" ({'; '.join(reasons[:6])})" if reasons else ""),
        "write the space yourself with chipfit.space.BlockChoice and Operation, or narrow the"
        " network with netadapt",
    )


def _usable(block: ActivatedBlock) -> bool:
    return _why_not(block) is None


def _why_not(block: ActivatedBlock) -> str | None:
    """Return why a block cannot be replaced by one of the registry."""
    if block.kind not in BLOCKS:
        return f"it is a {block.kind} of {len(block.convs)} convolutions"
    if block.last_activation != "none":
        return f"{block.last_activation} stands behind it"
    if any(site.activation != block.activation for site in block.convs[:-1]):
        return "its convolutions have different activations"
    if block.activation not in ACTIVATION_MODULES:
        return f"there is no block with {block.activation}"
    if block.stride not in (1, 2):
        return f"its stride is {block.stride}"
    size = [-(-s // block.stride) for s in block.in_shape[2:]]
    if list(block.out_shape[2:]) != size:
        return "its padding does not keep the size of images"
    return None


def _choice(
    block: ActivatedBlock,
    kernels: Sequence[int],
    expansions: Sequence[float],
    skip: bool,
    alignment: int,
) -> BlockChoice:
    own = (_spatial(block).kernel, block.hidden)
    hidden = {
        max(alignment, round(e * block.in_channels / alignment) * alignment) for e in expansions
    }
    shapes = sorted((k, h) for k in {*kernels, own[0]} for h in {*hidden, own[1]})
    operations = [Operation(KEEP)]
    operations += [
        Operation(f"k{k}_h{h}", (_swap(block, k, h),)) for k, h in shapes if (k, h) != own
    ]
    if skip and block.residual:
        swap = Swap(block.module, SKIP, block.in_channels, block.out_channels)
        operations.append(Operation(SKIP, (swap,)))
    return BlockChoice(block.module, (block.module,), tuple(operations))


def _spatial(block: ActivatedBlock) -> Any:
    """Return the convolution whose kernel is chosen: the depthwise or the first dense one."""
    depthwise = [site for site in block.convs if site.depthwise]
    return depthwise[0] if depthwise else block.convs[0]


def _swap(block: ActivatedBlock, kernel: int, hidden: int) -> Swap:
    """Return the swap to a block that pads as the one that goes, SAME or the same on all sides."""
    options: dict[str, Any] = {"hidden": hidden, "kernel": kernel, "act": block.activation}
    site = _spatial(block)
    rows, columns = (same_padding(s, site.kernel, site.stride) for s in block.in_shape[2:])
    if site.padding == (*rows, *columns) and site.padding != (site.kernel // 2,) * 4:
        options["same_size"] = list(block.in_shape[2:])
    return Swap(
        block.module, BLOCKS[block.kind], block.in_channels, block.out_channels, block.stride,
        options,
    )  # fmt: skip
