# SPDX-License-Identifier: Apache-2.0
"""One layer of a search space: which choices its unit depends on, and its price for each option."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput

#: Up to this many combinations of options, prices stand in a full array; beyond, they are searched.
DENSE = 1 << 16
Row = tuple[int, ...]


class Slot:
    """A layer and what is known of it.

    Args:
        name: Of the layer.
        sizes: Numbers of options of all choices.
    """

    def __init__(self, name: str, sizes: Sequence[int]) -> None:
        self.name = name
        #: Indices of the choices that the layer's unit depends on, ascending.
        self.choices: tuple[int, ...] = ()
        self._sizes = tuple(int(size) for size in sizes)
        self._seen: dict[Row, tuple[str | None, Row]] = {}
        self._unpriced: dict[Row, str | None] = {}
        self._entries: dict[Row, float] = {}
        self._dense: NDArray[np.float64] | None = None
        self._codes: NDArray[np.int64] = np.empty(0, np.int64)
        self._values: NDArray[np.float64] = np.empty(0)

    def observe(self, row: Row, key: str | None) -> Row | None:
        """Take in the unit's key (``None``: no such layer) of an architecture.

        Returns:
            An earlier architecture that has the same options but another key: the layer depends on
            a choice that is not in :attr:`choices` yet.
        """
        options = tuple(row[i] for i in self.choices)
        known = self._seen.get(options)
        if known is None:
            self._seen[options] = (key, row)
            self._unpriced[options] = key
            return None
        return None if known[0] == key else known[1]

    def depend(self, choice: int) -> None:
        """Add a choice; what was observed is forgotten and must be told again.

        Raises:
            BadInput: There are more combinations than 64 bits count.
        """
        self.choices = tuple(sorted({*self.choices, choice}))
        self._seen, self._unpriced, self._entries, self._dense = {}, {}, {}, None
        self._codes, self._values = np.empty(0, np.int64), np.empty(0)
        if math.prod(self._sizes[i] for i in self.choices) >= 1 << 62:
            raise BadInput(
                f"the cost of {self.name} depends on {len(self.choices)} choices, too many"
                " combinations to count",
                "split the space, or give its choices fewer options",
            )

    def price(self, price_of: Callable[[str], float | None]) -> None:
        """Look up what is not priced yet; an absent layer costs 0, an absent price is NaN."""
        found: dict[Row, float] = {}
        for options, key in self._unpriced.items():
            price = 0.0 if key is None else price_of(key)
            if price is not None:
                found[options] = float(price)
        size = math.prod(self._sizes[i] for i in self.choices)
        if size <= DENSE and self._dense is None:
            self._dense = np.full(size, np.nan)
        if not found:
            return
        for options in found:
            del self._unpriced[options]
        self._entries |= found
        codes = np.array([self._code(options) for options in found], np.int64)
        values = np.array(list(found.values()), np.float64)
        if self._dense is not None:
            self._dense[codes] = values
        else:
            codes = np.concatenate([self._codes, codes])
            order = np.argsort(codes)
            self._codes = codes[order]
            self._values = np.concatenate([self._values, values])[order]

    def places(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the mixed-radix number of the options taken, ``(N,)``.

        Args:
            columns: Option indices, ``(choices, N)``.
        """
        found = np.zeros(columns.shape[1], np.int64)
        for i in self.choices:
            found *= self._sizes[i]
            found += columns[i]
        return found

    def prices(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the prices at :meth:`places`, ``(N,)``; NaN where they are absent."""
        if self._dense is not None:
            return self._dense[places]
        if not len(self._codes):
            return np.full(len(places), np.nan)
        at = np.minimum(np.searchsorted(self._codes, places), len(self._codes) - 1)
        return np.where(self._codes[at] == places, self._values[at], np.nan)

    def entries(self) -> Iterator[tuple[Row, float]]:
        """Yield the known prices with the option indices of :attr:`choices`."""
        yield from sorted(self._entries.items())

    def _code(self, options: Row) -> int:
        code = 0
        for i, option in zip(self.choices, options, strict=True):
            code = code * self._sizes[i] + option
        return code


def merged_order(sequences: Sequence[Sequence[str]]) -> Mapping[str, int]:
    """Return one order of names that agrees with every sequence, or nearly so.

    Sums in floating point depend on their order in the last digits; with this one, sums over the
    layers of a space equal those over the layers of one network.
    """
    after: dict[str, set[str]] = {}
    for names in sequences:
        for i, name in enumerate(names):
            after.setdefault(name, set())
            if i:
                after[name].add(names[i - 1])
    try:
        order = list(TopologicalSorter(after).static_order())
    except CycleError:  # layers change places from architecture to architecture
        order = list(after)
    return {name: i for i, name in enumerate(order)}
