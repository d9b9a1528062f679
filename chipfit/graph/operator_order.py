# SPDX-License-Identifier: Apache-2.0
"""The order of operators that needs the least memory for activations.

Operators run one at a time and whole; while one runs, what it writes and everything that is still
to be read is in memory. Liberis and Lane, "Neural networks on microcontrollers: saving memory at
inference via operator reordering", arXiv 1910.05110, pose the problem and solve it by recursion on
sets of tensors. Here it is a shortest path by the largest sum (Dijkstra's algorithm with ``max``
instead of ``+``) over sets of operators that have run, which looks at no set whose sum is larger
than the optimum.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

from chipfit.graph.memory_graph import MemoryGraph, memory_graph, peak_bytes
from chipfit.graph.workload import Workload

#: Sets of operators that the search looks at before it gives an upper bound instead.
MOST_STATES = 4000
#: Orders that are followed side by side where it does.
BEAM = 32


@dataclass(frozen=True)
class OperatorOrder:
    """An order with its peak.

    Args:
        order: Numbers of steps.
        peak_bytes: Of the order.
        lower_bound_bytes: No order has a lower peak.
    """

    order: tuple[int, ...]
    peak_bytes: int
    lower_bound_bytes: int

    @property
    def optimal(self) -> bool:
        """Whether no order is better; otherwise the peak is an upper bound of the optimum."""
        return self.peak_bytes == self.lower_bound_bytes


def best_order(
    subject: MemoryGraph | Workload, *, states: int = MOST_STATES, beam: int = BEAM
) -> OperatorOrder:
    """Return an order of the lowest peak; the given one where none is lower.

    After ``states`` sets of operators the search stops, and the best of ``beam`` orders followed
    side by side is returned with a lower bound below its peak: see :attr:`OperatorOrder.optimal`.

    Args:
        subject: The operators; elements of a workload are one byte.
        states: Sets of operators to look at, at most.
        beam: Orders of the search that follows then.
    """
    graph = memory_graph(subject) if isinstance(subject, Workload) else subject
    given = peak_bytes(graph)
    order = tuple(range(len(graph.steps)))
    search = _Search(graph)
    if given <= search.least:
        return OperatorOrder(order, given, given)
    found, bound = search.optimum(given, states)
    if found is None and bound >= given:
        return OperatorOrder(order, given, given)
    if found is None:
        found = search.beam(given, beam) or order
    peak = peak_bytes(graph, found)
    return OperatorOrder(found, peak, min(peak, bound))


def ordered(workload: Workload) -> Workload:
    """Return the workload with its operators in the order of the lowest peak."""
    order = best_order(workload).order
    if order == tuple(range(len(order))):
        return workload
    return replace(workload, nodes=tuple(workload.nodes[i] for i in order))


@dataclass(frozen=True)
class _State:
    """Operators that have run, as bits, with what follows from them."""

    done: int
    live: int
    ready: tuple[int, ...]
    peak: int
    #: The last step, and the state before it.
    path: tuple[int, _State] | None = field(default=None, repr=False)

    def order(self) -> tuple[int, ...]:
        found, state = [], self
        while state.path is not None:
            found.append(state.path[0])
            state = state.path[1]
        return tuple(reversed(found))


class _Search:
    def __init__(self, graph: MemoryGraph) -> None:
        self.steps, sizes = graph.steps, graph.taken
        self._needs = [sum(1 << n for n in step.needs) for step in graph.steps]
        self._next: list[list[int]] = [[] for _ in graph.steps]
        readers = dict.fromkeys(sizes, 0)
        for i, step in enumerate(graph.steps):
            for n in sorted(step.needs):
                self._next[n].append(i)
            for name in step.reads:
                readers[name] |= 1 << i
        self._written = [sum(sizes[name] for name in step.writes) for step in graph.steps]
        #: By step, who else reads what it may free, and how much that is.
        self._frees = [
            [
                (readers[name], sizes[name])
                for name in (*step.reads, *step.writes)
                if name not in graph.outputs
            ]
            for step in graph.steps
        ]
        #: Inputs that nobody reads are there during the first step.
        self._unread = sum(
            sizes[n] for n in graph.inputs if not readers[n] and n not in graph.outputs
        )
        live = sum(sizes[n] for n in graph.inputs) - self._unread
        own = [sum(sizes[n] for n in {*step.reads, *step.writes}) for step in graph.steps]
        #: What every order needs.
        self.least = max([*own, sum(sizes[n] for n in graph.outputs)], default=0)
        ready = tuple(i for i, needs in enumerate(self._needs) if not needs)
        self._start = _State(0, live, ready, self.least)

    def _after(self, state: _State, i: int) -> _State:
        done = state.done | 1 << i
        during = state.live + self._written[i] + (0 if state.done else self._unread)
        freed = sum(size for readers, size in self._frees[i] if not readers & ~done)
        ready = [n for n in state.ready if n != i]
        ready += [n for n in self._next[i] if not self._needs[n] & ~done]
        live = state.live + self._written[i] - freed
        return _State(done, live, tuple(sorted(ready)), max(state.peak, during), (i, state))

    def _settled(self, state: _State) -> _State:
        """Run what can be run at once without loss.

        A step that raises neither the peak nor what is live afterwards can only help the steps
        that would have come before it.
        """
        moved = True
        while moved:
            moved = False
            for i in state.ready:
                after = self._after(state, i)
                if after.peak == state.peak and after.live <= state.live:
                    state, moved = after, True
                    break
        return state

    def optimum(self, below: int, states: int) -> tuple[tuple[int, ...] | None, int]:
        """Return the best order with a peak under ``below``, and a bound that no order undercuts.

        The order is ``None`` where there is none (the bound is ``below`` then), or where the search
        was stopped.
        """
        heap = [(self.least, 0, 0, self._settled(self._start))]
        pushed = 0
        closed: set[int] = set()
        while heap:
            peak, _, _, state = heapq.heappop(heap)
            if state.done in closed:
                continue
            if not state.ready:
                return state.order(), peak
            if len(closed) >= states:
                return None, peak
            closed.add(state.done)
            for i in state.ready:
                after = self._after(state, i)
                if after.peak >= below:
                    continue
                after = self._settled(after)
                if after.done in closed:
                    continue
                pushed += 1
                ran = -after.done.bit_count()
                heapq.heappush(heap, (after.peak, ran, pushed, after))
        return None, below

    def beam(self, below: int, width: int) -> tuple[int, ...] | None:
        """Return an order with a peak under ``below``, the best of those that a beam comes by."""
        states = [self._start]
        while any(state.ready for state in states):
            found: dict[int, _State] = {}
            for state in states:
                for i in state.ready:
                    after = self._after(state, i)
                    known = found.get(after.done)
                    if after.peak < below and (known is None or after.peak < known.peak):
                        found[after.done] = after
            states = sorted(found.values(), key=lambda s: (s.peak, s.live, s.done))[:width]
        return states[0].order() if states else None
