# SPDX-License-Identifier: Apache-2.0
"""How weights and architecture parameters share two losses: DARTS's rules.

The problem is ``min_a Lval(w*(a), a)`` where ``w*(a)`` minimises ``Ltrain(w, a)`` (Liu et al.,
"DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, equations 3 and 4). All
rules return gradients of the architecture parameters; an optimiser of the caller's moves them.
Losses are functions without arguments that compute with the parameters as they are at the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

#: Computes a scalar loss with the parameters as they are.
Loss = Callable[[], Tensor]
Tensors = Sequence[Tensor]


def gradients(loss: Tensor, parameters: Tensors) -> list[Tensor]:
    """Return the gradient of every parameter; zeros of those that the loss does not hold."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def first_order(val_loss: Loss, architecture: Tensors) -> list[Tensor]:
    """Return ``dLval(w, a) / da``: equation 7 with ``xi = 0``.

    It takes the weights for optimal whatever ``a`` is, so its fixed point is another one.
    """
    return gradients(val_loss(), architecture)


def second_order(
    train_loss: Loss,
    val_loss: Loss,
    weights: Tensors,
    architecture: Tensors,
    rate: float,
    *,
    momentum: float = 0.0,
    velocity: Sequence[Tensor | None] = (),
    weight_decay: Sequence[float] = (),
    buffers: Tensors = (),
    radius: float = 0.01,
) -> list[Tensor]:
    """Return ``dLval(w', a) / da - xi d2Ltrain(w, a) / da dw dLval(w', a) / dw'``.

    Equations 6 to 8: ``w' = w - xi (m v + dLtrain/dw + l w)`` is the step that the optimiser would
    take, and the product with the mixed derivative is ``(dLtrain(w+)/da - dLtrain(w-)/da) / 2R``
    with ``w+- = w +- R dLval/dw'`` and ``R = radius / |dLval/dw'|``.

    Weights and buffers are afterwards as they were, bit by bit.

    Args:
        train_loss: ``Ltrain``.
        val_loss: ``Lval``.
        weights: ``w``; moved in place meanwhile.
        architecture: ``a``.
        rate: ``xi``, the learning rate of the weights.
        momentum: ``m`` of their optimiser.
        velocity: ``v``, its momentum of every weight, ``None`` before its first step; none at all
            where empty.
        weight_decay: ``l`` of every weight; 0 where empty.
        buffers: Tensors that a forward pass changes, such as batch-norm statistics.
        radius: Length of the step of the finite difference.
    """
    velocity = velocity or [None] * len(weights)
    decay = weight_decay or [0.0] * len(weights)
    with _restored([*weights, *buffers]) as start:
        own = gradients(train_loss(), weights)
        with torch.no_grad():
            for w, g, v, share in zip(weights, own, velocity, decay, strict=True):
                step = g + share * w if v is None else g + share * w + momentum * v
                w.sub_(step, alpha=rate)
        both = gradients(val_loss(), [*weights, *architecture])
        direction, direct = both[: len(weights)], both[len(weights) :]
        length = torch.stack([d.square().sum() for d in direction]).sum().sqrt()
        if not float(length):
            return direct
        reach = radius / float(length)
        sides = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for w, old, d in zip(weights, start, direction, strict=False):
                    w.copy_(old).add_(d, alpha=sign * reach)
            sides.append(gradients(train_loss(), architecture))
    pairs = zip(direct, *sides, strict=True)
    return [d - rate * (plus - minus) / (2 * reach) for d, plus, minus in pairs]


@contextmanager
def _restored(tensors: Tensors) -> Iterator[list[Tensor]]:
    """Give copies of the tensors, and put their values back afterwards."""
    start = [t.detach().clone() for t in tensors]
    try:
        yield start
    finally:
        with torch.no_grad():
            for t, old in zip(tensors, start, strict=True):
                t.copy_(old)
