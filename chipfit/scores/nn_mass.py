# SPDX-License-Identifier: Apache-2.0
"""NN-Mass: how many channels skip connections carry, which tells how well gradients pass.

Bhardwaj, Li and Marculescu, "How does topology influence gradient propagation and model performance
of deep networks with DenseNet-type skip connections?", CVPR 2021, define it for cells that
concatenate; "Restructurable Activation Networks", 2022, arXiv 2208.08562, uses it for residual
networks. Both closed forms are theirs: :func:`nn_mass_dense_cell` and :func:`nn_mass_convnext`.
:func:`nn_mass`, which finds the skip connections of any traced network, is our reconstruction; it
equals the closed forms on networks of those families.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph import Workload, trace
from chipfit.scores.registry import register_score
from chipfit.scores.skips import dense_cells, residual_channels


def nn_mass_convnext(widths: Sequence[int], depths: Sequence[int]) -> int:
    """Return the NN-Mass of residual stages: every block adds twice its width.

    ``m = sum over stages of 2 * width * depth`` (the released code of arXiv 2208.08562); it is the
    dense form below where every addition is read as a concatenation of all the block's channels.

    Args:
        widths: Channels of the blocks of each stage.
        depths: Residual blocks of each stage.

    Raises:
        BadInput: The two differ in length, or a number is negative.

    >>> nn_mass_convnext((96, 192, 384, 768), (3, 3, 9, 3))
    13248
    """
    if len(widths) != len(depths) or min((0, *widths, *depths)) < 0:
        raise BadInput(f"widths {tuple(widths)} and depths {tuple(depths)} are not of equal stages")
    return sum(2 * width * depth for width, depth in zip(widths, depths, strict=True))


def nn_mass_dense_cell(width: int, depth: int, skips: int) -> float:
    """Return the NN-Mass of one cell with DenseNet-type skip connections (CVPR 2021, section 3).

    Layer ``i`` reads the ``width`` channels of layer ``i - 1`` and at most ``skips`` channels drawn
    from the ``(i - 1) * width`` of all earlier layers. With the density
    ``rho = sum_i min((i - 1) width, skips) / sum_i (i - 1) width`` over ``i = 2 .. depth - 1``,
    the mass is ``rho * width * depth``; a network's is the sum over its cells. A cell of fewer than
    three layers has no such connection and a mass of 0.

    Args:
        width: Channels of every layer.
        depth: Layers.
        skips: Most channels that a layer reads from layers before the last one.

    Raises:
        BadInput: A number is negative, or ``width`` or ``depth`` is 0.

    >>> nn_mass_dense_cell(64, 4, 1000)
    256.0
    """
    if width < 1 or depth < 1 or skips < 0:
        raise BadInput(f"width={width}, depth={depth} and skips={skips} make no cell")
    possible = [(i - 1) * width for i in range(2, depth)]
    if not possible:
        return 0.0
    density = sum(min(channels, skips) for channels in possible) / sum(possible)
    return density * width * depth


def nn_mass(workload: Workload) -> float:
    """Return the NN-Mass of any traced network (our reconstruction).

    - A term of a sum of activations from which another term was computed is a residual connection
      and adds twice its channels. Where all terms went through layers of their own, as with a
      projection, there is no direct connection and nothing is added.
    - Concatenations along the channels, image size by image size, make one dense cell: the part
      computed last is what the previous layer gives; parts that it was computed from are skip
      connections. ``rho`` is the ratio of their channels to those of all earlier layers of the
      cell, ``width`` the mean over its layers, ``depth`` their number, and the cell adds
      ``rho * width * depth``.

    Args:
        workload: Of one image.
    """
    residual = 2 * sum(residual_channels(workload))
    return residual + sum(cell.density * cell.width * cell.depth for cell in dense_cells(workload))


@register_score(
    "nn_mass",
    summary="channels that skip connections carry",
    source="Bhardwaj, Li and Marculescu, CVPR 2021; arXiv 2208.08562",
)
def score(net: nn.Module, example: torch.Tensor, *, seed: int) -> float:
    """Return the NN-Mass of the traced network."""
    return nn_mass(trace(net, example[:1]))
