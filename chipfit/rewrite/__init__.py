# SPDX-License-Identifier: Apache-2.0
"""Exact surgery on networks, as data that replays."""

from chipfit.rewrite.edits import Edit, edits_for, relative
from chipfit.rewrite.mask import mask_channels
from chipfit.rewrite.slice import side_sizes, slice_channels, slice_channels_

__all__ = [
    "Edit",
    "edits_for",
    "mask_channels",
    "relative",
    "side_sizes",
    "slice_channels",
    "slice_channels_",
]
