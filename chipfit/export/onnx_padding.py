# SPDX-License-Identifier: Apache-2.0
"""Fold padding in front of a convolution or a max pooling into it, in an ONNX model.

PyTorch's exporter writes asymmetric padding as a ``Pad`` operator behind a dozen operators that
compute its constant. ONNX Runtime leaves the blocked layout of its convolutions for it, which costs
a third of a stride-2 block; ``Conv`` itself takes four-sided padding. A ``Pad`` of minus infinity,
for a ``MaxPool``, could not be quantised either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

#: What each operator pads with by itself.
NEUTRAL = {"Conv": 0.0, "MaxPool": -math.inf}


def fold_padding(content: bytes) -> bytes:
    """Return the model with every foldable ``Pad`` inside the operator that alone reads it."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    leaving = {value.name for value in graph.output}
    constant = _evaluator(model, made)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        users = readers.get(pad.output[0], [])
        if len(users) != 1 or users[0].op_type not in NEUTRAL or pad.output[0] in leaving:
            continue
        sides = _sides(pad, constant, NEUTRAL[users[0].op_type])
        if sides is not None and _add(users[0], sides):
            users[0].input[0] = pad.input[0]
            graph.node.remove(pad)
    _drop_unread(graph, leaving)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _evaluator(model: Any, made: dict[str, Any]) -> Callable[[str], np.ndarray | None]:
    """Return a function from a tensor's name to its value, ``None`` where it is no constant."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant(name: str) -> np.ndarray | None:
        if name in stored:
            return np.asarray(onnx.numpy_helper.to_array(stored[name]))
        nodes: list[Any] = []
        pending, seen = [name], {name}
        while pending:
            current = pending.pop()
            if current in stored or not current:
                continue
            if current not in made:
                return None  # it depends on the input of the network
            nodes.append(made[current])
            fresh = [n for n in made[current].input if n not in seen]
            seen.update(fresh)
            pending += fresh
        order = {id(node): i for i, node in enumerate(model.graph.node)}
        nodes.sort(key=lambda node: order[id(node)])
        result = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
        part = onnx.helper.make_graph(
            nodes, "constant", [], [result], [stored[n] for n in seen if n in stored]
        )
        whole = onnx.helper.make_model(part, opset_imports=list(model.opset_import))
        values: Any = ReferenceEvaluator(whole).run(None, {})
        return np.asarray(values[0])

    return constant


def _sides(
    pad: Any, constant: Callable[[str], np.ndarray | None], neutral: float
) -> tuple[int, int, int, int] | None:
    """Return ``(top, left, bottom, right)`` of a padding of height and width with ``neutral``."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    sides = constant(pad.input[1])
    value = constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if mode != b"constant" or sides is None or value is None or len(pad.input) > 3:
        return None
    if sides.size != 8 or float(value.reshape(-1)[0]) != neutral or (sides < 0).any():
        return None
    before_n, before_c, top, left, after_n, after_c, bottom, right = (int(s) for s in sides)
    if before_n or before_c or after_n or after_c:
        return None
    return top, left, bottom, right


def _add(reader: Any, sides: tuple[int, int, int, int]) -> bool:
    import onnx

    attributes = {attribute.name: attribute for attribute in reader.attribute}
    if "ceil_mode" in attributes and attributes["ceil_mode"].i:
        return False  # rounding up looks at the padding
    automatic = attributes.get("auto_pad")
    if automatic is not None and automatic.s not in (b"NOTSET", b""):
        return False
    old = list(attributes["pads"].ints) if "pads" in attributes else [0, 0, 0, 0]
    if "pads" in attributes:
        reader.attribute.remove(attributes["pads"])
    new = [a + b for a, b in zip(old, sides, strict=True)]
    reader.attribute.append(onnx.helper.make_attribute("pads", new))
    return True


def _drop_unread(graph: Any, leaving: set[str]) -> None:
    while True:
        read = {name for node in graph.node for name in node.input} | leaving
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)
