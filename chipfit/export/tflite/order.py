# SPDX-License-Identifier: Apache-2.0
"""The order in which operators stand in a file: the one that needs the smallest tensor arena."""

from __future__ import annotations

import math

import numpy as np

from chipfit.export.tflite.ir import TFGraph, TFTensor
from chipfit.graph.memory_graph import MemoryGraph, Step
from chipfit.graph.operator_order import best_order

#: tflite-micro starts every tensor of its arena at a multiple of so many bytes.
ARENA_ALIGNMENT = 16


def memory_of(graph: TFGraph) -> MemoryGraph:
    """Return the operators of a file as tflite-micro's arena sees them.

    No operator writes in place, reshapes included.
    """
    maker = {id(t): i for i, operator in enumerate(graph.operators) for t in operator.outputs}
    sizes = {t.name: _bytes(t) for t in graph.tensors() if t.data is None}
    steps = []
    for operator in graph.operators:
        reads = [t for t in operator.inputs if t.data is None]
        steps.append(
            Step(
                tuple(dict.fromkeys(t.name for t in reads)),
                tuple(t.name for t in operator.outputs),
                frozenset(maker[id(t)] for t in reads if id(t) in maker),
            )
        )
    outputs = frozenset(t.name for t in graph.outputs)
    inputs = tuple(t.name for t in graph.inputs)
    return MemoryGraph(sizes, tuple(steps), inputs, outputs, ARENA_ALIGNMENT)


def reorder(graph: TFGraph) -> MemoryGraph:
    """Put the operators into the order of the lowest peak; return how memory sees them then.

    They stay as they are where no order is better. Where the search for the best one had to stop
    (:func:`~chipfit.graph.operator_order.best_order`), they get the best one that was found.
    """
    memory = memory_of(graph)
    order = best_order(memory).order
    if order == tuple(range(len(order))):
        return memory
    graph.operators = [graph.operators[i] for i in order]
    return memory_of(graph)


def _bytes(tensor: TFTensor) -> int:
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
