# SPDX-License-Identifier: Apache-2.0
"""Cutting a workload into units: operators between their neighbours, and whole blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.targets.base import Unit

#: Operators that cost nothing on targets with linear tensors; neighbours are looked for past them.
TRANSPARENT = frozenset({"reshape"})


@lru_cache(maxsize=1 << 17)
def op_key(op: Op) -> str:
    """Return ``op.key``; equal operators of different networks are serialised once.

    A search builds thousands of networks that share almost all of their operators.
    """
    return op.key


def neighbour_units(workload: Workload, reach: Callable[[Op], tuple[int, int]]) -> list[Unit]:
    """Return one unit per operator: the operator between its neighbours.

    What a compiler charges for an operator depends on those (tensor formats, staging of weights),
    hardly on the rest.

    Args:
        workload: What to cut.
        reach: For an operator, the steps towards the producers of its inputs, and towards the
            consumers of its output, that its unit goes.
    """
    keys = [op_key(node.op) for node in workload.nodes]
    producer = workload.producer
    wiring = _wiring(
        tuple(tuple(producer.get(name, -1) for name in node.inputs) for node in workload.nodes),
        tuple(node.op.kind in TRANSPARENT for node in workload.nodes),
    )
    units = []
    for i, node in enumerate(workload.nodes):
        indices = wiring.around(i, *reach(node.op))
        units.append(_unit(workload, indices, (indices.index(i),), keys))
    return units


class _Wiring:
    """Who feeds whom; the variants of one network share it, so neighbours are found once."""

    def __init__(self, makers: Sequence[Sequence[int]], transparent: Sequence[bool]) -> None:
        self._transparent = transparent
        self._producers = [[maker for maker in own if maker >= 0] for own in makers]
        self._consumers: list[list[int]] = [[] for _ in makers]
        for i, own in enumerate(self._producers):
            for maker in dict.fromkeys(own):
                self._consumers[maker].append(i)
        self._found: dict[tuple[int, int, int], tuple[int, ...]] = {}

    def around(self, node: int, before: int, after: int) -> tuple[int, ...]:
        """Return ``node`` and its neighbours, ascending."""
        place = (node, before, after)
        if place not in self._found:
            upwards = _reach(node, self._producers, self._transparent, before)
            downwards = _reach(node, self._consumers, self._transparent, after)
            self._found[place] = tuple(sorted({node} | upwards | downwards))
        return self._found[place]


@lru_cache(maxsize=256)
def _wiring(makers: tuple[tuple[int, ...], ...], transparent: tuple[bool, ...]) -> _Wiring:
    return _Wiring(makers, transparent)


def block_units(workload: Workload, minimum: int) -> list[Unit]:
    """Return consecutive units of at least ``minimum`` operators, all of them charged.

    Cuts are made only where exactly one activation is live, so that residual blocks stay whole.
    """
    keys = [op_key(node.op) for node in workload.nodes]
    spans: list[tuple[int, int]] = []
    start = 0
    for stop in narrow_places(workload):
        if stop - start >= minimum:
            spans.append((start, stop))
            start = stop
    if start < len(workload):
        if spans and len(workload) - start < minimum:
            start = spans.pop()[0]
        spans.append((start, len(workload)))
    return [
        _unit(workload, list(range(start, stop)), tuple(range(stop - start)), keys)
        for start, stop in spans
    ]


def narrow_places(workload: Workload) -> list[int]:
    """Return the positions ``1..len-1`` before which exactly one activation is alive."""
    last = {name: span[1] for name, span in workload.lifetimes.items()}
    alive = set(workload.inputs)
    places = []
    for i, node in enumerate(workload.nodes[:-1]):
        alive.add(node.output)
        ended = {name for name in node.inputs if last.get(name) == i}
        alive -= ended
        if last[node.output] == i:  # a result that nobody reads
            alive.discard(node.output)
        if len(alive) == 1:
            places.append(i + 1)
    return places


def single_units(workload: Workload) -> list[Unit]:
    """Return one unit per operator, alone."""
    keys = [op_key(node.op) for node in workload.nodes]
    return [_unit(workload, [i], (0,), keys) for i in range(len(workload))]


def _reach(
    start: int, edges: Sequence[Sequence[int]], transparent: Sequence[bool], radius: int
) -> set[int]:
    """Return the nodes within ``radius`` steps along ``edges``; transparent ones are no step."""
    found: set[int] = set()
    frontier = [(start, radius)]
    while frontier:
        node, left = frontier.pop()
        if left == 0:
            continue
        for other in edges[node]:
            found.add(other)
            frontier.append((other, left if transparent[other] else left - 1))
    return found


def _unit(
    workload: Workload, indices: Sequence[int], focus: tuple[int, ...], keys: Sequence[str]
) -> Unit:
    """Name the unit of the nodes at ``indices`` by its operators and wiring.

    A tensor that a node of the unit reads is no output of it, even where others outside read it
    too: being a network output would change how the compiler lays it out.
    """
    number: dict[str, int] = {}
    parts = [repr(focus)]
    for i in indices:
        node = workload.nodes[i]
        wires = [str(number.setdefault(name, len(number))) for name in node.inputs]
        number[node.output] = len(number)
        parts.append(f"{keys[i]}:{','.join(wires)}")
    key = hashlib.blake2b("|".join(parts).encode(), digest_size=12).hexdigest()
    return Unit(key, workload, tuple(indices), focus)
