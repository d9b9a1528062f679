# SPDX-License-Identifier: Apache-2.0
"""Figures that follow from a workload and a precision alone."""

from __future__ import annotations

import math

from chipfit.errors import BadInput
from chipfit.graph.memory_graph import memory_graph
from chipfit.graph.op import Op
from chipfit.graph.operator_order import best_order
from chipfit.graph.workload import Workload

#: Bytes of one activation, and of one weight, by precision.
ELEMENT_BYTES = {"int8": 1, "float16": 2, "float32": 4}
#: Biases of int8 networks are 32-bit accumulators.
INT8_BIAS_BYTES = 4


def check_precision(precision: str) -> None:
    """Raise ``BadInput`` where ``precision`` is not one of :data:`ELEMENT_BYTES`."""
    if precision not in ELEMENT_BYTES:
        raise BadInput(
            f"unknown precision {precision!r}", f"known: {', '.join(sorted(ELEMENT_BYTES))}"
        )


def op_weight_bytes(op: Op, precision: str) -> int:
    """Return the bytes of the operator's own folded parameters."""
    size = ELEMENT_BYTES[precision]
    total = 0
    for role, shape in op.parameter_shapes.items():
        wide = precision == "int8" and role == "bias" and op.kind in ("conv2d", "linear")
        total += math.prod(shape) * (INT8_BIAS_BYTES if wide else size)
    return total


def footprint(workload: Workload, precision: str) -> dict[str, float]:
    """Return ``macs``, ``params`` and ``weight_bytes``; a shared constant counts once."""
    constants = sum(math.prod(workload.shapes[name]) for name in workload.constants)
    own = sum(op_weight_bytes(node.op, precision) for node in workload.nodes)
    return {
        "macs": workload.macs,
        "params": workload.parameter_count,
        "weight_bytes": own + constants * ELEMENT_BYTES[precision],
    }


def peak_activation_bytes(workload: Workload, precision: str) -> int:
    """Return the largest sum of live activations in the best order of the operators.

    This is the least that any runtime without recomputation or tiling needs, and the order of
    exported files. For networks on which the search for that order stops early
    (:func:`~chipfit.graph.operator_order.best_order`) it is an upper bound.
    """
    return best_order(memory_graph(workload, ELEMENT_BYTES[precision])).peak_bytes
