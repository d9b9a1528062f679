# SPDX-License-Identifier: Apache-2.0
"""``RandomOrder``: all architectures of a space in random order, however many there are."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

#: An architecture: the index of the option of every choice.
Row = tuple[int, ...]


class RandomOrder:
    """Draws rows uniformly without replacement, in time and memory of what was drawn.

    It is the shuffle of Fisher and Yates of which only the places that were touched are stored, so
    that a space of 10^27 architectures is no harder than one of ten, and the last row of a small
    space comes as readily as the first.

    Args:
        sizes: Numbers of options of all choices.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)
        self._left = math.prod(self._sizes)
        self._moved: dict[int, int] = {}

    def __len__(self) -> int:
        return self._left

    def draw(self, rng: random.Random) -> Row | None:
        """Return the next row; ``None`` after the last."""
        if not self._left:
            return None
        self._left -= 1
        place = rng.randrange(self._left + 1)
        number = self._moved.get(place, place)
        last = self._moved.pop(self._left, self._left)
        if place < self._left:
            self._moved[place] = last
        return self._row(number)

    def state_dict(self) -> dict[str, Any]:
        """Return a JSON-able form; the numbers may exceed 64 bits."""
        return {"left": self._left, "moved": [list(pair) for pair in self._moved.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self._left = int(state["left"])
        self._moved = {int(place): int(number) for place, number in state["moved"]}

    def _row(self, number: int) -> Row:
        digits = []
        for size in reversed(self._sizes):
            number, digit = divmod(number, size)
            digits.append(digit)
        return tuple(reversed(digits))
