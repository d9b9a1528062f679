# SPDX-License-Identifier: Apache-2.0
"""Which networks ``auto`` tries next: the best by the present weights, and those next to the best.

A network next to another has one choice changed, for better or worse, and all others allocated
anew around that: a block that goes leaves its time to the rest of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from chipfit.allocate import solve_coupled
from chipfit.errors import InfeasibleBudget
from chipfit.methods.joint_table import JointTable
from chipfit.methods.space_costs import Codes, Values

#: Moves of two groups that are priced in one step: prices may have to be compiled or measured.
PAIRS = 16
#: Rounds of linearising from each start.
ROUNDS = 2
#: Changes of one choice that are followed up, for each network that may be tried.
FOLLOWED = 4

Row = tuple[int, ...]


class Proposer:
    """Allocates under the limits of one member of the family.

    Args:
        table: Costs of all choices.
        limits: By figure.
    """

    def __init__(self, table: JointTable, limits: Mapping[str, float]) -> None:
        self._table, self._limits = table, dict(limits)
        self._cost_of = table.many(list(limits))

    def best(self, values: Sequence[Values], start: Row | None = None, rounds: int = ROUNDS) -> Row:
        """Return the row of the highest value within the limits.

        Args:
            values: Of every option of every choice, higher is better; ``-inf`` forbids one.
            start: Where to look from; from several places where ``None``.
            rounds: Of linearising.

        Raises:
            InfeasibleBudget: None was found.
        """
        found = solve_coupled(
            values, self._cost_of, list(self._limits.values()), start, rounds,
            names=list(self._limits), pairs=PAIRS, everywhere=start is None,
            time_limit_s=math.inf,  # what is chosen must not depend on how busy the machine is
        )  # fmt: skip
        return tuple(int(i) for i in found.choice)

    def around(self, row: Row, values: Sequence[Values], most: int) -> list[Row]:
        """Return networks to try next, the most valuable first; ``row`` itself may be one.

        Args:
            row: Within the limits.
            values: Of every option of every choice.
            most: That will be tried; more are returned.
        """
        found = {self.best(values, row), self.best(values)}
        for choice, option in self._changes(row, values)[: FOLLOWED * most]:
            there = np.arange(len(values[choice])) == option
            only = list(values)
            only[choice] = np.where(there, values[choice], -np.inf)
            start = (*row[:choice], option, *row[choice + 1 :])
            try:
                found.add(self.best(only, start, rounds=1))
            except InfeasibleBudget:
                continue
        return sorted(found, key=lambda own: (-worth(values, own), own))

    def _changes(self, row: Row, values: Sequence[Values]) -> list[tuple[int, int]]:
        """Return changes of one choice, first what should pay best.

        Widths go one step up or down, blocks to any operation. What a change saves is worth what
        it usually takes to save as much.
        """
        found: list[tuple[int, int]] = []
        for at, choice in enumerate(self._table.space):
            near = (row[at] - 1, row[at] + 1) if choice.ordered else range(len(choice.options))
            found += [(at, i) for i in near if 0 <= i < len(choice.options) and i != row[at]]
        if not found:
            return []
        rows: Codes = np.repeat(np.array([row], np.int64), len(found), axis=0)
        rows[np.arange(len(found)), [at for at, _ in found]] = [option for _, option in found]
        limits = np.array(list(self._limits.values()))
        now = self._cost_of(np.array([row], np.int64))
        dearer = ((self._cost_of(rows) - now) / limits).sum(axis=1)
        better = np.array([values[at][i] - values[at][row[at]] for at, i in found])
        moved = dearer != 0
        price = np.median(np.abs(better[moved] / dearer[moved])) if moved.any() else 0.0
        order = np.argsort(-(better - price * dearer), kind="stable")
        return [found[int(i)] for i in order]


def worth(values: Sequence[Values], row: Row) -> float:
    """Return the value of a row."""
    return float(sum(own[i] for own, i in zip(values, row, strict=True)))
