# SPDX-License-Identifier: Apache-2.0
"""Discrete choices made differentiable: Gumbel noise, a temperature, straight-through samples.

Maddison et al., "The Concrete Distribution", ICLR 2017, arXiv 1611.00712 (binary concrete: appendix
B); Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017, arXiv 1611.01144
(straight-through: section 2.2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from chipfit.errors import BadInput


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from (0, 1), ends excluded."""
    tiny = torch.finfo(like.dtype).tiny
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).clamp(tiny, 1 - 1e-7)


def gumbel_sigmoid(
    logits: Tensor,
    temperature: float,
    hard: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample gates: ``sigmoid((logits + log u - log(1 - u)) / temperature)``.

    A hard sample is 1 with probability ``sigmoid(logits)``, whatever the temperature.

    Args:
        logits: Log-odds of 1, any shape.
        temperature: Positive; lower ones bring soft samples nearer to 0 and 1.
        hard: Round the sample, and let the gradient through as if it were soft.
        generator: Source of noise; torch's own where ``None``.

    Returns:
        Gates of the shape of ``logits``.
    """
    u = _uniform(logits, generator)
    soft = torch.sigmoid((logits + u.log() - torch.log1p(-u)) / temperature)
    if not hard:
        return soft
    return (soft > 0.5).to(soft.dtype) + soft - soft.detach()


def gumbel_softmax(
    logits: Tensor,
    temperature: float,
    hard: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample one option along the last axis: ``softmax((logits + g) / temperature)``.

    A hard sample is option ``i`` with probability ``softmax(logits)[i]``.

    Args:
        logits: ``(..., options)``.
        temperature: Positive.
        hard: Give the one-hot vector, with the gradient of the soft one.
        generator: Source of noise; torch's own where ``None``.

    Returns:
        Weights of the shape of ``logits``; they sum to 1 along the last axis.
    """
    noise = -torch.log(-torch.log(_uniform(logits, generator)))
    soft = torch.softmax((logits + noise) / temperature, dim=-1)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return one_hot + soft - soft.detach()


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Return the temperature of ``step`` (from 0) of ``steps``: from ``start`` to ``end``.

    It falls by the same factor in every step.

    Raises:
        BadInput: A temperature is not positive.
    """
    if start <= 0 or end <= 0:
        raise BadInput(f"temperatures {start} and {end} must be positive")
    done = min(1.0, step / max(1, steps - 1))
    return start * (end / start) ** done
