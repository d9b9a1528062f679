# SPDX-License-Identifier: Apache-2.0
"""``KeepRatioRule``: weights and keep ratios in turn, under bounds that tighten, then frozen.

Our variant of what Liberis and Lane do on microcontrollers, "Differentiable Network Pruning for
Microcontrollers", IMWUT 2022, arXiv 2110.08350: resources are functions of layer sizes, and a loss
with a term for each that is over its bound trains masks of 0 and 1 together with the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.supernet.keep_ratio_network import KeepRatios
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.tasks.base import Batch

#: By group, the salience of every channel of a network.
Salience = Callable[[nn.Module], Sequence[Tensor]]
#: From widths and saliences to the channels of each group that stay for good.
Decide = Callable[[Tensor, Sequence[Tensor]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class KeepRatioSchedule:
    """When bounds and masks become what they end as.

    Args:
        start: By key of cost, of the whole network.
        end: The budget, by the same keys.
        tighten: Share of the steps after which bounds are the budget's; before, they fall to it
            geometrically.
        freeze: Share of the steps after which masks are frozen at the latest.
        steepness: Of keep probabilities, at the first step and when masks are frozen.

    Raises:
        BadInput: A setting is out of range.
    """

    start: Mapping[str, float]
    end: Mapping[str, float]
    tighten: float = 0.5
    freeze: float = 0.75
    steepness: tuple[float, float] = (2.0, 16.0)

    def __post_init__(self) -> None:
        if not 0 <= self.tighten <= self.freeze <= 1 or min(self.steepness) <= 0:
            raise BadInput(
                f"tighten={self.tighten}, freeze={self.freeze}, steepness={self.steepness}",
                "0 <= tighten <= freeze <= 1, and a steepness above 0",
            )

    def bounds_at(self, share: float) -> dict[str, float]:
        """Return the bounds after a share of the steps."""
        done = min(1.0, share / self.tighten) if self.tighten else 1.0
        return {
            key: max(end, self.start[key]) ** (1.0 - done) * end**done
            for key, end in self.end.items()
        }

    def steepness_at(self, share: float) -> float:
        """Return the steepness of keep probabilities after a share of the steps."""
        done = min(1.0, share / self.freeze) if self.freeze else 1.0
        first, last = self.steepness
        return float(first ** (1.0 - done) * last**done)


class KeepRatioRule(SearchRule):
    """One step of the weights, and now and then one of the ratios, until masks are frozen.

    Args:
        network: Under training.
        schedule: Of bounds and masks.
        salience: Of the channels, from the weights as they are.
        decide: Rounds the ratios and repairs what rounding put over the budget.
    """

    def __init__(
        self, network: KeepRatios, schedule: KeepRatioSchedule, salience: Salience, decide: Decide
    ) -> None:
        super().__init__()
        self._network, self._schedule = network, schedule
        self._salience, self._decide = salience, decide

    def weight_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the weights with the masks as they are; return the loss."""
        return state.weight_step(batch)

    def architecture_step(self, state: SearchState, batch: Batch) -> float:
        """Take one step of the ratios under the present bounds; return the task's loss.

        Where masks are frozen nothing is left to learn, and the last loss is returned.
        """
        network, share = self._network, state.step / state.settings.steps
        if network.frozen:
            return state.losses.get("val_loss", 0.0)
        state.pressure.bounds = self._schedule.bounds_at(share)
        salience = self._salience(network.net)
        steepness = self._schedule.steepness_at(share)
        network.mask(salience, steepness)
        state.architecture_optimizer.zero_grad(set_to_none=True)
        loss = state.loss(batch)
        state.pressure(loss, network.probabilities()).backward()
        state.architecture_optimizer.step()
        state.pressure.update(network.probabilities())
        with torch.no_grad():
            network.mask(salience, steepness)
        return loss.item()

    def after(self, state: SearchState) -> None:
        """Freeze the masks where all resources are within the budget, or it is time."""
        network, done = self._network, (state.step + 1) / state.settings.steps
        if network.frozen or done < self._schedule.tighten:
            return
        with torch.no_grad():
            costs = state.pressure.expected(network.probabilities())
        within = all(costs[key] <= bound for key, bound in self._schedule.end.items())
        if within or done >= self._schedule.freeze:
            salience = self._salience(network.net)
            network.freeze(self._decide(network.widths().detach(), salience))
