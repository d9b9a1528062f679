# SPDX-License-Identifier: Apache-2.0
"""Silence channels without removing them: what slicing must be equal to."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from chipfit.graph.coupling_mask import silence_
from chipfit.rewrite.edits import Edit


def mask_channels(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Return a copy of ``net`` in which the channels that ``edits`` remove have no effect.

    Weights that make a removed channel, and those with which later layers read it, are zero;
    layer and group normalisations, and means that a module with parameters of its own takes over
    its channels, go over the channels that stay. In evaluation mode its output equals that of the
    sliced network.
    """
    return silence_(copy.deepcopy(net), {(e.module, e.side): e.keep for e in edits})
