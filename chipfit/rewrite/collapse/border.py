# SPDX-License-Identifier: Apache-2.0
"""What a single convolution lacks at the borders, for one size of image.

Where a convolution pads what another has given a bias, the two are no single convolution: the zeros
of the padding are not what the first would have put there. Everything else is linear, so what is
missing does not depend on the image: it is what the two make of an image of zeros, a map that is
constant but for a rim. One convolution and that map are equal to the two, borders included, for
images of that size. (Our derivation; Ding et al., arXiv 2103.13425, change the padding instead.)
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.rewrite.collapse.affine import Affine

_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Border(nn.Module):
    """``x + offset``, the offset being zero but for a rim.

    Args:
        offset: ``(1, C, *sizes)``.
    """

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(offset)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, *sizes)`` to the same shape; other sizes have no offset."""
        return x + self.offset


def run(affine: Affine, x: Tensor) -> Tensor:
    """Return what ``affine`` makes of ``x``, ``(N, C, *sizes)``, by convolving.

    Raises:
        BadInput: There is no axis to slide along.
    """
    if not affine.stride:
        raise BadInput("a linear layer has no borders")
    sides = [
        side for pair in zip(affine.before[::-1], affine.after[::-1], strict=True) for side in pair
    ]  # fmt: skip
    one = affine.double()
    return _CONVOLVE[len(one.stride)](
        F.pad(x, sides), one.weight, one.bias, one.stride, 0, one.dilation, one.groups
    )


def middle(values: Tensor) -> Tensor:
    """Return the values in the middle of ``(1, C, *sizes)``, ``(C,)``."""
    index: Any = (0, slice(None), *(size // 2 for size in values.shape[2:]))
    return values[index]
