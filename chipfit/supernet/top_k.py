# SPDX-License-Identifier: Apache-2.0
"""Top-K Gumbel-sigmoid: the K best of all gates of a network are open.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chipfit.errors import BadInput


def logistic_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise of the shape of ``like``: the difference of two Gumbel variables.

    Its mean is 0 and its variance ``pi^2 / 3``.
    """
    u = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    u = u.clamp(1e-12, 1 - 1e-12)
    return (u.log() - torch.log1p(-u)).to(like.device, like.dtype)


def top_k_mask(scores: Tensor, count: int) -> Tensor:
    """Return 1 for the ``count`` highest scores and 0 for the others; ties keep the first.

    Args:
        scores: ``(gates,)``.
        count: Exactly so many ones.

    Raises:
        BadInput: There are not so many gates.
    """
    if not 0 <= count <= len(scores):
        raise BadInput(f"{count} of {len(scores)} gates cannot be open")
    mask = torch.zeros_like(scores, requires_grad=False)
    mask[torch.argsort(scores.detach(), descending=True, stable=True)[:count]] = 1.0
    return mask


def with_floor(mask: Tensor, layers: Sequence[Sequence[int]], floor: Sequence[int]) -> Tensor:
    """Return a mask in which every layer without an open gate has its floor gate open.

    A mask of K ones may then have up to one more per layer.

    Args:
        mask: ``(gates,)``, 0 or 1.
        layers: Indices of the gates of each layer.
        floor: By layer, the index of the gate that opens.
    """
    filled = mask.clone()
    for own, last in zip(layers, floor, strict=True):
        if not bool(mask[list(own)].any()):
            filled[last] = 1.0
    return filled


class TopKGates:
    """Draws the gates of a whole network: the K highest noisy scores are 1, all others 0.

    With scores ``r = logits + g1 - g2`` (two Gumbel variables each) a gate is ``mask + sigmoid(r) -
    stop_gradient(sigmoid(r))``: exactly 0 or 1, with the gradient of the sigmoid. A layer of which
    nothing is left gets its floor gate.

    Args:
        layers: Indices of the gates of each layer.
        floor: By layer, the index of the gate that is open where no other is.
        count: K.

    Raises:
        BadInput: K is below 1 or above the number of gates.
    """

    def __init__(self, layers: Sequence[Sequence[int]], floor: Sequence[int], count: int) -> None:
        gates = sum(map(len, layers))
        if not 1 <= count <= gates:
            raise BadInput(f"{count} open gates of {gates}", f"take from 1 to {gates}")
        self.layers, self.floor, self.count = layers, floor, count

    def draw(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return gates ``(gates,)`` of a random draw, differentiable in the logits."""
        scores = logits + logistic_noise(logits, generator)
        soft = torch.sigmoid(scores)
        return self._mask(scores) + (soft - soft.detach())

    def fixed(self, logits: Tensor) -> Tensor:
        """Return gates ``(gates,)`` of the K highest logits; nothing is drawn, no gradient."""
        return self._mask(logits.detach())

    def _mask(self, scores: Tensor) -> Tensor:
        return with_floor(top_k_mask(scores, self.count), self.layers, self.floor)
