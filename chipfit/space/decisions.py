# SPDX-License-Identifier: Apache-2.0
"""``Decisions``: what is free in a space once ties and budgets are counted in."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chipfit.errors import BadInput
from chipfit.space.architecture import Architecture
from chipfit.space.group_budget import GroupBudget

if TYPE_CHECKING:
    from chipfit.space.choice import Choice


@dataclass(frozen=True)
class Decision:
    """One free decision.

    Args:
        names: Of the choices that it decides; several where they are tied.
        choice: The first of them.
        group: Place of its budget among the space's, ``None`` without one.
    """

    names: tuple[str, ...]
    choice: Choice
    group: int | None

    def count(self, option: Any) -> int:
        """Return how many members of its budget an option takes, all tied choices together."""
        return len(self.names) * self.choice.count(option)


class Decisions:
    """The free decisions of a space, in the order of its choices.

    How many ways there are to complete a budget is counted once, so that sampling is exactly
    uniform and sizes are exact.

    Args:
        choices: As in :class:`~chipfit.space.choice.SearchSpace`.
        budgets: Likewise.
        ties: Likewise.

    Raises:
        BadInput: Names are unknown or in two groups, tied choices differ, or a budget cannot be
            met.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        budgets: Sequence[GroupBudget],
        ties: Sequence[Sequence[str]],
    ) -> None:
        self.budgets = tuple(budgets)
        by_name = {choice.name: choice for choice in choices}
        tie_of = _groups("tie", [tuple(tie) for tie in ties], by_name)
        group_of = _groups("budget", [budget.names for budget in budgets], by_name)
        decided: set[str] = set()
        self.free: list[Decision] = []
        for choice in choices:
            names = tuple(ties[tie_of[choice.name]]) if choice.name in tie_of else (choice.name,)
            if choice.name in decided:
                continue  # with the first of its tie
            decided.update(names)
            _check_tie(choice, [by_name[name] for name in names], group_of)
            self.free.append(Decision(names, choice, group_of.get(choice.name)))
        self.groups = [
            [i for i, d in enumerate(self.free) if d.group == g] for g in range(len(budgets))
        ]
        self._ways = [self._count(g) for g in range(len(budgets))]
        for budget, ways in zip(budgets, self._ways, strict=True):
            if not ways[0][0]:
                raise BadInput(
                    f"{budget.least} to {budget.most} members of {', '.join(budget.names[:5])} "
                    "cannot be taken together",
                    "widen the budget, or the bounds of the choices",
                )

    @property
    def size(self) -> int:
        """Number of architectures."""
        plain = math.prod(len(d.choice.options) for d in self.free if d.group is None)
        return plain * math.prod(ways[0][0] for ways in self._ways)

    def first(self) -> Architecture:
        """Return the first option everywhere that a budget can be met with."""
        return self._pick(lambda options, ways: next(o for o, w in zip(options, ways) if w))

    def last(self) -> Architecture:
        """Return the last option everywhere that a budget can be met with."""
        return self._pick(
            lambda options, ways: next(o for o, w in zip(options[::-1], ways[::-1]) if w)
        )

    def sample(self, rng: random.Random) -> Architecture:
        """Return a uniformly random architecture."""

        def draw(options: tuple[Any, ...], ways: list[int]) -> Any:
            if len(set(ways)) == 1:
                return rng.choice(options)
            left = rng.randrange(sum(ways))
            for option, own in zip(options, ways, strict=True):
                if left < own:
                    return option
                left -= own
            raise AssertionError("randrange lies below the sum")

        return self._pick(draw)

    def all(self) -> Iterator[Architecture]:
        """Return all architectures, the last decision changing fastest."""
        yield from self._all(0, {}, [0] * len(self.budgets))

    def check(self, values: Mapping[str, Any]) -> None:
        """Check ties and budgets of options by name.

        Raises:
            BadInput: Tied choices differ, or a budget is not kept.
        """
        for decision in self.free:
            if any(values[n] != values[decision.names[0]] for n in decision.names):
                raise BadInput(f"{', '.join(decision.names)} are tied, but differ")
        for g, budget in enumerate(self.budgets):
            if not self._kept(g, values):
                raise BadInput(
                    f"{self.used(g, values)} members of {', '.join(budget.names[:5])}",
                    f"take {budget.least} to {budget.most} in all",
                )

    def kept(self, values: Mapping[str, Any]) -> bool:
        """Return whether all budgets are kept."""
        return all(self._kept(g, values) for g in range(len(self.budgets)))

    def used(self, group: int, values: Mapping[str, Any]) -> int:
        """Return the members that a budget's choices take together."""
        return sum(self.free[i].count(self.taken(i, values)) for i in self.groups[group])

    def taken(self, index: int, values: Mapping[str, Any]) -> Any:
        """Return the option that a decision has."""
        return values[self.free[index].names[0]]

    def put(self, values: dict[str, Any], index: int, option: Any) -> None:
        """Take an option for a decision, in all choices that it decides."""
        for name in self.free[index].names:
            values[name] = option

    def redraw(self, group: int, values: dict[str, Any], rng: random.Random) -> None:
        """Draw all decisions of a budget anew, uniformly."""
        drawn = self.sample(rng)
        for i in self.groups[group]:
            self.put(values, i, drawn[self.free[i].names[0]])

    def _kept(self, group: int, values: Mapping[str, Any]) -> bool:
        budget = self.budgets[group]
        return budget.least <= self.used(group, values) <= budget.most

    def _count(self, group: int) -> list[list[int]]:
        """Return ``ways[k][used]``: completions from the group's k-th decision on."""
        budget, indices = self.budgets[group], self.groups[group]
        ways = [[int(used >= budget.least) for used in range(budget.most + 1)]]
        for i in reversed(indices):
            decision = self.free[i]
            found = Counter(decision.count(option) for option in decision.choice.options)
            after = ways[0]
            own = [
                sum(n * after[used + c] for c, n in found.items() if used + c <= budget.most)
                for used in range(budget.most + 1)
            ]
            ways.insert(0, own)
        return ways

    def _ways_of(self, index: int, used: Sequence[int]) -> list[int]:
        """Return for every option of a decision how many ways there are to complete its budget."""
        decision = self.free[index]
        if decision.group is None:
            return [1] * len(decision.choice.options)
        after = self._ways[decision.group][self.groups[decision.group].index(index) + 1]
        now = used[decision.group]
        counts = [now + decision.count(option) for option in decision.choice.options]
        return [after[c] if c < len(after) else 0 for c in counts]

    def _pick(self, pick: Any) -> Architecture:
        values: dict[str, Any] = {}
        used = [0] * len(self.budgets)
        for i, decision in enumerate(self.free):
            option = pick(decision.choice.options, self._ways_of(i, used))
            self.put(values, i, option)
            if decision.group is not None:
                used[decision.group] += decision.count(option)
        return Architecture(values)

    def _all(self, index: int, values: dict[str, Any], used: list[int]) -> Iterator[Architecture]:
        if index == len(self.free):
            yield Architecture(values)
            return
        decision = self.free[index]
        ways = self._ways_of(index, used)
        for option, own in zip(decision.choice.options, ways, strict=True):
            if own:
                self.put(values, index, option)
                more = list(used)
                if decision.group is not None:
                    more[decision.group] += decision.count(option)
                yield from self._all(index + 1, values, more)


def _groups(
    kind: str, groups: Sequence[tuple[str, ...]], known: Mapping[str, Choice]
) -> dict[str, int]:
    """Return the group of every name; each may be in one of a kind."""
    found: dict[str, int] = {}
    for g, names in enumerate(groups):
        for name in names:
            if name not in known:
                raise BadInput(f"a {kind} names {name!r}, which is no choice of the space")
            if name in found:
                raise BadInput(f"{name} is in a {kind} twice", f"put it into one {kind}")
            found[name] = g
    return found


def _check_tie(first: Choice, tied: Sequence[Choice], group_of: Mapping[str, int]) -> None:
    for other in tied:
        same = type(other) is type(first) and other.ordered == first.ordered
        if not same or other.options != first.options:
            raise BadInput(f"{first.name} and {other.name} are tied, but have different options")
        if group_of.get(other.name) != group_of.get(first.name):
            raise BadInput(f"{first.name} and {other.name} are tied, but not in the same budget")
