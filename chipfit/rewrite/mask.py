# SPDX-License-Identifier: Apache-2.0
"""Silence channels without removing them: what slicing must be equal to."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from chipfit.rewrite.edits import Edit


def mask_channels(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Return a copy of ``net`` in which nothing reads the channels that ``edits`` remove.

    The weights with which later layers read a removed channel are set to zero, so whatever the
    channel carries has no effect. In evaluation mode its output equals that of the sliced
    network, unless a layer normalisation sees the removed channels.
    """
    masked = copy.deepcopy(net)
    with torch.no_grad():
        for edit in edits:
            if edit.side != "in":
                continue
            module = masked.get_submodule(edit.module)
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                continue  # depthwise: the channel stays its own
            gone = [i for i in range(edit.size) if i not in set(edit.keep)]
            module.weight[:, gone] = 0  # type: ignore[operator]
    return masked
