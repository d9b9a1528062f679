# SPDX-License-Identifier: Apache-2.0
"""The rules of :mod:`chipfit.supernet.bilevel` as steps of a search on a supernet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from chipfit.errors import BadInput
from chipfit.supernet.bilevel import Loss, first_order, second_order
from chipfit.supernet.curvature import dominant_eigenvalue
from chipfit.supernet.mixed_operation import MixedOperation, untracked
from chipfit.supernet.mixture import Softmax
from chipfit.supernet.relaxed_copies import RelaxedCopies
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.supernet.supernet import Supernet
from chipfit.tasks.base import Batch

#: Name under which the Hessian's eigenvalue is reported.
CURVATURE = "hessian_eigenvalue"


def freeze_scales(supernet: Supernet) -> None:
    """Keep scale and shift of the candidates' batch norms from being trained.

    A scale could undo the weight that the mixture gives its candidate (DARTS's search has none).
    """
    for mixed in supernet.modules():
        if isinstance(mixed, MixedOperation):
            for norm in mixed.modules():
                if isinstance(norm, _BatchNorm) and norm.affine:
                    norm.weight.requires_grad_(False)
                    norm.bias.requires_grad_(False)


class DartsRule(SearchRule):
    """All candidates mixed by softmax; logits learn from the other half of the data.

    Args:
        order: 1 or 2: whether the gradient of the logits looks one step of the weights ahead
            (:func:`~chipfit.supernet.bilevel.second_order`).
        curvature_every: Steps between two estimates of the dominant eigenvalue of the validation
            loss's Hessian in the logits, the sign of a collapse; 0 for none.

    Raises:
        BadInput: The order is another.
    """

    def __init__(self, order: int = 1, curvature_every: int = 0) -> None:
        super().__init__(Softmax())
        if order not in (1, 2) or curvature_every < 0:
            raise BadInput(f"order={order}, curvature_every={curvature_every}", "order is 1 or 2")
        self.order, self.curvature_every = order, curvature_every

    def weight_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the weights on a batch of the first half; return the loss."""
        freeze_scales(state.supernet)
        return super().weight_step(state, batch)

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the logits on a batch of the second half; return the task's loss."""
        freeze_scales(state.supernet)
        self._watch(state, batch)
        supernet, pressure = state.supernet, state.pressure
        seen: list[float] = []

        def val_loss() -> Tensor:
            loss = self.loss_on(state, batch)()
            seen.append(loss.item())
            return pressure(loss, supernet.probabilities())

        weights, logits = supernet.weights(), supernet.architecture_parameters()
        if self.order == 1:
            move_logits(state, first_order(val_loss, logits))
            return seen[0]
        group, optimizer = state.weight_optimizer.param_groups[0], state.weight_optimizer
        found = second_order(
            self.loss_on(state, _required(state.weight_batch)), val_loss, weights, logits,
            group["lr"], momentum=group["momentum"],
            velocity=[optimizer.state.get(w, {}).get("momentum_buffer") for w in weights],
            weight_decay=[state.settings.weight_decay if w.ndim > 1 else 0.0 for w in weights],
            buffers=list(supernet.buffers()),
        )  # fmt: skip
        move_logits(state, found)
        return seen[0]

    def loss_on(self, state: SearchState, batch: Batch) -> Loss:
        """Return the task's loss of the mixture as a function of the parameters as they are."""

        def loss() -> Tensor:
            # Every pass has a graph of its own, so every pass has mixtures of its own.
            state.supernet.draw(self.relaxation, state.temperature, state.noise(1))
            return state.loss(batch)

        return loss

    def _watch(self, state: SearchState, batch: Batch) -> None:
        if self.curvature_every and state.step % self.curvature_every == 0:
            with untracked(state.supernet):
                state.losses[CURVATURE] = dominant_eigenvalue(
                    self.loss_on(state, batch), state.supernet.architecture_parameters(),
                    seed=state.seed,
                )  # fmt: skip


class RartsRule(DartsRule):
    """Weights and a copy of them learn from one half each, logits from both.

    See :class:`~chipfit.supernet.relaxed_copies.RelaxedCopies`. The rate of a step is the learning
    rate over ``train_weight``, so that the weights move as far as without the copy.

    Args:
        train_weight: Of the training loss.
        coupling: Of weights and copy.
        fresh: Whether the logits' gradient is taken at the new weights.
        curvature_every: As in :class:`DartsRule`.

    Raises:
        BadInput: A factor is not positive.
    """

    def __init__(
        self,
        train_weight: float = 10.0,
        coupling: float = 10.0,
        fresh: bool = True,
        curvature_every: int = 0,
    ) -> None:
        super().__init__(1, curvature_every)
        if train_weight <= 0 or coupling <= 0:
            raise BadInput(f"train_weight={train_weight}, coupling={coupling} must be positive")
        self.train_weight, self.coupling, self.fresh = train_weight, coupling, fresh
        self._copies: RelaxedCopies | None = None
        self._kept: dict[str, Tensor] = {}
        self._train_loss: float | None = None

    def weight_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the weights, unless the step of the logits before has done so."""
        done, self._train_loss = self._train_loss, None
        return super().weight_step(state, batch) if done is None else done

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the copy, the weights and the logits; return the validation loss."""
        freeze_scales(state.supernet)
        self._watch(state, batch)
        supernet, settings = state.supernet, state.settings
        if self._copies is None:
            self._copies = RelaxedCopies(
                supernet.weights(), list(supernet.buffers()), train_weight=self.train_weight,
                coupling=self.coupling, momentum=settings.momentum,
                weight_decay=settings.weight_decay, clip=settings.gradient_clip, fresh=self.fresh,
            )  # fmt: skip
            if self._kept:
                self._copies.restore_tensors(self._kept)
        seen: dict[str, float] = {}
        whole = 1.0 + self.train_weight
        found = self._copies.step(
            noted(self.loss_on(state, _required(state.weight_batch)), "train", seen),
            noted(self.loss_on(state, batch), "val", seen),
            supernet.architecture_parameters(),
            state.weight_optimizer.param_groups[0]["lr"] / self.train_weight,
            # The budget weighs as much against both losses as against one.
            lambda loss: whole * state.pressure(loss / whole, supernet.probabilities()),
        )
        move_logits(state, found)
        self._train_loss = seen["train"]
        return seen["val"]

    def tensors(self) -> dict[str, Tensor]:
        """Return the copy, for checkpoints."""
        return {} if self._copies is None else self._copies.tensors()

    def restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned."""
        self._kept = dict(tensors)


def noted(loss: Loss, name: str, seen: dict[str, float]) -> Loss:
    """Return the loss as a function that also notes its first value."""

    def wrapped() -> Tensor:
        value = loss()
        seen.setdefault(name, value.item())
        return value

    return wrapped


def move_logits(state: SearchState, gradients: list[Tensor]) -> None:
    """Let the optimiser of the logits take a step along given gradients."""
    logits = state.supernet.architecture_parameters()
    for parameter, gradient in zip(logits, gradients, strict=True):
        parameter.grad = gradient.detach()
    state.architecture_optimizer.step()
    with torch.no_grad():
        state.pressure.update(state.supernet.probabilities())


def _required(batch: Any) -> Batch:
    if batch is None:
        raise BadInput("this rule needs a batch of both halves", "run it by search_supernet")
    return batch
