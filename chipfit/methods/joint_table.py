# SPDX-License-Identifier: Apache-2.0
"""``JointTable``: what widths and replacements of blocks cost together, from the look-up table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chipfit.graph.channels import ChannelGroup
from chipfit.methods.base import Problem
from chipfit.methods.joint_space import BLOCK, JointSpace
from chipfit.methods.space_costs import Codes
from chipfit.methods.width_table import WidthTable
from chipfit.rewrite.replay import Rewrite
from chipfit.space.blocks import KEEP


class JointTable(WidthTable):
    """Costs of rows of option indices, as :class:`WidthTable`, of a :class:`JointSpace`.

    Args:
        problem: Gives network, target and table.
        groups: Its channel groups.
        joint: Their widths, and the replacements.
    """

    def __init__(self, problem: Problem, groups: Sequence[ChannelGroup], joint: JointSpace) -> None:
        self._problem, self.joint, self.space = problem, joint, joint.space
        by_name = {group.name: group for group in groups}
        self.groups = [by_name[choice.name] for choice in joint.space if choice.name in by_name]
        self.workload = joint.workload
        self._functions, self._vectorised, self._expectations = {}, {}, {}

    def widths(self, row: Sequence[int] | Codes) -> dict[str, int]:
        """Return the width of every group in one row of option indices."""
        return {name: int(value) for name, value in self.names(row).items() if not _block(name)}

    def replaced(self, row: Sequence[int] | Codes) -> dict[str, str]:
        """Return the operation of every block that is replaced in one row."""
        return {
            name.removeprefix(BLOCK): value
            for name, value in self.names(row).items()
            if _block(name) and value != KEEP
        }

    def cheapest(self) -> tuple[int, ...]:
        """Return the narrowest widths with the operations that are nearest to the budget.

        Blocks are gone through until none brings the network nearer: an operation that is listed
        first may cost more than the block's own narrow layers.
        """
        row, nearest = (0,) * len(self.full), float("inf")
        while (over := self._over([row])[0]) < nearest:
            nearest = over
            for at, choice in enumerate(self.space):
                if _block(choice.name):
                    every = range(len(choice.options))
                    tried = [(*row[:at], i, *row[at + 1 :]) for i in every]
                    row = tried[int(np.argmin(self._over(tried)))]
        return row

    def _over(self, rows: Sequence[tuple[int, ...]]) -> list[float]:
        """Return the largest cost of each network in units of its limit."""
        limits = self._problem.budget.limits
        return [max(cost[k] / v for k, v in limits.items()) for cost in self.networks(rows)]

    def edits(
        self, row: Sequence[int] | Codes, kept: Mapping[str, Sequence[int]]
    ) -> tuple[Rewrite, ...]:
        """Return the edits of one row that keep given channels of each group."""
        return self.joint.edits(self.names(row), kept)


def _block(name: str) -> bool:
    return name.startswith(BLOCK)
