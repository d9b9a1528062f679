# SPDX-License-Identifier: Apache-2.0
"""``EdgeSum``: what the edges into a node of a cell bring, added up; ``EmptyNode``: without any."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class EdgeSum(nn.Module):
    """The sum of any number of tensors.

    As a module it gives its additions names of their own: a price of one is then seen to depend on
    the edges of its node alone, not on how many other additions the cell has.
    """

    def forward(self, terms: Sequence[Tensor]) -> Tensor:
        """Add up tensors ``(N, C, H, W)``, at least one."""
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total


class EmptyNode(nn.Module):
    """A node without edges: zeros.

    Args:
        stride: 2 where its cell halves the image.
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to zeros ``(N, C, H / stride, W / stride)``."""
        kept = x[:, :, ::2, ::2] if self.stride == 2 else x
        return kept - kept
