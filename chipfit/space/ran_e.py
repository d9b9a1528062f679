# SPDX-License-Identifier: Apache-2.0
"""The space of RAN-e patterns: per block collapsed, inverted or fused, with kernel and expansion.

Bhardwaj et al., "Restructurable Activation Networks", 2022, arXiv 2208.08562, choose per block
between the collapsed convolution and inverted bottlenecks of kernel 3, 5, 7 and expansion 2, 4, 6.
Fused inverted bottlenecks are our addition: they have the dense convolutions that a collapsed block
has, and as many non-linear units as an inverted one has behind its depthwise convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from chipfit.errors import BadInput
from chipfit.space.choice import Choice, SearchSpace

KERNELS, EXPANSIONS, FUSED_EXPANSIONS = (3, 5, 7), (2, 4, 6), (1, 2, 4)
#: Blocks of RAN-e's networks.
BLOCKS = 16


def pattern_space(
    blocks: int = BLOCKS,
    kernels: Sequence[int] = KERNELS,
    expansions: Sequence[int] = EXPANSIONS,
    fused: Sequence[int] = (),
) -> SearchSpace:
    """Return one choice per block, ``b00``, ``b01`` ..., in the order of execution.

    Options are parts of a pattern text such as ``c``, ``i5x6`` or ``f3x2``
    (:mod:`chipfit.nets.ran_e_pattern`).

    Args:
        blocks: Their number.
        kernels: Of inverted bottlenecks.
        expansions: Of inverted bottlenecks.
        fused: Expansions of fused inverted bottlenecks of kernel 3; empty for none.

    Raises:
        BadInput: There is no block.

    >>> pattern_space(2, (3,), (4,), (2,))["b01"].options
    ('c', 'i3x4', 'f3x2')
    """
    if blocks < 1:
        raise BadInput(f"{blocks} blocks make no network")
    options = (
        "c",
        *(f"i{kernel}x{expansion}" for kernel in kernels for expansion in expansions),
        *(f"f3x{expansion}" for expansion in fused),
    )
    return SearchSpace(tuple(Choice(f"b{i:02d}", options) for i in range(blocks)))
