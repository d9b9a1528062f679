# SPDX-License-Identifier: Apache-2.0
"""``WidthRule``: RARTS's step with channel gates as architecture parameters.

Xue, Qi and Xin, IEEE Access 2022, arXiv 2008.03901, also search widths; the form here, a
cost-weighted l1 penalty by proximal steps, is our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from chipfit.supernet.bilevel import Loss
from chipfit.supernet.bilevel_rules import RartsRule
from chipfit.supernet.channel_gates import ChannelGates
from chipfit.supernet.search_state import SearchState
from chipfit.tasks.base import Batch


class WidthRule(RartsRule):
    """Weights, their copy and gates in turn; after each, gates shrink by what channels cost.

    Args:
        gates: The network.
        prices: By group, what a channel costs, 1 on average.
        shrinkage: How far the penalty alone would bring a gate of price 1 towards 0 in the whole
            search: 1 closes it.
        train_weight: As in :class:`RartsRule`.
        coupling: Likewise.
        fresh: Likewise.
    """

    def __init__(
        self,
        gates: ChannelGates,
        prices: Sequence[float],
        shrinkage: float,
        train_weight: float = 10.0,
        coupling: float = 10.0,
        fresh: bool = True,
    ) -> None:
        super().__init__(train_weight, coupling, fresh)
        self._gates, self._prices, self._shrinkage = gates, tuple(prices), shrinkage

    def loss_on(self, state: SearchState, batch: Batch) -> Loss:
        """Return the task's loss with the gates as they are."""
        return lambda: state.loss(batch)

    def weight_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the weights, unless the step of the gates before has done so."""
        done, self._train_loss = self._train_loss, None
        if done is not None:
            return done
        return state.weight_step(batch)

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the copy, the weights and the gates; return the validation loss."""
        found = super().architecture_step(state, batch)
        settings = state.settings
        steps = settings.steps * (1.0 - settings.warmup) / settings.every
        self._gates.shrink([self._shrinkage * price / steps for price in self._prices])
        return found
