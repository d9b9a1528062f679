# SPDX-License-Identifier: Apache-2.0
"""What RAN-e may do to each block: keep it, linearise it, or make what stays smaller.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562: block type, kernel
and expansion are searched per block. That the activation function is an option of its own is ours:
what a hard-swish costs on a device is in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chipfit.blocks.conv_bn_act import ACTIVATION_MODULES, same_padding
from chipfit.graph.blocks import ActivatedBlock
from chipfit.rewrite.swap import Swap

#: Name of the option that leaves a block alone.
KEEP = "keep"


@dataclass(frozen=True)
class BlockOption:
    """One option of a block.

    Args:
        name: What stores and reports call it; unique in its block.
        linear: Whether the activations inside go.
        swap: What replaces the block; ``None`` leaves it.
    """

    name: str
    linear: bool = False
    swap: Swap | None = None


def describe(block: ActivatedBlock) -> str:
    """Return a block as it came, in the words of its options."""
    hidden = f" h{block.hidden}" if block.kind != "chain" else ""
    kernel = max(site.kernel for site in block.convs)
    return f"{block.kind} k{kernel}{hidden} {block.activation}"


def block_options(
    block: ActivatedBlock, alignment: int, settings: Mapping[str, Any]
) -> list[BlockOption]:
    """Return the options of a block: as it is first, linearised second where that can be done.

    Args:
        block: The block.
        alignment: Hidden channels are multiples of it.
        settings: ``activations``, ``expansions``, ``crop_kernels`` and ``refine`` of the method.
    """
    found = [BlockOption(KEEP)]
    acts = _activations(block, settings["activations"])
    for act in acts:
        for kernel in _kernels(block.kernel, settings, 1):
            swap = _collapsed(block, kernel, act)
            if swap is not None:
                found.append(BlockOption(f"linear k{kernel} {act}", True, swap))
    if not settings["refine"]:
        return found[:2]
    return found + _smaller(block, alignment, acts, settings)


def _kernels(largest: int, settings: Mapping[str, Any], smallest: int) -> list[int]:
    """Return the kernel sizes on offer, largest first: the middle of a kernel can be kept."""
    if not settings["crop_kernels"]:
        return [largest]
    return [largest, *(k for k in (3, 1) if smallest <= k < largest)]


def _activations(block: ActivatedBlock, names: Sequence[str]) -> list[str]:
    own = block.activation
    wanted = [own if name == "own" else name for name in names]
    return [a for a in dict.fromkeys(wanted) if a in ACTIVATION_MODULES]


def _collapsed(block: ActivatedBlock, kernel: int, act: str) -> Swap | None:
    """Return the swap to the collapsed block, ``None`` where its padding cannot be expressed."""
    same = _padding(block, kernel)
    if same is None:
        return None
    options: dict[str, Any] = {"kernel": kernel, "act": act}
    if same:
        options["same_size"] = list(block.in_shape[2:])
    return Swap(
        block.module, "pre_activation_conv", block.in_channels, block.out_channels, block.stride,
        options,
    )  # fmt: skip


def _padding(block: ActivatedBlock, kernel: int) -> bool | None:
    """Return whether the block pads SAME; ``None`` where it pads in neither known way.

    The padding that counts is that of the whole chain, less what a smaller kernel does without.
    """
    less = block.kernel - kernel
    top, bottom, left, right = block.padding
    half = block.kernel // 2
    if (top, bottom, left, right) == (half,) * 4 and less % 2 == 0:
        return False
    rows, columns = (same_padding(s, block.kernel, block.stride) for s in block.in_shape[2:])
    return True if (rows, columns) == ((top, bottom), (left, right)) else None


def _smaller(
    block: ActivatedBlock, alignment: int, acts: Sequence[str], settings: Mapping[str, Any]
) -> list[BlockOption]:
    """Return the options that keep the inverted residual but make it cheaper."""
    if block.kind not in ("inverted_residual", "separable") or block.last_activation != "none":
        return []
    depthwise = next(site for site in block.convs if site.depthwise)
    same = _padding(block, depthwise.kernel)
    if same is None or any(s.activation != block.activation for s in block.convs[:-1]):
        return []
    widths = [block.hidden]
    if block.kind == "inverted_residual":
        for share in settings["expansions"]:
            width = max(alignment, round(share * block.hidden / alignment) * alignment)
            # As many hidden channels as inputs would mean that there is no expansion.
            if width < block.hidden and width != block.in_channels:
                widths.append(width)
    found = []
    for act in acts:
        for kernel in _kernels(depthwise.kernel, settings, 3):
            for width in dict.fromkeys(widths):
                if (act, kernel, width) == (block.activation, depthwise.kernel, block.hidden):
                    continue
                options: dict[str, Any] = {"hidden": width, "kernel": kernel, "act": act}
                if same:
                    options["same_size"] = list(block.in_shape[2:])
                swap = Swap(
                    block.module, "inverted_residual", block.in_channels, block.out_channels,
                    block.stride, options,
                )  # fmt: skip
                found.append(BlockOption(f"{KEEP} k{kernel} h{width} {act}", False, swap))
    return found
