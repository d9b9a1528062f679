# SPDX-License-Identifier: Apache-2.0
"""Widths that RARTS's gates choose from: what a channel costs, and which widths fit a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chipfit.graph.channels import ChannelGroup
from chipfit.methods.base import Problem
from chipfit.methods.space_costs import Values
from chipfit.methods.width_table import WidthTable, thinned_widths


class WidthCosts(WidthTable):
    """Prices of channels, and widths of high score within a budget.

    Args:
        problem: Gives network, target, table and budget.
        groups: Of the network; those that cannot change are left alone.
        most: Widths to choose from in a group, at most: evenly spread over what the target likes.

    Raises:
        BadInput: No group can change.
    """

    def __init__(self, problem: Problem, groups: Sequence[ChannelGroup], most: int) -> None:
        super().__init__(problem, groups, thinned_widths(groups, problem.target.alignment, most))

    def channel_prices(self) -> list[float]:
        """Return what a channel of each group costs, relative to the bounds, 1 on average.

        It is the mean over the channels that can go while the others stay.
        """
        limits = self._problem.budget.limits
        rows = [self.full]
        for b in range(len(self.full)):
            rows.append((*self.full[:b], 0, *self.full[b + 1 :]))
        whole, *found = self.networks(rows)
        prices = []
        for choice, cost in zip(self.space, found, strict=True):
            saved = sum(max(0.0, whole[key] - cost[key]) / v for key, v in limits.items())
            prices.append(saved / max(1, choice.options[-1] - choice.options[0]))
        channels = sum(choice.options[-1] for choice in self.space)
        total = sum(p * c.options[-1] for p, c in zip(prices, self.space, strict=True))
        return [p * channels / total if total else 1.0 for p in prices]

    def widest(
        self, scores: Sequence[Values], limits: Mapping[str, float], count: int
    ) -> list[tuple[int, ...]]:
        """Return widths of high total score within the limits, best first.

        From the whole network, the group that saves most of what is over the limits for the least
        score goes down one width at a time; then groups go up again while that fits. The others are
        one width away. Some hundred networks are priced, not all.

        Args:
            scores: By group, of each width, not falling.
            limits: By key of cost; the narrowest network is within them.
            count: Wanted at most.
        """
        row = self.full
        while self._excess([row], limits)[0] > 0:
            tries = [_moved(row, b, -1) for b in range(len(row)) if row[b]]
            found = self._excess([row, *tries], limits)
            gains = [found[0] - value for value in found[1:]]
            lost = [_score(scores, row) - _score(scores, one) for one in tries]
            # Where a width saves nothing it may still open the way for the next one.
            best = max(range(len(tries)), key=lambda i: (gains[i] / (lost[i] + 1e-9), -i))
            row = tries[best]
        while True:
            up = [_moved(row, b, 1) for b in range(len(row)) if row[b] < self.full[b]]
            now = _score(scores, row)
            near = sorted(_exchanges(row, self.full), key=lambda one: -_score(scores, one))
            better = [one for one in near if _score(scores, one) > now + 1e-9]
            inside = self._inside(up, limits) or self._inside(better, limits)
            if not inside:
                break
            row = max(inside, key=lambda one: _score(scores, one))
        return [row, *self._inside(near[: 4 * count], limits)][:count]

    def _excess(self, rows: Sequence[tuple[int, ...]], limits: Mapping[str, float]) -> list[float]:
        costs = self.networks(rows)
        return [sum(max(0.0, cost[k] / v - 1.0) for k, v in limits.items()) for cost in costs]

    def _inside(
        self, rows: Sequence[tuple[int, ...]], limits: Mapping[str, float]
    ) -> list[tuple[int, ...]]:
        over = self._excess(rows, limits) if rows else []
        return [row for row, excess in zip(rows, over, strict=True) if not excess]


def _moved(row: tuple[int, ...], b: int, by: int) -> tuple[int, ...]:
    return (*row[:b], row[b] + by, *row[b + 1 :])


def _exchanges(row: tuple[int, ...], full: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the rows in which one group is a width narrower and another one wider."""
    return [
        _moved(_moved(row, b, -1), c, 1)
        for b in range(len(row))
        for c in range(len(row))
        if b != c and row[b] and row[c] < full[c]
    ]


def _score(scores: Sequence[Values], row: Sequence[int]) -> float:
    return float(sum(own[i] for own, i in zip(scores, row, strict=True)))
