# SPDX-License-Identifier: Apache-2.0
"""``Labels``: which channels exist together, as union-find over integers with conjunctions.

A label stands for something that can be removed. Where a network's own view operation splits an
axis in two (heads and head dimensions, groups and channels of a group), a channel exists where
both of its new labels do: the old label is defined as the conjunction of the two.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

#: A label per position of an axis; 0 stands for what cannot be removed.
Vector = npt.NDArray[np.int64]
NONE = 0


class Labels:
    """Labels that are fresh, equal to others, conjunctions of others, or frozen."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self._count = 1
        self._parts: dict[int, tuple[int, ...]] = {}
        self._made: dict[Hashable, Vector] = {}
        self._family: dict[int, int] = {0: 0}
        self._first = np.zeros(1024, dtype=np.int64)
        #: Whether a root is frozen or a conjunction.
        self._special = np.zeros(1024, dtype=bool)
        self._special[NONE] = True
        #: Why a root cannot be removed.
        self.frozen: dict[int, str] = {NONE: ""}
        #: Grows with every new fact.
        self.facts = 0

    def fresh(self, key: Hashable, count: int) -> Vector:
        """Return ``count`` labels, the same ones whenever ``key`` is the same."""
        if key not in self._made:
            first, end = self._count, self._count + count
            while end > len(self._parent):
                self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
                self._first = np.concatenate([self._first, np.zeros_like(self._first)])
                self._special = np.concatenate([self._special, np.zeros_like(self._special)])
            made = np.arange(first, end, dtype=np.int64)
            self._parent[first:end] = made
            self._first[first:end] = first
            self._family[first] = first
            self._count, self._made[key] = end, made
        return self._made[key]

    def made(self, kind: str) -> list[tuple[tuple[str, ...], Vector]]:
        """Return the keys, with their labels, that are tuples beginning with ``kind``."""
        found = [(k, v) for k, v in self._made.items() if isinstance(k, tuple)]
        return [(k, v) for k, v in found if k[0] == kind]

    def roots(self, vector: Vector) -> Vector:
        """Return the representatives of all labels of ``vector``."""
        found = self._parent[vector]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                return found
            found = above

    def root(self, label: int) -> int:
        """Return the representative of a label."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = int(parent[label])
        return label

    def expand(self, label: int) -> tuple[int, ...]:
        """Return the roots that all have to exist for ``label`` to exist, outermost first."""
        root = self.root(label)
        if root in self.frozen:
            return ()
        parts = self._parts.get(root)
        if parts is None:
            return (root,)
        return tuple(dict.fromkeys(r for part in parts for r in self.expand(part)))

    def reason(self, label: int) -> str:
        """Return why ``label`` is frozen, ``""`` where it is not or no reason is known."""
        root = self.root(label)
        if self.frozen.get(root):
            return self.frozen[root]
        return next((r for part in self._parts.get(root, ()) if (r := self.reason(part))), "")

    def family(self, label: int) -> int:
        """Return what labels made together, and those united with them, have in common."""
        first = int(self._first[label])
        while self._family[first] != first:
            first = self._family[first]
        return first

    def freeze(self, labels: Iterable[int], reason: str) -> None:
        """Note that the labels cannot be removed; the first reason stays."""
        for label in labels:
            root = self.root(int(label))
            if root in self.frozen:
                continue
            self.facts += 1
            self.frozen[root], self._special[root] = reason, True
            self.freeze(self._parts.get(root, ()), reason)

    def equate(self, left: Sequence[int], right: Sequence[int], reason: str) -> None:
        """Note that all of ``left`` exist if and only if all of ``right`` do."""
        a = tuple(dict.fromkeys(r for x in left for r in self.expand(int(x))))
        b = tuple(dict.fromkeys(r for x in right for r in self.expand(int(x))))
        a, b = tuple(r for r in a if r not in b), tuple(r for r in b if r not in a)
        if not a or not b:
            known = next((why for x in (*left, *right) if (why := self.reason(int(x)))), reason)
            self.freeze((*a, *b), known)
        elif len(a) == 1 and len(b) > 1:
            self._define(a[0], b)
        elif len(b) == 1 and len(a) > 1:
            self._define(b[0], a)
        else:
            for i in range(max(len(a), len(b))):
                self._unite(a[min(i, len(a) - 1)], b[min(i, len(b) - 1)])

    def _define(self, root: int, parts: tuple[int, ...]) -> None:
        self.facts += 1
        self._parts[root], self._special[root] = parts, True

    def _unite(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        self.facts += 1
        if b < a:
            a, b = b, a
        self._parent[b] = a
        self._relate(a, b)

    def _relate(self, a: int, b: int) -> None:
        mine, other = self.family(a), self.family(b)
        self._family[max(mine, other)] = min(mine, other)

    def _link(self, left: Vector, right: Vector) -> bool:
        """Unite two vectors of roots at once; return whether nothing stands against that."""
        both = np.concatenate([left, right])
        if self._special[both].any() or len(np.unique(both)) < len(both):
            return False
        low, high = np.minimum(left, right), np.maximum(left, right)
        self._parent[high] = low
        self.facts += len(low)
        for a, b in np.unique(np.stack([self._first[low], self._first[high]], 1), axis=0):
            self._relate(int(a), int(b))
        return True

    def same(self, one: Sequence[Vector], other: Sequence[Vector], reason: str) -> None:
        """Note that two axes of one length exist position by position together.

        Args:
            one: Layers of the one axis: each a label per position, all of which must exist.
            other: Layers of the other axis.
            reason: Why what cannot be matched is frozen.
        """
        if len(one) == 1 and len(other) == 1:
            left, right = self.roots(one[0]), self.roots(other[0])
            different = left != right
            left, right = left[different], right[different]
            if len(left) and not self._link(left, right):
                for a, b in zip(left.tolist(), right.tolist(), strict=True):
                    self.equate((a,), (b,), reason)
            return
        if not one and not other:
            return
        size = len((one or other)[0])
        mine, theirs = self._columns(one, size), self._columns(other, size)
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            theirs = theirs[:, _matching(mine, theirs)]
            for a, b in np.unique(np.stack([mine.ravel(), theirs.ravel()], 1), axis=0):
                if self.root(int(a)) != self.root(int(b)):
                    self.equate((a,), (b,), reason)
            return
        for i in range(size):
            self.equate([x[i] for x in one], [x[i] for x in other], reason)

    def _columns(self, layers: Sequence[Vector], size: int) -> Vector | None:
        """Return the expanded labels, a row per position, where all positions have as many."""
        rows = [
            tuple(dict.fromkeys(r for x in layers for r in self.expand(int(x[i]))))
            for i in range(size)
        ]
        if len({len(row) for row in rows}) != 1 or not rows[0]:
            return None
        return np.array(rows, dtype=np.int64)

    def owners(self, vector: Vector) -> list[tuple[int, ...]]:
        """Return the roots that each position belongs to; a frozen one belongs to its own."""
        roots = self.roots(vector)
        if not self._special[roots].any():
            return [(root,) for root in roots.tolist()]
        return [self.expand(root) or (root,) for root in roots.tolist()]

    def columns(self, layer: Vector) -> list[Vector]:
        """Return a layer as layers of roots, more than one where its labels are conjunctions."""
        found = self._columns([layer], len(layer))
        return [layer] if found is None else [found[:, i] for i in range(found.shape[1])]


def _matching(one: Vector, other: Vector) -> list[int]:
    """Return the order of the columns of ``other`` that merges the fewest labels."""
    width = one.shape[1]
    if width > 4:
        return list(range(width))

    def loss(order: tuple[int, ...]) -> int:
        lost = 0
        for i, j in enumerate(order):
            pairs = len(np.unique(np.stack([one[:, i], other[:, j]], 1), axis=0))
            lost += 2 * pairs - len(np.unique(one[:, i])) - len(np.unique(other[:, j]))
        return lost

    best: tuple[int, ...] = min(permutations(range(width)), key=loss)
    return list(best)
