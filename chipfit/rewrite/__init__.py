# SPDX-License-Identifier: Apache-2.0
"""Exact surgery on networks, as data that replays."""

from chipfit.rewrite.collapse import Collapsed, Step, collapse, collapse_steps
from chipfit.rewrite.edits import Edit, edits_for, relative
from chipfit.rewrite.fold import fold_batchnorm
from chipfit.rewrite.mask import mask_channels
from chipfit.rewrite.replay import Rewrite, remaining, replay, replay_, rewrite_from_json
from chipfit.rewrite.scale import Scalable, Scale
from chipfit.rewrite.separate import Separate
from chipfit.rewrite.slice import side_sizes, slice_channels, slice_channels_
from chipfit.rewrite.swap import Swap

__all__ = [
    "Collapsed",
    "Edit",
    "Rewrite",
    "Scalable",
    "Scale",
    "Separate",
    "Step",
    "Swap",
    "collapse",
    "collapse_steps",
    "edits_for",
    "fold_batchnorm",
    "mask_channels",
    "relative",
    "remaining",
    "replay",
    "replay_",
    "rewrite_from_json",
    "side_sizes",
    "slice_channels",
    "slice_channels_",
]
