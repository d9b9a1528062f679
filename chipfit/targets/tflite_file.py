# SPDX-License-Identifier: Apache-2.0
"""Reading TFLite files: whether they are whole, and the parameters that they store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput, MissingBackend
from chipfit.targets.vela_config import vela_version

#: Operators whose second and later inputs are weights, with the input that is their bias.
_WEIGHTED = {3: (1, 2), 4: (1, 2), 9: (1, 2), 67: (1, 3)}  # conv, depthwise, dense, transposed
#: Type codes of constants that are data where they stand at an operator without weights (float32,
#: float16, int16, int8); 32 and 64-bit integers there are axes, shapes and indices.
_DATA = {0, 1, 7, 9}


def read_tflite(path: Path) -> bytes:
    """Return the content of a ``.tflite`` file, after following every reference in it.

    Vela ends the whole process on a damaged file, so damage must be found before.

    Raises:
        BadInput: The file cannot be read, is no TFLite file, or is damaged.
        MissingBackend: Vela, which has the schema, is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    checked_tflite(data, str(path))
    return data


def checked_tflite(data: bytes, place: str) -> None:
    """Follow every reference in a ``.tflite`` file's content.

    Raises:
        BadInput: It is no TFLite file, or is damaged; ``place`` says what it is.
        MissingBackend: Vela, which has the schema, is not installed.
    """
    if data[4:8] != b"TFL3":
        raise BadInput(f"{place} is not a TFLite file", "it lacks the mark TFL3")
    try:
        operators = sum(1 for _ in _constants(data))
    except MissingBackend:
        raise
    except Exception as error:  # whatever a reader of random bytes can raise
        raise BadInput(f"{place} is damaged: {error}", "write it again") from error
    if not operators:
        raise BadInput(f"{place} holds no operators")


def file_weights(data: bytes) -> dict[str, float]:
    """Return ``params`` and ``weight_bytes`` of a whole ``.tflite`` file.

    Weights, biases and constant operands count; axes, shapes and other settings that TFLite stores
    as tensors do not. A tensor that several operators read counts once.
    """
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for code, place, position, kind, count, size in _constants(data):
        weighted = code in _WEIGHTED and position in _WEIGHTED[code]
        if size and (weighted or (code not in _WEIGHTED and kind in _DATA)):
            found[place] = (count, size)
    return {
        "params": sum(count for count, _ in found.values()),
        "weight_bytes": sum(size for _, size in found.values()),
    }


def _constants(data: bytes) -> Iterator[tuple[int, tuple[int, int], int, int, int, int]]:
    """Yield ``(operator code, tensor, position, type, elements, stored bytes)`` of all inputs."""
    vela_version()
    from ethosu.vela.tflite.Model import Model

    model = Model.GetRootAsModel(data, 0)
    buffers = [_stored_bytes(model.Buffers(i), data) for i in range(model.BuffersLength())]
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        for tensor in tensors:
            tensor.Name()
            tensor.Quantization()
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            opcode = model.OperatorCodes(operator.OpcodeIndex())
            code = max(opcode.BuiltinCode(), opcode.DeprecatedBuiltinCode())
            for position in range(operator.OutputsLength()):
                _ = tensors[operator.Outputs(position)]
            for position in range(operator.InputsLength()):
                index = operator.Inputs(position)
                if index >= 0:
                    tensor = tensors[index]
                    count = math.prod(tensor.Shape(d) for d in range(tensor.ShapeLength()))
                    size = buffers[tensor.Buffer()]
                    yield code, (g, index), position, tensor.Type(), count, size


def _stored_bytes(buffer: Any, data: bytes) -> int:
    """Return the size of a buffer; large files keep data behind the flatbuffer, at an offset."""
    if buffer.Size():
        if buffer.Offset() + buffer.Size() > len(data):
            raise ValueError("a buffer lies beyond the end of the file")
        return int(buffer.Size())
    size = int(buffer.DataLength())
    if size:
        buffer.DataAsNumpy()  # raises where it reaches beyond the end
    return size
