# SPDX-License-Identifier: Apache-2.0
"""``Coding``: architectures of a search space as the rows that strategies work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chipfit.blackbox.order import Row
from chipfit.errors import BadInput
from chipfit.space.architecture import Architecture
from chipfit.space.choice import SearchSpace


class Coding:
    """Turns rows into architectures and back; choices that are tied share one place of a row.

    Args:
        space: What is searched.

    Raises:
        BadInput: It has a budget over several choices: most rows would break it.

    >>> from chipfit.space import Choice
    >>> coding = Coding(SearchSpace((Choice("depth", (1, 2)), Choice("width", (8, 16, 24)))))
    >>> coding.sizes, coding.architecture((1, 2))
    ((2, 3), Architecture({'depth': 2, 'width': 24}))
    """

    def __init__(self, space: SearchSpace) -> None:
        if space.budgets:
            raise BadInput(
                "the space has a budget over several choices, which rows cannot keep",
                "leave the budget out, and tell what breaks it as a violation",
            )
        self.space = space
        self._free = space.decisions.free
        #: Numbers of options: what a strategy is made with.
        self.sizes: Row = tuple(len(decision.choice.options) for decision in self._free)

    def architecture(self, row: Sequence[int]) -> Architecture:
        """Return the architecture of a row.

        Raises:
            BadInput: It has another length, or an option that is not there.
        """
        fits = len(row) == len(self.sizes) and all(
            0 <= option < size for option, size in zip(row, self.sizes, strict=True)
        )
        if not fits:
            raise BadInput(f"row {tuple(row)} does not fit choices of {self.sizes} options")
        pairs = list(zip(self._free, row, strict=True))
        options = {name: d.choice.options[int(i)] for d, i in pairs for name in d.names}
        return Architecture({choice.name: options[choice.name] for choice in self.space})

    def row(self, architecture: Mapping[str, Any]) -> Row:
        """Return the row of an architecture.

        Raises:
            BadInput: It is none of the space.
        """
        architecture = self.space.check(architecture)
        return tuple(d.choice.index(architecture[d.names[0]]) for d in self._free)
