# SPDX-License-Identifier: Apache-2.0
"""``RelaxedCopies``: RARTS's rule, with weights of their own for the validation loss.

Xue, Qi and Xin, "RARTS: An Efficient First-Order Relaxed Architecture Search Method", IEEE Access
2022, arXiv 2008.03901: one level, both halves of the data, no second derivatives. The objective
and the order of its steps are our reconstruction; momentum and clipping are ours:

    L(y, w, a) = Lval(y, a) + l Ltrain(w, a) + b / 2 |y - w|^2

    y <- y - r (dLval(y, a)/dy + b (y - w))
    w <- w - r (l dLtrain(w, a)/dw + b (w - y))
    a <- a - r_a (l dLtrain(w, a)/da + dLval(y, a)/da)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from chipfit.errors import BadInput
from chipfit.supernet.bilevel import Loss, Tensors, gradients

#: What the architecture parameters see of the losses: their sum, or that with a budget's penalty.
Objective = Callable[[Tensor], Tensor]


class RelaxedCopies:
    """The weights ``w`` of a module, a copy ``y`` of them, and the step of both.

    Buffers, such as batch-norm statistics, exist twice too. Only one copy is in use at a time, so
    no more activations are held than without the other.

    Args:
        weights: ``w``; changed in place.
        buffers: Tensors that a forward pass changes.
        train_weight: ``l``.
        coupling: ``b``.
        momentum: Of the gradients of the losses; the coupling has none, or it would overshoot.
        weight_decay: Of tensors with two or more dimensions.
        clip: Largest norm of a gradient of a loss; 0 for any.
        fresh: Take the gradient of ``a`` at the new ``y`` and ``w``, by two more passes. Otherwise
            it comes from the passes that moved them: two passes in all, the same fixed points.

    Raises:
        BadInput: ``l`` or ``b`` is not positive.
    """

    def __init__(
        self,
        weights: Tensors,
        buffers: Tensors = (),
        *,
        train_weight: float = 1.0,
        coupling: float = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip: float = 0.0,
        fresh: bool = True,
    ) -> None:
        if train_weight <= 0 or coupling <= 0:
            raise BadInput(f"train_weight={train_weight}, coupling={coupling} must be positive")
        self.weights, self.buffers = list(weights), list(buffers)
        self.train_weight, self.coupling = train_weight, coupling
        self.momentum, self.weight_decay = momentum, weight_decay
        self.clip, self.fresh = clip, fresh
        self._y = [t.detach().clone() for t in (*self.weights, *self.buffers)]
        self._velocity = [[torch.zeros_like(w) for w in self.weights] for _ in range(2)]

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Let the module compute with ``y`` and its buffers meanwhile.

        What is to be differentiated has to be so before the end.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def step(
        self,
        train_loss: Loss,
        val_loss: Loss,
        architecture: Tensors,
        rate: float,
        objective: Objective = lambda loss: loss,
    ) -> list[Tensor]:
        """Move ``y``, then ``w``; return the gradient for ``a``, which the caller moves.

        Args:
            train_loss: ``Ltrain`` with the module as it is.
            val_loss: ``Lval`` likewise.
            architecture: ``a``.
            rate: ``r``.
            objective: Applied to ``Lval + l Ltrain`` where ``a`` is concerned; it may depend on
                ``a`` itself.

        Raises:
            BadInput: ``rate * coupling`` is 1 or more: the copies would swing about each other.
        """
        if rate * self.coupling >= 1:
            raise BadInput(
                f"coupling={self.coupling} at learning rate {rate:.3g}: their product must be"
                " below 1",
                "lower either",
            )
        with self.exchanged():
            # Weights hold y now, and the copy holds w.
            val = val_loss()
            moved, of_val = self._split(val, architecture)
            self._move(moved, 0, rate, 1.0)
            if self.fresh:
                val = val_loss()
                of_val = gradients(val, architecture)
        train = train_loss()
        moved, of_train = self._split(train, architecture)
        self._move(moved, 1, rate, self.train_weight)
        if self.fresh:
            train = train_loss()
            of_train = gradients(train, architecture)
        share = self.train_weight
        found = [v + share * t for v, t in zip(of_val, of_train, strict=True)]
        total = val.detach() + share * train.detach()
        return _through(objective, total, found, architecture)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``y`` and all momenta by name, for checkpoints."""
        groups = {"y": self._y, "y_velocity": self._velocity[0], "w_velocity": self._velocity[1]}
        return {f"{name}/{i}": t for name, own in groups.items() for i, t in enumerate(own)}

    @torch.no_grad()
    def restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])

    def _split(self, loss: Tensor, architecture: Tensors) -> tuple[list[Tensor], list[Tensor]]:
        both = gradients(loss, [*self.weights, *architecture])
        return both[: len(self.weights)], both[len(self.weights) :]

    @torch.no_grad()
    def _move(self, found: list[Tensor], which: int, rate: float, share: float) -> None:
        if self.clip:
            length = float(torch.stack([g.square().sum() for g in found]).sum().sqrt())
            share *= min(1.0, self.clip / max(length, 1e-12))
        for w, other, g, v in zip(
            self.weights, self._y, found, self._velocity[which], strict=False
        ):
            decay = self.weight_decay if w.ndim > 1 else 0.0
            v.mul_(self.momentum).add_(g, alpha=share).add_(w, alpha=decay)
            w.sub_(v + self.coupling * (w - other), alpha=rate)

    def _exchange(self) -> None:
        for t, own in zip((*self.weights, *self.buffers), self._y, strict=True):
            t.data, own.data = own.data, t.data


def _through(
    objective: Objective, loss: Tensor, of_loss: list[Tensor], architecture: Tensors
) -> list[Tensor]:
    """Return the gradient of ``objective(loss(a))`` by the chain rule, without another pass."""
    leaf = loss.requires_grad_()
    factor, *direct = gradients(objective(leaf), [leaf, *architecture])
    return [factor * g + d for g, d in zip(of_loss, direct, strict=True)]
