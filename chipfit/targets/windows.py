# SPDX-License-Identifier: Apache-2.0
"""Cutting a workload into units: operators between their neighbours, and whole blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from chipfit.graph.op import Op
from chipfit.graph.workload import Workload
from chipfit.targets.base import Unit

#: Operators that cost nothing on targets with linear tensors; neighbours are looked for past them.
TRANSPARENT = frozenset({"reshape"})
#: Operators that a device may run together with the one that makes their input.
ELEMENTWISE = TRANSPARENT | {"add", "sub", "mul", "activation"}
#: In crowded memory a unit holds what runs while its tensors live, this many operators to either
#: side at most, and a few more around them, so that no tensor of those comes from outside.
SPAN = 12
SPAN_MARGIN = (2, 1)
_CONSTANT = -1


@lru_cache(maxsize=1 << 17)
def op_key(op: Op) -> str:
    """Return ``op.key``; equal operators of different networks are serialised once.

    A search builds thousands of networks that share almost all of their operators.
    """
    return op.key


def neighbour_units(
    workload: Workload,
    reach: tuple[int, int],
    crowded_elements: float = math.inf,
    chained: bool = False,
) -> list[Unit]:
    """Return one unit per operator: the operator between its neighbours.

    What a compiler charges for an operator depends on those, hardly on the rest. A neighbour is

    * whatever makes its inputs, and whatever reads its output, within ``reach`` steps: tensor
      formats and the staging of weights;
    * whatever else reads its inputs: a tensor with one reader may be fused into it, one with two
      may not (the shortcut around a pre-activated convolution);
    * whatever makes the other inputs of its readers: an operand that comes from outside has another
      format than one that was made inside, and an addition may join either of its makers;
    * where memory is crowded while one of its tensors is alive, everything that runs meanwhile and
      for as long as it is crowded (:data:`SPAN` operators to either side at most): the compiler
      then moves some of those tensors to slower memory, perhaps the one that it was to keep for a
      shortcut, or runs several operators together, stripe by stripe.

    Args:
        workload: What to cut.
        reach: Steps towards the producers of its inputs, and towards the consumers of its output.
        crowded_elements: More elements than this alive at once mean that memory is crowded.
        chained: Whether the device runs an elementwise operator together with what makes its input.
            It is no step towards the consumers then: who reads its result matters to its maker.
    """
    keys = [op_key(node.op) for node in workload.nodes]
    wiring = _wiring_of(workload)
    spans = {} if crowded_elements == math.inf else wiring.spans(workload, crowded_elements)
    units = []
    for i in range(len(workload)):
        if i in spans:
            indices = tuple(sorted({*wiring.around(i, *reach, False), *spans[i]}))
        else:
            indices = wiring.around(i, *reach, chained)
        units.append(_unit(workload, indices, (indices.index(i),), keys))
    return units


class _Wiring:
    """Who feeds whom; the variants of one network share it, so neighbours are found once.

    Args:
        makers: Per node and input: the node that makes it, :data:`_CONSTANT`, or a smaller number
            for an input of the network.
        leaving: Nodes whose tensors leave the network.
        transparent: Per node, whether it is no step.
        elementwise: Per node, whether it is no step where operators are chained.
    """

    def __init__(
        self,
        makers: Sequence[Sequence[int]],
        leaving: Sequence[int],
        transparent: Sequence[bool],
        elementwise: Sequence[bool],
    ) -> None:
        self._transparent, self._elementwise = transparent, elementwise
        self._producers = [[maker for maker in own if maker >= 0] for own in makers]
        self._consumers: list[list[int]] = [[] for _ in makers]
        # Tensors: the network's inputs have negative numbers, the others that of their maker.
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        self._tensors: list[list[int]] = []
        for i, own in enumerate(makers):
            for maker in dict.fromkeys(self._producers[i]):
                self._consumers[maker].append(i)
            self._tensors.append([*(maker for maker in own if maker != _CONSTANT), i])
            for tensor in self._tensors[i]:
                first.setdefault(tensor, max(tensor, 0))
                last[tensor] = i
        last |= dict.fromkeys(leaving, len(makers) - 1)
        self._first, self._last = first, last
        self._found: dict[tuple[int, int, int, bool], tuple[int, ...]] = {}

    def around(self, node: int, before: int, after: int, chained: bool) -> tuple[int, ...]:
        """Return ``node`` and its neighbours, ascending."""
        place = (node, before, after, chained)
        if place not in self._found:
            found = {node} | _reach(node, self._producers, self._transparent, before)
            for maker in _reach(node, self._producers, self._transparent, 1):
                found |= set(self._consumers[maker])
            joined = self._elementwise if chained else self._transparent
            for reader in _reach(node, self._consumers, joined, after):
                found |= {reader} | _reach(reader, self._producers, self._transparent, 1)
            self._found[place] = tuple(sorted(found))
        return self._found[place]

    def spans(self, workload: Workload, crowded_elements: float) -> dict[int, range]:
        """Return what runs during the lives of a node's tensors, for nodes in crowded memory."""
        count = len(workload)
        live = [0] * (count + 1)
        for tensor, start in self._first.items():
            name = workload.nodes[tensor].output if tensor >= 0 else workload.inputs[-2 - tensor]
            size = math.prod(workload.shapes[name])
            live[start] += size
            live[self._last[tensor] + 1] -= size
        live = list(accumulate(live))
        if max(live) <= crowded_elements:
            return {}
        found = {}
        for i, tensors in enumerate(self._tensors):
            start = min(self._first[tensor] for tensor in tensors)
            stop = max(self._last[tensor] for tensor in tensors) + 1
            if max(live[start:stop]) > crowded_elements:
                # Operators are cascaded in stripes for as long as their tensors do not fit.
                while start > 0 and live[start - 1] > crowded_elements:
                    start -= 1
                while stop < count and live[stop] > crowded_elements:
                    stop += 1
                before = max(start, i - SPAN) - SPAN_MARGIN[0]
                after = min(stop, i + 1 + SPAN) + SPAN_MARGIN[1]
                found[i] = range(max(before, 0), min(after, count))
        return found


def _wiring_of(workload: Workload) -> _Wiring:
    number = {name: -2 - i for i, name in enumerate(workload.inputs)} | workload.producer
    return _wiring(
        tuple(tuple(number.get(n, _CONSTANT) for n in node.inputs) for node in workload.nodes),
        tuple(number[name] for name in workload.outputs),
        tuple(node.op.kind in TRANSPARENT for node in workload.nodes),
        tuple(node.op.kind in ELEMENTWISE for node in workload.nodes),
    )


@lru_cache(maxsize=256)
def _wiring(
    makers: tuple[tuple[int, ...], ...],
    leaving: tuple[int, ...],
    transparent: tuple[bool, ...],
    elementwise: tuple[bool, ...],
) -> _Wiring:
    return _Wiring(makers, leaving, transparent, elementwise)


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
