# SPDX-License-Identifier: Apache-2.0
"""From learnt widths to widths that the device likes and the budget allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from chipfit.cost.cost import Cost
from chipfit.methods.mcu_resources import McuResources, Row
from chipfit.methods.width_table import WidthTable


def nearest_row(table: WidthTable, widths: Sequence[float]) -> Row:
    """Return the options nearest to widths, as indices; of two equally near ones the wider."""
    return tuple(
        min(range(len(c.options)), key=lambda i: (abs(c.options[i] - width), -c.options[i]))
        for c, width in zip(table.space, widths, strict=True)
    )


class WidthRepair:
    """Moves widths, an option of one group at a time, until their exact cost is within bounds.

    Args:
        table: The widths to choose from.
        resources: Their costs.
        limits: The budget; the narrowest network is within it.
        shares: By group, the share of its importance that each option keeps, ascending.
    """

    def __init__(
        self, table: WidthTable, resources: McuResources, limits: Mapping[str, float],
        shares: Sequence[Sequence[float]],
    ) -> None:  # fmt: skip
        self._table, self._resources, self._limits = table, resources, dict(limits)
        self._shares = shares

    def narrowed(self, row: Row) -> Row:
        """Return the row, or a narrower one that is within the bounds.

        The group goes down whose importance lost is least for what is saved of the excess. That is
        estimated by the differentiable costs, scaled so that they are exact where the row is; after
        every move the exact cost decides whether another is due.
        """
        while (excess := self._excess(row)) > 0:
            scale = self._scale(row)
            tries = [_moved(row, g, -1) for g in range(len(row)) if row[g]]
            saved = [excess - self._estimated(one, scale) for one in tries]
            lost = [self._share(row) - self._share(one) for one in tries]
            # Where no single width saves anything, what is lost least opens the way.
            worth = [
                (max(0.0, s) / max(n, 1e-9), -n, -i)
                for i, (s, n) in enumerate(zip(saved, lost, strict=True))
            ]
            row = tries[worth.index(max(worth))]
        return row

    def widened(self, row: Row, wanted: Sequence[float]) -> Row:
        """Return the row with groups widened as far as the bounds allow.

        Those go first that are furthest below what they want, in proportion.

        Args:
            row: Within the bounds.
            wanted: Learnt widths, by group.
        """
        full, options = self._table.full, [c.options for c in self._table.space]
        stuck: set[int] = set()
        while True:
            free = [g for g in range(len(row)) if row[g] < full[g] and g not in stuck]
            if not free:
                return row
            g = max(free, key=lambda g: (wanted[g] / options[g][row[g]], -g))
            wider = _moved(row, g, 1)
            if self._estimated(wider, self._scale(row)) > 0.05 or self._excess(wider) > 0:
                stuck.add(g)
            else:
                row = wider

    def _excess(self, row: Row) -> float:
        cost: Cost = self._resources.exact([row])[0]
        return sum(max(0.0, cost[key] / v - 1.0) for key, v in self._limits.items())

    def _estimated(self, row: Row, scale: Mapping[str, float]) -> float:
        found = self._modelled(row)
        return sum(max(0.0, scale[k] * found[k] / v - 1.0) for k, v in self._limits.items())

    def _scale(self, row: Row) -> dict[str, float]:
        """Return exact over modelled cost of a row, by key."""
        exact, found = self._resources.exact([row])[0], self._modelled(row)
        return {key: exact[key] / max(found[key], 1e-9) for key in self._limits}

    def _modelled(self, row: Row) -> dict[str, float]:
        widths = [c.options[i] for c, i in zip(self._table.space, row, strict=True)]
        point = torch.tensor(widths, dtype=torch.float64)
        with torch.no_grad():
            return {key: float(self._resources.of(key)(point)) for key in self._limits}

    def _share(self, row: Row) -> float:
        return sum(own[i] for own, i in zip(self._shares, row, strict=True))


def kept_shares(table: WidthTable, importance: Sequence[Tensor]) -> list[list[float]]:
    """Return by group the share of importance that each option keeps, its best channels first."""
    found = []
    for choice, values in zip(table.space, importance, strict=True):
        ordered = sorted(values.tolist(), reverse=True)
        total = math.fsum(ordered) or 1.0
        found.append([math.fsum(ordered[:width]) / total for width in choice.options])
    return found


def _moved(row: Row, g: int, by: int) -> Row:
    return (*row[:g], row[g] + by, *row[g + 1 :])
