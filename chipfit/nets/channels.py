# SPDX-License-Identifier: Apache-2.0
"""Rounding of channel counts for width multipliers, and tables of stages with other numbers."""

from __future__ import annotations

from collections.abc import Sequence

from chipfit.errors import BadInput


def scale_channels(channels: int, width: float) -> int:
    """Return ``channels * width`` as a multiple of 8 that is at least 90 % of it and at least 8."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def stage_numbers(
    stages: int, widths: Sequence[int], depths: Sequence[int]
) -> list[tuple[int, int]]:
    """Return channels and blocks of each stage, checked.

    Args:
        stages: How many the network has.
        widths: Channels of each stage.
        depths: Blocks of each stage.

    Raises:
        BadInput: There are more or fewer numbers than stages, or one is not positive.
    """
    if not len(widths) == len(depths) == stages:
        raise BadInput(
            f"{len(widths)} widths and {len(depths)} depths for a network of {stages} stages",
            "give one width and one depth for each stage",
        )
    if min(*widths, *depths) < 1:
        raise BadInput(f"widths {tuple(widths)} and depths {tuple(depths)} must be positive")
    return [(int(width), int(depth)) for width, depth in zip(widths, depths, strict=True)]
