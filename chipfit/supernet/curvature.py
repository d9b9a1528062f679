# SPDX-License-Identifier: Apache-2.0
"""The dominant eigenvalue of a Hessian, by which skip-collapse announces itself.

Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020,
arXiv 1909.09656, section 4: as the largest eigenvalue of the validation loss's Hessian in the
architecture parameters grows, the network derived gets worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from chipfit.errors import BadInput


def dominant_eigenvalue(
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    *,
    iterations: int = 20,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> float:
    """Return the eigenvalue of largest magnitude of ``d2 loss / d parameters2``, signed.

    Power iteration with exact products of Hessian and vector (Pearlmutter, 1994), each by two
    backward passes through one graph.

    Args:
        loss: Computes the scalar loss once; it must be twice differentiable.
        parameters: What it is differentiated after.
        iterations: Products at most.
        tolerance: Relative change of the eigenvalue that is small enough to stop.
        seed: Of the first vector.

    Raises:
        BadInput: The loss does not depend on the parameters.
    """
    own = list(parameters)
    value = loss()
    found = (
        torch.autograd.grad(value, own, create_graph=True, allow_unused=True)
        if value.requires_grad
        else [None] * len(own)
    )
    slopes = [(g, i) for i, g in enumerate(found) if g is not None and g.requires_grad]
    if all(g is None for g in found):
        raise BadInput("the loss does not depend on the parameters of its Hessian")
    stream = torch.Generator().manual_seed(seed)
    vector = [torch.randn(p.shape, generator=stream, dtype=p.dtype).to(p.device) for p in own]
    eigenvalue = 0.0
    for _ in range(iterations):
        length = _norm(vector)
        if not length or not slopes:
            return 0.0
        vector = [v / length for v in vector]
        dot = torch.stack([(g * vector[i].detach()).sum() for g, i in slopes]).sum()
        raw = torch.autograd.grad(dot, own, retain_graph=True, allow_unused=True)
        product = [torch.zeros_like(p) if r is None else r for p, r in zip(own, raw, strict=True)]
        before = eigenvalue
        eigenvalue = float(
            torch.stack([(v * q).sum() for v, q in zip(vector, product, strict=True)]).sum()
        )
        if abs(eigenvalue - before) <= tolerance * abs(eigenvalue):
            break
        vector = product
    return eigenvalue


def _norm(vector: Sequence[Tensor]) -> float:
    return float(torch.stack([v.square().sum() for v in vector]).sum().sqrt())
