# SPDX-License-Identifier: Apache-2.0
"""Rounding of channel counts for width multipliers."""

from __future__ import annotations


def scale_channels(channels: int, width: float) -> int:
    """Return ``channels * width`` as a multiple of 8 that is at least 90 % of it and at least 8."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled
