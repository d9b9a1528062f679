# SPDX-License-Identifier: Apache-2.0
"""The expected cost of a network whose choices are drawn independently, and its gradient.

FBNet (Wu et al., CVPR 2019, arXiv 1812.03443) and ProxylessNAS (Cai et al., ICLR 2019,
arXiv 1812.00332, equation 4) add up expected latencies layer by layer. On devices that fuse and
overlap layers a cost is no such sum; here it is any function of the architecture, and its
expectation is the multilinear extension of that function: exact where the architectures can be
enumerated, else estimated from samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Codes = NDArray[np.int64]
#: Costs ``(N,)`` of architectures given as option indices ``(N, choices)``.
CostFunction = Callable[[Codes], NDArray[np.float64]]

#: Up to this many architectures the expectation is a sum over all of them.
ENUMERATED = 4096


def all_codes(sizes: Sequence[int]) -> Codes:
    """Return the option indices of every architecture, ``(prod(sizes), choices)``."""
    rows = list(itertools.product(*(range(size) for size in sizes)))
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(sizes))


def expected_cost(
    probabilities: Sequence[Tensor],
    cost: CostFunction,
    *,
    samples: int = 64,
    generator: np.random.Generator | None = None,
    enumerated: int = ENUMERATED,
) -> Tensor:
    """Return ``E[cost]``, differentiable in the probabilities.

    The derivative after the probability of option ``i`` of choice ``b`` is
    ``E[cost | choice b takes option i]``; where options of a choice share one parameter (a gate's
    ``p`` and ``1 - p``) the chain rule makes it the difference of two such expectations.

    Args:
        probabilities: By choice, the probability of each option, ``(options,)``; they sum to 1.
        cost: Of architectures.
        samples: Architectures drawn where there are too many to enumerate.
        generator: Draws them.
        enumerated: Most architectures that are enumerated.

    Returns:
        A scalar in the unit of ``cost``.
    """
    sizes = [len(p) for p in probabilities]
    if math.prod(sizes) <= enumerated:
        return expectation_over(probabilities, (codes := all_codes(sizes)), cost(codes))
    rng = generator or np.random.default_rng(0)
    drawn = np.stack(
        [rng.choice(len(p), samples, p=_normalised(p)) for p in probabilities], axis=1
    ).astype(np.int64)
    value = float(cost(drawn).mean())
    total = torch.zeros((), dtype=probabilities[0].dtype)
    for b, own in enumerate(probabilities):
        rows = np.repeat(drawn[None], len(own), axis=0)
        rows[:, :, b] = np.arange(len(own))[:, None]
        given = cost(rows.reshape(-1, len(sizes))).reshape(len(own), samples).mean(1)
        slope = torch.as_tensor(given, dtype=own.dtype)
        total = total + ((own - own.detach()) * slope).sum()
    return total + value


def expectation_over(
    probabilities: Sequence[Tensor], codes: Codes, costs: NDArray[np.float64]
) -> Tensor:
    """Return ``sum_n costs[n] prod_b probabilities[b][codes[n, b]]``, differentiable.

    Args:
        probabilities: By choice, the probability of each option.
        codes: Every architecture once, ``(N, choices)``.
        costs: ``(N,)``.
    """
    weight = torch.ones(len(codes), dtype=probabilities[0].dtype)
    for b, own in enumerate(probabilities):
        weight = weight * own[torch.as_tensor(codes[:, b])]
    return weight @ torch.as_tensor(costs, dtype=weight.dtype)


def _normalised(probabilities: Tensor) -> NDArray[np.float64]:
    values = probabilities.detach().double().numpy()
    return values / values.sum()
