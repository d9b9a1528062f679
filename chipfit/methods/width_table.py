# SPDX-License-Identifier: Apache-2.0
"""``WidthTable``: what any width of any channel group costs, from the look-up table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.channels import ChannelGroup
from chipfit.methods.base import Problem
from chipfit.methods.reach import cost_text, require_predicted
from chipfit.methods.space_costs import Codes, SpaceCosts, Values
from chipfit.methods.widths import WidthPricer
from chipfit.space.choice import Choice, SearchSpace
from chipfit.space.widths import width_space


def thinned_widths(groups: Sequence[ChannelGroup], alignment: int, most: int) -> SearchSpace:
    """Return the widths that the target likes, at most so many of each group, evenly spread.

    Every width of two coupled layers is a price of its own, which some targets compile or measure.

    Args:
        groups: Channel groups of the network; those that cannot change are left out.
        alignment: The target's.
        most: 2 or more; 0 for all.

    Raises:
        BadInput: No group can change, or ``most`` is 1 or negative.
    """
    space = width_space(groups, alignment)
    if most < 0 or most == 1:
        raise BadInput(f"{most} widths of each group leave no choice", "2 or more, or 0 for all")
    if not most:
        return space
    return SearchSpace(tuple(Choice(c.name, _spread(c.options, most), ordered=True) for c in space))


class WidthTable(SpaceCosts):
    """Costs of architectures whose choices are the widths of channel groups.

    Architectures are rows of option indices, a column per choice of the space. ``of(key)(codes)``
    gives the costs of ``(N, choices)`` codes, ``(N,)``: latency, cycles and energy as sums of
    prices from the table, which are looked up once (absent ones are priced through the problem's
    pool); multiply-accumulates, parameters and weight bytes counted layer by layer, exactly; any
    other figure, such as peak memory, network by network.

    Args:
        problem: Gives network, target and table.
        groups: Its channel groups.
        space: One ordered choice of widths, ascending, per group that may change, by its name; the
            last option is the group's own width.
    """

    def __init__(
        self, problem: Problem, groups: Sequence[ChannelGroup], space: SearchSpace
    ) -> None:
        self._problem = problem
        self.space = space
        by_name = {group.name: group for group in groups}
        #: The groups of the choices, in their order.
        self.groups = [by_name[choice.name] for choice in space]
        self.pricer = WidthPricer(problem, groups)
        self.workload = self.pricer.workload  # type: ignore[assignment]
        self._functions, self._vectorised, self._expectations = {}, {}, {}

    @property
    def full(self) -> tuple[int, ...]:
        """The network as it is, as option indices."""
        return tuple(len(choice.options) - 1 for choice in self.space)

    @property
    def options(self) -> list[tuple[int, ...]]:
        """Widths of every group, ascending, in the order of the choices."""
        return [tuple(choice.options) for choice in self.space]

    def widths(self, row: Sequence[int] | Codes) -> dict[str, int]:
        """Return the width of every group in one row of option indices."""
        return {c.name: int(c.options[int(i)]) for c, i in zip(self.space, row, strict=True)}

    def rows(self, widths: Iterable[Mapping[str, int]]) -> Codes:
        """Return option indices ``(N, choices)`` of widths by group; absent groups stay whole.

        Raises:
            ValueError: A width is none of its group's options.
        """
        found = [
            [c.options.index(one.get(c.name, c.options[-1])) for c in self.space] for one in widths
        ]
        return np.array(found, np.int64).reshape(len(found), len(self.full))

    def many(self, keys: Sequence[str]) -> Callable[[Codes], Values]:
        """Return the function from codes ``(N, choices)`` to costs ``(N, keys)``."""
        functions = [self.of(key) for key in keys]
        return lambda codes: np.stack([function(codes) for function in functions], axis=1)

    def changes(self, step: int, row: Sequence[int]) -> list[dict[str, Any]]:
        """Return what each narrower group saved, for reports.

        Costs of neighbours depend on each other: savings are told in order, and add up.

        Args:
            step: Number of the step that chose them.
            row: Option indices of all groups.
        """
        changed = [b for b, i in enumerate(row) if i != self.full[b]]
        path = [
            tuple(row[b] if b in changed[:n] else i for b, i in enumerate(self.full))
            for n in range(len(changed) + 1)
        ]
        spent = self.networks(path)
        found = []
        for n, b in enumerate(changed):
            choice = self.space.choices[b]
            saved = {
                f"{key}_saved": spent[n][key] - value
                for key, value in spent[n + 1].values.items()
                if key in spent[n]
            }
            found.append({"step": step, "group": choice.name, "from": choice.options[-1],
                          "to": choice.options[row[b]], **saved})  # fmt: skip
        return found

    def cheapest(self) -> tuple[int, ...]:
        """Return the narrowest network, as option indices."""
        return (0,) * len(self.full)

    def check(self) -> None:
        """Refuse a budget that the narrowest network is over.

        Raises:
            BadInput: The budget bounds what is not predicted on the target.
            InfeasibleBudget: The message says what the narrowest network costs.
        """
        narrowest = self.networks([(0,) * len(self.full)])[0]
        require_predicted(self._problem, narrowest)
        if self._problem.budget.met(narrowest):
            return
        cheapest = self.networks([self.cheapest()])[0]
        if not self._problem.budget.met(cheapest):
            raise InfeasibleBudget(
                f"the budget {self._problem.budget} cannot be met by widths: the narrowest network "
                f"costs {cost_text(cheapest, self._problem.budget)}",
                "the original costs "
                f"{cost_text(self._problem.original_cost, self._problem.budget)}",
            )


def width_table(problem: Problem, groups: Sequence[ChannelGroup], space: SearchSpace) -> WidthTable:
    """Return the costs of a width space, the same object wherever the same is asked again."""
    wanted = (tuple(groups), space, problem.calibration)
    return problem.once("width_tables", wanted, lambda: WidthTable(problem, groups, space))


def _spread(options: Sequence[int], most: int) -> tuple[int, ...]:
    if len(options) <= most:
        return tuple(options)
    return tuple(options[round(i * (len(options) - 1) / (most - 1))] for i in range(most))
