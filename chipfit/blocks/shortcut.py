# SPDX-License-Identifier: Apache-2.0
"""``Shortcut``: modules in a row, with their input added to what comes out."""

from __future__ import annotations

from torch import Tensor, nn


class Shortcut(nn.Sequential):
    """``x + f(x)``, where ``f`` applies the children one after the other.

    Args:
        *modules: What the shortcut passes by; together they must keep the shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        return x + super().forward(x)
