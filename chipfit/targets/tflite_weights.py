# SPDX-License-Identifier: Apache-2.0
"""Counting the parameters that a TFLite file stores."""

from __future__ import annotations

import math

#: Operators whose second and later inputs are weights, with the input that is their bias.
_WEIGHTED = {3: (1, 2), 4: (1, 2), 9: (1, 2), 67: (1, 3)}  # conv, depthwise, dense, transposed
#: Types of constants that are data where they stand at an operator without weights; 32 and 64-bit
#: integers there are axes, shapes and indices.
_DATA = {0, 1, 7, 9}


def file_weights(data: bytes) -> dict[str, float]:
    """Return ``params`` and ``weight_bytes`` of a ``.tflite`` file.

    Weights, biases and constant operands count; axes, shapes and other settings that TFLite stores
    as tensors do not. A tensor that several operators read counts once.
    """
    from ethosu.vela.tflite.Model import Model

    model = Model.GetRootAsModel(data, 0)
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            opcode = model.OperatorCodes(operator.OpcodeIndex())
            code = max(opcode.BuiltinCode(), opcode.DeprecatedBuiltinCode())
            for position in range(operator.InputsLength()):
                index = operator.Inputs(position)
                if index < 0:
                    continue
                tensor = graph.Tensors(index)
                kind = tensor.Type()
                buffer = model.Buffers(tensor.Buffer())
                # Large files keep their data behind the flatbuffer and give only its place.
                size = buffer.DataLength() or buffer.Size()
                if size == 0:
                    continue
                weighted = code in _WEIGHTED and position in _WEIGHTED[code]
                if weighted or (code not in _WEIGHTED and kind in _DATA):
                    count = math.prod(tensor.Shape(d) for d in range(tensor.ShapeLength()))
                    found[g, index] = (count, size)
    return {
        "params": sum(count for count, _ in found.values()),
        "weight_bytes": sum(size for _, size in found.values()),
    }
