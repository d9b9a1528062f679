# SPDX-License-Identifier: Apache-2.0
"""Remove channels from a network for real: smaller tensors, same class."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.coupling_sides import narrow_side, side_sizes
from chipfit.rewrite.edits import Edit

__all__ = ["side_sizes", "slice_channels", "slice_channels_"]


def slice_channels(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Return a copy of ``net`` with the edits applied; ``net`` is not changed.

    Raises:
        BadInput: An edit names a module that is not there, or does not fit it.
    """
    return slice_channels_(copy.deepcopy(net), edits)


def slice_channels_(net: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """Apply the edits to ``net`` in place and return it; errors as :func:`slice_channels`.

    Optimisers made before must be made anew: parameters are replaced.
    """
    sizes = side_sizes(net)
    for edit in edits:
        size = sizes.get((edit.module, edit.side))
        if size is None:
            raise BadInput(
                f"edit of {edit.module} ({edit.side}): the network has no such module",
                "replay edits on the class and the arguments they were made for",
            )
        if size != edit.size or not edit.keep or max(edit.keep) >= size:
            raise BadInput(
                f"edit of {edit.module} ({edit.side}) is for {edit.size} channels, not {size}"
            )
    for edit in edits:
        narrow_side(net, edit.module, edit.side, torch.tensor(edit.keep))
    return net
