# SPDX-License-Identifier: Apache-2.0
"""Finding out which choices of a search space the unit of each layer depends on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from chipfit.cost.slot import Row, Slot, merged_order
from chipfit.errors import BadInput

#: Random architectures from which every choice is varied.
BASES = 3
#: Random architectures in a row that must agree with what was found: a dependence that was missed
#: then shows, with 95 % confidence, in less than 6 % of architectures.
AGREEING = 50


class Dependences:
    """The layers of a space and the choices that matter to each.

    They are found by varying one choice at a time, from random architectures, and then by trying
    random architectures until :data:`AGREEING` in a row teach nothing. Two architectures that take
    the same options as far as a layer is known to depend on any, but give it different units, show
    a choice that was missed: it is found by walking from one to the other.

    Args:
        sizes: Numbers of options of all choices.
        keys_of: Builds an architecture and returns the key of each layer's unit, by layer, in the
            order of execution.
        seed: Of the random architectures.
    """

    def __init__(
        self, sizes: Sequence[int], keys_of: Callable[[Row], dict[str, str]], seed: int
    ) -> None:
        self._sizes = tuple(sizes)
        self._ask = keys_of
        self._rng = random.Random(seed)
        self._keys: dict[Row, dict[str, str]] = {}
        self._learned: dict[Row, None] = {}
        self._sequences: dict[tuple[str, ...], None] = {}
        #: One per layer of any architecture.
        self.slots: list[Slot] = []

    def find(self) -> None:
        """Vary choices one at a time, then try random architectures until they agree."""
        for _ in range(BASES):
            base = self._random_row()
            for choice, size in enumerate(self._sizes):
                for option in range(size):
                    self.learn((*base[:choice], option, *base[choice + 1 :]))
        self.agree(self._random_row() for _ in count())
        self.sort()

    def agree(self, rows: Iterable[Row]) -> int:
        """Take in rows until enough of them in a row teach nothing; return how many it took."""
        taken = agreed = 0
        for row in rows:
            taken += 1
            agreed = 0 if self.learn(row) else agreed + 1
            if agreed == AGREEING:
                break
        return taken

    def sort(self) -> None:
        """Bring the layers into the order of execution."""
        order = merged_order(list(self._sequences))
        self.slots.sort(key=lambda slot: order[slot.name])

    def learn(self, row: Row) -> bool:
        """Take in an architecture; return whether a layer turned out to depend on more choices."""
        keys = self._keys_of(row)
        known = {slot.name for slot in self.slots}
        for name in keys:
            if name not in known:
                slot = Slot(name, self._sizes)
                self.slots.append(slot)
                if self._learned:  # it was absent so far
                    slot.observe(next(iter(self._learned)), None)
        self._learned[row] = None
        self._sequences[tuple(keys)] = None
        widened = False
        for slot in self.slots:
            clash = slot.observe(row, keys.get(slot.name))
            latest = row
            while clash is not None:
                slot.depend(self._cause(slot.name, clash, latest))
                widened = True
                for latest in self._learned:
                    clash = slot.observe(latest, self._keys[latest].get(slot.name))
                    if clash is not None:
                        break
        return widened

    def _cause(self, name: str, one: Row, other: Row) -> int:
        """Return a choice that changes the unit of layer ``name`` between two architectures."""
        before = self._keys_of(one).get(name)
        for choice, option in enumerate(other):
            if one[choice] != option:
                one = (*one[:choice], option, *one[choice + 1 :])
                if self._keys_of(one).get(name) != before:
                    return choice
        raise BadInput(f"the network of one architecture differs from call to call, at {name}")

    def _keys_of(self, row: Row) -> dict[str, str]:
        if row not in self._keys:
            self._keys[row] = self._ask(row)
        return self._keys[row]

    def _random_row(self) -> Row:
        return tuple(self._rng.randrange(size) for size in self._sizes)
