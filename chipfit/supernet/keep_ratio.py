# SPDX-License-Identifier: Apache-2.0
"""From the share of a group's channels that stays to which ones do, with a gradient.

Our variant of what Ning et al. publish, "DSA: More Efficient Budgeted Pruning via Differentiable
Sparsity Allocation", ECCV 2020, arXiv 2004.02164: every channel stays with a probability that rises
with its salience, and the probabilities of a group add up to the share that stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Halvings of the interval that holds the threshold: down to the last bits of double precision.
_HALVINGS = 100
#: Saliences are told apart down to this share of the group's largest.
_LEAST_SALIENCE = 1e-12


class _KeepProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, ratio: Tensor, scores: Tensor) -> Tensor:
        """Solve ``mean(sigmoid(scores - t)) = ratio`` for ``t`` and return the probabilities."""
        wanted = ratio.detach().double().clamp(1e-9, 1.0 - 1e-9)
        edge = torch.logit(wanted)
        low, high = scores.min() - edge, scores.max() - edge
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = torch.sigmoid(scores - middle).mean() > wanted
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        found = torch.sigmoid(scores - (low + high) / 2)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """Return ``sum_i g_i dp_i/dratio``: the threshold moves so that the mean stays ``ratio``.

        ``dp_i/dratio = C p_i (1 - p_i) / sum_j p_j (1 - p_j)`` by the implicit function theorem.
        """
        (p,) = ctx.saved_tensors  # type: ignore[attr-defined]
        slope = p * (1.0 - p)
        total = slope.sum().clamp_min(torch.finfo(p.dtype).tiny)
        return (gradient.double() * len(p) * slope).sum() / total, None


def keep_probabilities(ratio: Tensor, salience: Tensor, steepness: float) -> Tensor:
    """Return the probability with which each channel of a group stays.

    ``p_i = 1 / (1 + (b_i / beta1)^(-beta2))`` where ``beta1`` is such that their mean is ``ratio``
    and ``beta2`` is ``steepness`` over the standard deviation of ``log b``, so that it means the
    same in groups whose saliences lie near or far. Differentiable in ``ratio`` alone.

    Args:
        ratio: Share of the channels that stays, a scalar in (0, 1).
        salience: ``(channels,)``, 0 or more; higher stays rather.
        steepness: Higher tells channels apart more sharply.

    Returns:
        ``(channels,)`` in double precision.
    """
    values = salience.detach().double()
    top = values.max().clamp_min(torch.finfo(values.dtype).tiny)
    logs = (values / top).clamp_min(_LEAST_SALIENCE).log()
    spread = logs.std(correction=0)
    scores = logs * (steepness / spread) if float(spread) > 0 else torch.zeros_like(logs)
    found: Tensor = _KeepProbabilities.apply(ratio, scores)
    return found


def top_mask(salience: Tensor, count: int) -> Tensor:
    """Return 1 for the ``count`` channels of highest salience, else 0; ties keep the lower index.

    Args:
        salience: ``(channels,)``.
        count: How many stay.
    """
    values = salience.tolist()
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    mask = torch.zeros(len(values), dtype=torch.float64)
    mask[order[:count]] = 1.0
    return mask


def straight_through(mask: Tensor, probabilities: Tensor) -> Tensor:
    """Return ``mask``, whose gradient goes to ``probabilities`` unchanged."""
    return mask + (probabilities - probabilities.detach())
