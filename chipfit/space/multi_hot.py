# SPDX-License-Identifier: Apache-2.0
"""``MultiHotChoice``: several of some named members are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from chipfit.errors import BadInput
from chipfit.space.choice import Choice

#: More subsets than this are refused: they are listed as options.
MOST_OPTIONS = 1 << 16


@dataclass(frozen=True, init=False)
class MultiHotChoice(Choice):
    """A decision about a subset of named members, such as the branches of a block.

    Its options are the subsets as sorted tuples, smaller ones first.

    Args:
        name: What is decided.
        members: Names of what can be taken.
        least: At least so many are taken.
        most: At most so many; ``None`` allows all.

    Raises:
        BadInput: Members repeat, the bounds exclude each other, or there are too many subsets.

    >>> MultiHotChoice("edges", ("a", "b", "c"), 2, 2).options
    (('a', 'b'), ('a', 'c'), ('b', 'c'))
    """

    members: tuple[str, ...] = ()
    least: int = 0
    most: int = 0

    def __init__(
        self, name: str, members: Sequence[str], least: int = 0, most: int | None = None
    ) -> None:
        most = len(members) if most is None else most
        if not members or len(set(members)) < len(members):
            raise BadInput(f"{name} needs members of different names")
        if not 0 <= least <= most <= len(members):
            raise BadInput(f"{name}: {least} to {most} of {len(members)} members cannot be taken")
        sizes = range(least, most + 1)
        if sum(math.comb(len(members), size) for size in sizes) > MOST_OPTIONS:
            raise BadInput(
                f"{name} has more than {MOST_OPTIONS} subsets",
                "split it into several choices with a GroupBudget over them",
            )
        ordered = sorted(members)
        options = tuple(option for size in sizes for option in combinations(ordered, size))
        super().__init__(name, options)
        object.__setattr__(self, "members", tuple(members))
        object.__setattr__(self, "least", least)
        object.__setattr__(self, "most", most)

    def option(self, value: Any) -> tuple[str, ...]:
        """Return members in any order as an option.

        Raises:
            BadInput: A member is unknown or twice there, or they are too few or too many.
        """
        try:
            found = tuple(sorted(value))
        except TypeError as error:
            raise BadInput(f"{self.name} takes names of members, not {value!r}") from error
        if found not in self.options:
            raise BadInput(
                f"{self.name} cannot be {value!r}",
                f"take {self.least} to {self.most} of {', '.join(self.members)}",
            )
        return found

    def near(self, option: Any) -> tuple[Any, ...]:
        """Return the options with one member more, one less, or one for another."""
        own = set(self.option(option))
        return tuple(
            o for o in self.options
            if set(o) != own and len(own - set(o)) <= 1 and len(set(o) - own) <= 1
        )  # fmt: skip

    def count(self, option: Any) -> int:
        """Return the number of members in an option."""
        return len(option)

    def restricted(self, allowed: Iterable[str]) -> MultiHotChoice:
        """Return the choice among the allowed members alone.

        Raises:
            BadInput: One of them is no member, or fewer are allowed than must be taken.
        """
        kept = set(allowed)
        unknown = sorted(kept - set(self.members))
        if unknown:
            raise BadInput(f"{self.name} has no member {', '.join(unknown)}")
        members = tuple(m for m in self.members if m in kept)
        if not members or len(members) < self.least:
            raise BadInput(f"too little would be left of {self.name}, which takes {self.least}")
        return MultiHotChoice(self.name, members, self.least, min(self.most, len(members)))

    @property
    def width(self) -> int:
        """Places that the choice takes in a flat vector: one per member."""
        return len(self.members)

    def bits(self, option: Any) -> list[int]:
        """Return one 1 or 0 per member, in the order of :attr:`members`."""
        taken = self.option(option)
        return [int(member in taken) for member in self.members]

    def from_bits(self, bits: Sequence[float]) -> tuple[str, ...]:
        """Return the members whose value is at least one half, as an option.

        Raises:
            BadInput: They are too few or too many.
        """
        return self.option([m for m, bit in zip(self.members, bits, strict=True) if bit >= 0.5])
