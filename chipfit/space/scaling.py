# SPDX-License-Identifier: Apache-2.0
"""Which widths and depths a scaled network may have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chipfit.errors import BadInput


@dataclass(frozen=True)
class ScalingBounds:
    """Bounds of every stage relative to the network that is scaled.

    RAN-i's published networks have 0.67 to 0.91 of ConvNeXt-T's widths and 1.65 to 2.3 of its
    depths (Bhardwaj et al., arXiv 2208.08562); the bounds around them are ours. Without a floor on
    the widths, narrower and deeper would always be cheaper at equal NN-Mass, until gradients no
    longer pass.

    Args:
        width_floor: Least width.
        width_cap: Largest width.
        depth_floor: Least depth; one block always stays.
        depth_cap: Largest depth.
        step: Widths are multiples of it.

    Raises:
        BadInput: A bound is out of range.
    """

    width_floor: float = 2 / 3
    width_cap: float = 1.5
    depth_floor: float = 0.5
    depth_cap: float = 2.5
    step: int = 8

    def __post_init__(self) -> None:
        for kind in ("width", "depth"):
            low, high = getattr(self, f"{kind}_floor"), getattr(self, f"{kind}_cap")
            if not 0 < low <= high < math.inf:
                raise BadInput(
                    f"{kind}s from {low} to {high} of the network's are no range",
                    f"for instance {kind}_floor=0.5 and {kind}_cap=2",
                )
        if self.step < 1:
            raise BadInput(f"step={self.step} must be positive")

    def widths(self, own: Sequence[int]) -> list[tuple[int, int]]:
        """Return the least and the largest width of each stage, both multiples of the step."""
        step = self.step
        found = []
        for width in own:
            low = max(1, math.ceil(round(self.width_floor * width, 6) / step)) * step
            high = max(low, math.floor(round(self.width_cap * width, 6) / step) * step)
            found.append((low, high))
        return found

    def depths(self, own: Sequence[int]) -> list[tuple[int, int]]:
        """Return the least and the largest depth of each stage."""
        lows = [max(1, round(self.depth_floor * depth)) for depth in own]
        return [
            (low, max(low, round(self.depth_cap * depth)))
            for low, depth in zip(lows, own, strict=True)
        ]


def coarse_grid(low: int, high: int, step: int, points: int) -> tuple[tuple[int, ...], int]:
    """Return multiples of ``step`` from ``low`` to ``high``, and how far apart they are.

    Where there are more than ``points``, every second, every fourth, ... is taken, and the last.
    """
    stride = step
    while (high - low) // stride + 1 > max(points, 2):
        stride *= 2
    return tuple(sorted({*range(low, high + 1, stride), high})), stride


def fine_grid(
    around: Sequence[int], low: int, high: int, stride: int, step: int
) -> tuple[tuple[int, ...], int]:
    """Return widths at half the stride around those given, and how far apart they are."""
    half = stride if stride <= step else max(step, stride // 2)
    reach = range(-2, 3) if half < stride else range(-1, 2)
    near = {width + i * half for width in around for i in reach}
    return tuple(sorted(width for width in near if low <= width <= high)), half
