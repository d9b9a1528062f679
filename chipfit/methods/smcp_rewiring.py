# SPDX-License-Identifier: Apache-2.0
"""SMCP's rewiring: importance from gradients, a grouped knapsack on the target's costs, masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from chipfit.allocate import Allocation, solve_coupled
from chipfit.methods.smcp_schedule import PruningSchedule
from chipfit.methods.space_costs import Codes, Values
from chipfit.scores.channel_importance import keep_most_important, taylor_sums
from chipfit.supernet.soft_masks import SoftMasks

#: How importances of batches become one: a running average with momentum 0.9, the mean since the
#: last rewiring, or the last batch alone.
AVERAGES = ("momentum", "mean", "latest")
MOMENTUM = 0.9
#: What a masked channel is worth: the absolute value of its first-order term, as in the paper; or
#: what it would take off the loss by coming back, nothing where it would raise the loss (our
#: variant: with absolute values the channels whose return does most harm come back).
IMPORTANCES = ("signed", "absolute")
#: Rounds of linearising that one rewiring takes.
ROUNDS = 2
#: Never what stops a solver: results must not depend on how fast the machine is.
TIME_LIMIT_S = 1e6


class WidthPrices(Protocol):
    """Widths of every group and their costs; :class:`chipfit.methods.width_table.WidthTable`."""

    @property
    def options(self) -> Sequence[Sequence[int]]:
        """Widths of every group, ascending; the last is its own."""
        ...

    def many(self, keys: Sequence[str]) -> Callable[[Codes], Values]:
        """Return the function from option indices ``(N, groups)`` to costs ``(N, keys)``."""
        ...


Solver = Callable[[list[Values], Callable[[Codes], Values], list[float], Sequence[int]], Allocation]


def knapsack(
    values: list[Values], cost_of: Callable[[Codes], Values], budgets: list[float],
    start: Sequence[int],
) -> Allocation:  # fmt: skip
    """Choose widths of highest total importance within budgets on the true costs."""
    return solve_coupled(values, cost_of, budgets, start, ROUNDS, time_limit_s=TIME_LIMIT_S)


class Rewiring:
    """What happens between the gradients of a step and its update.

    Args:
        masks: Of the network in training.
        prices: Of all widths.
        schedule: When, and how tight.
        start: Costs before the schedule, by key.
        end: Bounds after it.
        decay: SR-STE's, of masked weights; 0 for none.
        average: One of :data:`AVERAGES`.
        importance: One of :data:`IMPORTANCES`.
        revival: Factor on the signed worth of masked channels, which first-order terms overrate.
        solver: Chooses widths.
        on_rewired: Called after a rewiring with its facts.
    """

    def __init__(
        self, masks: SoftMasks, prices: WidthPrices, schedule: PruningSchedule,
        start: Mapping[str, float], end: Mapping[str, float], *, decay: float = 0.0,
        average: str = "momentum", importance: str = "signed", revival: float = 0.5,
        solver: Solver = knapsack,
        on_rewired: Callable[[Mapping[str, Any]], None] = lambda facts: None,
    ) -> None:  # fmt: skip
        self.masks, self.prices, self.schedule = masks, prices, schedule
        self.start, self.end = dict(start), dict(end)
        self.decay, self.average, self.solver = decay, average, solver
        self.importance, self.revival = importance, revival
        self.on_rewired = on_rewired
        if "soft_counts" not in masks.net._buffers:
            #: Batches since the last rewiring, channels revived in all: part of the checkpoint.
            masks.net.register_buffer("soft_counts", torch.zeros(2, dtype=torch.int64))

    @property
    def revived(self) -> int:
        """How many channels came back so far, each time counted."""
        return int(self._counts[1])

    @property
    def _counts(self) -> torch.Tensor:
        return self.masks.net.get_buffer("soft_counts")

    def __call__(self, step: int) -> None:
        """Take the gradients of a step into account, and rewire where it is time."""
        if step <= self.schedule.last:
            self._accumulate()
        if self.decay:
            self.masks.decay_(self.decay)
        if self.schedule.rewires(step):
            limits = self.schedule.limits(step, self.start, self.end)
            self.on_rewired({"step": step, **self.rewire(limits)})

    @torch.no_grad()
    def _accumulate(self) -> None:
        weights = self.masks.weights()
        gradients = {place: weight.grad for place, weight in weights.items()}
        seen = int(self._counts[0])
        kept = self.masks.kept
        for name, total in self.masks.importance.items():
            sums = taylor_sums(self.masks.readers[name], weights, gradients).to(total.device)
            gone = torch.ones(len(total), dtype=torch.bool, device=total.device)
            gone[list(kept[name])] = False
            found = sums.abs()
            if self.importance == "signed":
                found[gone] = self.revival * sums[gone].clamp_min(0.0)
            if self.average == "latest":
                total.copy_(found)
            elif self.average == "mean":
                total.add_((found - total) / (seen + 1))
            else:
                total.mul_(MOMENTUM).add_(found, alpha=1.0 - MOMENTUM)
            if self.masks.mode == "permanent":
                total[gone] = 0.0
        self._counts[0] += 1

    def rewire(self, limits: Mapping[str, float]) -> dict[str, Any]:
        """Choose widths and channels within ``limits`` and mask the others.

        Returns:
            ``limits``, ``cost`` by key, ``widths`` by group, ``revived`` and ``masked`` channels.

        Raises:
            InfeasibleBudget: No widths within the limits were found.
        """
        importance, kept = self.masks.importance, self.masks.kept
        names, keys = list(importance), list(limits)
        options = self.prices.options
        values = [_kept_value(importance[n], own) for n, own in zip(names, options, strict=True)]
        start = [_at_most(own, len(kept[n])) for n, own in zip(names, options, strict=True)]
        found = self.solver(values, self.prices.many(keys), [limits[k] for k in keys], start)
        chosen = {}
        for name, own, option in zip(names, options, found.choice, strict=True):
            among = kept[name] if self.masks.mode == "permanent" else range(len(importance[name]))
            width = min(own[option], len(among))
            chosen[name] = keep_most_important(importance[name], width, among)
        revived = self.masks.keep(chosen)
        self._counts[0] = 0
        self._counts[1] += revived
        return {
            "limits": dict(limits), "cost": dict(zip(keys, found.cost, strict=True)),
            "widths": {name: len(own) for name, own in chosen.items()}, "revived": revived,
            "masked": sum(len(importance[n]) - len(own) for n, own in chosen.items()),
        }  # fmt: skip


def _kept_value(importance: torch.Tensor, widths: Sequence[int]) -> Values:
    """Return the importance that is kept at each width, the channels of highest first."""
    ordered = np.sort(importance.cpu().numpy())[::-1]
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    return sums[list(widths)]


def _at_most(widths: Sequence[int], width: int) -> int:
    """Return the option of the largest width that is no larger than ``width``."""
    return max([i for i, option in enumerate(widths) if option <= width], default=0)
