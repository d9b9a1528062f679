# SPDX-License-Identifier: Apache-2.0
"""What operators read, write and leave in memory while a network runs, and the peak of an order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from chipfit.errors import BadInput
from chipfit.graph.workload import Workload


@dataclass(frozen=True)
class Step:
    """One operator, as memory sees it.

    Args:
        reads: Tensors in memory that it reads.
        writes: Tensors that it puts there.
        needs: Steps that must have run before, by number.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    needs: frozenset[int]


@dataclass(frozen=True)
class MemoryGraph:
    """Operators with the bytes of what they read and write; constants are left out.

    Args:
        sizes: Bytes of every tensor.
        steps: In the order in which they stand.
        inputs: Tensors that are there from the first step until they were read last.
        outputs: Tensors that stay to the end once they are there.
        alignment: Memory is given out in multiples of so many bytes.
    """

    sizes: Mapping[str, int]
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: frozenset[str]
    alignment: int = 1

    @cached_property
    def taken(self) -> dict[str, int]:
        """Bytes that every tensor takes, its own rounded up."""
        return {n: -(-size // self.alignment) * self.alignment for n, size in self.sizes.items()}


def memory_graph(workload: Workload, element_bytes: int = 1) -> MemoryGraph:
    """Return the operators of a workload as memory sees them; reshapes are views and cost nothing.

    Args:
        workload: The operators.
        element_bytes: Of one activation.
    """
    root: dict[str, str] = {name: name for name in workload.inputs}
    steps = []
    for node in workload.nodes:
        names = [name for name in node.inputs if name not in workload.constants]
        view = node.op.kind == "reshape" and bool(names)
        root[node.output] = root[names[0]] if view else node.output
        needs = {workload.producer[name] for name in names if name in workload.producer}
        reads = tuple(dict.fromkeys(root[name] for name in names))
        steps.append(Step(reads, () if view else (node.output,), frozenset(needs)))
    sizes = {name: math.prod(workload.shapes[name]) * element_bytes for name in set(root.values())}
    outputs = frozenset(root[name] for name in workload.outputs if name in root)
    return MemoryGraph(sizes, tuple(steps), workload.inputs, outputs)


def live_sets(graph: MemoryGraph, order: Sequence[int] | None = None) -> list[tuple[str, ...]]:
    """Return for every step of an order the tensors that are in memory while it runs.

    Args:
        graph: The operators.
        order: Numbers of steps; as they stand where ``None``.

    Raises:
        BadInput: It is no order of the steps, or a step comes before one that it needs.
    """
    order = range(len(graph.steps)) if order is None else order
    if sorted(order) != list(range(len(graph.steps))):
        raise BadInput(f"{list(order)[:8]} is no order of {len(graph.steps)} operators")
    left = dict.fromkeys(graph.sizes, 0)
    for step in graph.steps:
        for name in step.reads:
            left[name] += 1
    done: set[int] = set()
    live = dict.fromkeys(graph.inputs)
    found = []
    for number in order:
        step = graph.steps[number]
        if not step.needs <= done:
            raise BadInput(f"operator {number} comes before one whose result it reads")
        done.add(number)
        live |= dict.fromkeys(step.writes)
        found.append(tuple(live))
        for name in step.reads:
            left[name] -= 1
        live = {name: None for name in live if left[name] or name in graph.outputs}
    return found


def peak_bytes(subject: MemoryGraph | Workload, order: Sequence[int] | None = None) -> int:
    """Return the largest sum of live bytes of an order; of a workload, at one byte an element.

    Args:
        subject: The operators.
        order: Numbers of operators; as they stand where ``None``.

    Raises:
        BadInput: It is no order that can run.
    """
    graph = memory_graph(subject) if isinstance(subject, Workload) else subject
    sums = [sum(graph.taken[name] for name in live) for live in live_sets(graph, order)]
    return max(sums, default=0)
