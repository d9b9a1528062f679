# SPDX-License-Identifier: Apache-2.0
"""``Mixture`` and relaxations: how the candidates of a choice share one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from chipfit.supernet.relaxations import gumbel_softmax


@dataclass(frozen=True)
class Mixture:
    """Which candidates of a choice run, and with what weight.

    Args:
        active: Indices of the candidates that run.
        weights: ``(len(active),)``, or ``(len(compared),)`` where gates are compared; ``None`` is
            the weight 1 of a single candidate.
        compared: Candidates whose gates get a gradient although one of them alone is active; its
            activations alone are kept (:class:`BinaryGates`).
    """

    active: tuple[int, ...]
    weights: Tensor | None = None
    compared: tuple[int, ...] = ()


class Relaxation(Protocol):
    """Draws the mixture of one choice for one forward pass."""

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture.

        Args:
            logits: ``(candidates,)``.
            temperature: Positive.
            generator: Source of all randomness.
        """
        ...


class Softmax:
    """All candidates, weighted by ``softmax(logits / temperature)``: DARTS, with temperature 1.

    Liu et al., ICLR 2019, arXiv 1806.09055, equation 2.
    """

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture of all candidates; nothing is drawn."""
        return Mixture(tuple(range(len(logits))), torch.softmax(logits / temperature, 0))


@dataclass(frozen=True)
class GumbelSoftmax:
    """All candidates, weighted by a Gumbel-softmax sample: FBNet.

    Wu et al., CVPR 2019, arXiv 1812.03443, section 3.2.

    Args:
        hard: Only the drawn candidate counts, with the gradient of the soft sample; all run.
    """

    hard: bool = False

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture of all candidates."""
        weights = gumbel_softmax(logits, temperature, self.hard, generator)
        return Mixture(tuple(range(len(logits))), weights)


@dataclass(frozen=True)
class OneHot:
    """One candidate, drawn: single-path training.

    Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
    arXiv 1904.00420.

    Args:
        uniform: Draw evenly; otherwise by ``softmax(logits)``.
    """

    uniform: bool = True

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture of the drawn candidate."""
        p = torch.softmax(logits.detach(), 0)
        weights = torch.ones_like(p) if self.uniform else p
        return Mixture((int(torch.multinomial(weights, 1, generator=generator)),))


@dataclass(frozen=True)
class BinaryGates:
    """One candidate is active; the gates of others get gradients too: ProxylessNAS.

    Cai et al., ICLR 2019, arXiv 1812.00332, section 3.2: ``dL/da_i = sum_j dL/dg_j p_j (1[i=j] -
    p_i)``, where ``dL/dg_j`` is the product of the output's gradient with what path ``j`` computes.

    Args:
        paths: Compare all candidates (0), or so many drawn without replacement by their
            probabilities, which are then renormalised: the paper compares 2.
    """

    paths: int = 2

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture of the drawn candidate and those that it is compared with."""
        count = len(logits) if self.paths == 0 else min(self.paths, len(logits))
        compared = list(range(len(logits)))
        if count < len(logits):
            p = torch.softmax(logits.detach(), 0).clamp_min(1e-12)
            compared = sorted(torch.multinomial(p, count, generator=generator).tolist())
        own = torch.softmax(logits[compared], 0)
        active = compared[int(torch.multinomial(own.detach(), 1, generator=generator))]
        return Mixture((active,), own, tuple(compared))


class Fixed:
    """The most probable candidate alone."""

    def __call__(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Mixture:
        """Return the mixture of the candidate of the largest logit; nothing is drawn."""
        return Mixture((int(logits.argmax()),))
