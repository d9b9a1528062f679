# SPDX-License-Identifier: Apache-2.0
"""Put GELU back together in an ONNX model.

PyTorch's exporter spells GELU as ``x * (1 + erf(x / sqrt 2)) / 2``, in five operators. Runtimes
join them again in float; between quantised operators they do not recognise them, and would run five
operators in float, or in bytes with conversions in between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: The first opset of ONNX with a ``Gelu`` of its own.
GELU_OPSET = 20


def fuse_gelu(model: Any) -> int:
    """Replace every complete chain in ``model`` by one ``Gelu``, in place; return how many.

    The model moves on to opset 20 where there is any; what that changes in other operators is
    wider types, not meanings.
    """
    import onnx

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def is_constant(name: str, wanted: float) -> bool:
        if name not in stored:
            return False
        values = np.asarray(onnx.numpy_helper.to_array(stored[name]))
        return values.size == 1 and math.isclose(float(values.reshape(-1)[0]), wanted, rel_tol=1e-4)

    def reader(node: Any, kind: str) -> Any:
        found = readers.get(node.output[0], [])
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    count = 0
    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        divide = made.get(erf.input[0])
        add = reader(erf, "Add")
        times = reader(add, "Mul") if add is not None else None
        half = reader(times, "Mul") if times is not None else None
        if divide is None or divide.op_type != "Div" or add is None or times is None:
            continue
        if half is None:
            continue
        x = divide.input[0]
        whole = (
            is_constant(divide.input[1], math.sqrt(2.0))
            and any(is_constant(name, 1.0) for name in add.input)
            and x in times.input
            and any(is_constant(name, 0.5) for name in half.input)
        )
        if not whole or len(readers[divide.output[0]]) != 1:
            continue
        name = divide.name.rpartition("/")[0]
        gelu = onnx.helper.make_node("Gelu", [x], [half.output[0]], name=f"{name}/Gelu")
        graph.node.insert(list(graph.node).index(half), gelu)
        for node in (divide, erf, add, times, half):
            graph.node.remove(node)
        count += 1
    if count:
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, GELU_OPSET)
    return count
