# SPDX-License-Identifier: Apache-2.0
"""``SearchRule``: what one step of a search is; each paper has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from chipfit.supernet.mixture import Relaxation, Softmax
from chipfit.supernet.search_state import SearchState
from chipfit.tasks.base import Batch


class SearchRule:
    """What one step of a search is; FBNet's by default, with the given relaxation.

    Args:
        relaxation: Of steps of the logits.
        weight_relaxation: Of steps of the weights; the same where ``None``.
    """

    #: Names of its functions that need what only one process has, such as a cost table: where
    #: several search together, the first computes them and tells the others.
    told: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, relaxation: Relaxation | None = None, weight_relaxation: Relaxation | None = None
    ) -> None:
        self.relaxation = relaxation or Softmax()
        self.weight_relaxation = weight_relaxation or self.relaxation

    def weight_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the weights on a batch of the first half; return the loss."""
        state.supernet.draw(self.weight_relaxation, state.temperature, state.noise(0))
        return state.weight_step(batch)

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the logits on a batch of the second half; return the task's loss."""
        state.supernet.draw(self.relaxation, state.temperature, state.noise(1))
        state.architecture_optimizer.zero_grad(set_to_none=True)
        loss = state.loss(batch)
        state.pressure(loss, state.supernet.probabilities()).backward()
        state.architecture_optimizer.step()
        state.pressure.update(state.supernet.probabilities())
        return loss.item()

    def after(self, state: SearchState) -> None:
        """Do what is due between two steps, such as pruning; nothing by default."""

    def facts(self) -> dict[str, Any]:
        """Return the rule's own state as JSON, for checkpoints."""
        return {}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`facts` returned."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the rule's own tensors, for checkpoints."""
        return {}

    def restore_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned."""
