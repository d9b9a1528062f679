# SPDX-License-Identifier: Apache-2.0
"""The work in a ``.tflite`` file, operator by operator, and its modelled cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chipfit.errors import BadInput, ChipfitError, UnsupportedOp
from chipfit.targets.tflite_file import checked_tflite

#: Every element of the output costs one of these, by the kind of the operator.
_ELEMENTWISE = frozenset({
    "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "LEAKY_RELU", "PRELU",
    "HARD_SWISH", "ABS", "NEG", "QUANTIZE", "DEQUANTIZE", "SQUARED_DIFFERENCE", "SQUARE",
})  # fmt: skip
_TRANSCENDENTAL = frozenset({
    "SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "ELU", "EXP", "LOG", "DIV", "RSQRT", "SQRT",
    "L2_NORMALIZATION", "GELU",
})  # fmt: skip
_MOVED = frozenset({
    "CONCATENATION", "PAD", "PADV2", "RESHAPE", "STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V",
    "TRANSPOSE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "PACK", "UNPACK", "GATHER",
    "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "EXPAND_DIMS",
    "SQUEEZE", "BROADCAST_TO", "MIRROR_PAD",
})  # fmt: skip
#: Every element of the input is read once.
_REDUCED = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
_POOLS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
_DENSE = frozenset({"FULLY_CONNECTED", "BATCH_MATMUL"})
_INT8 = 9


@dataclass(frozen=True)
class Work:
    """The work of one operator of a file.

    Args:
        name: The tensor that it writes.
        kind: TFLite's operator, for instance ``"CONV_2D"``.
        counts: Amounts by kind of work, see :data:`chipfit.targets.cortex_m_figures.WORK`.
    """

    name: str
    kind: str
    counts: Mapping[str, float]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return int(sum(v for key, v in self.counts.items() if key.endswith("_macs")))

    def cycles(self, constants: Mapping[str, float]) -> float:
        """Return the modelled cycles under ``constants``, by kind of work."""
        return sum(constants[key] * amount for key, amount in self.counts.items())


def work_of_file(data: bytes, place: str) -> list[Work]:
    """Return the work of every operator, in execution order.

    Args:
        data: A ``.tflite`` file.
        place: What it is, for messages.

    Raises:
        BadInput: The file is damaged.
        UnsupportedOp: An operator's cost is not modelled, or it does not run in int8.
    """
    checked_tflite(data, place)
    try:
        found = list(_operators(data))
        return [_work(operator, place) for operator in found]
    except ChipfitError:
        raise
    except Exception as error:  # whatever a reader of random bytes can raise
        raise BadInput(f"{place} is damaged: {error}", "write it again") from error


@dataclass(frozen=True)
class _Operator:
    name: str
    kind: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    dtype: int
    window: int


def _work(op: _Operator, place: str) -> Work:
    elements = math.prod(op.output)
    counts: dict[str, float] = {"operators": 1}
    if op.kind in _CONVOLUTIONS | _DENSE | _ELEMENTWISE and op.dtype != _INT8:
        if op.kind not in ("QUANTIZE", "DEQUANTIZE"):
            raise UnsupportedOp(
                f"{op.kind} at {op.name} of {place} does not run in int8",
                "the figures are those of int8 kernels; quantise the whole network",
            )
    if op.kind == "CONV_2D":
        counts |= {"conv_macs": elements * math.prod(op.inputs[1][1:]), "outputs": elements}
    elif op.kind == "TRANSPOSE_CONV":
        macs = math.prod(op.inputs[2]) * math.prod(op.inputs[1][:3])
        counts |= {"conv_macs": macs, "outputs": elements}
    elif op.kind == "DEPTHWISE_CONV_2D":
        counts |= {"depthwise_macs": elements * math.prod(op.inputs[1][1:3]), "outputs": elements}
    elif op.kind == "FULLY_CONNECTED":
        counts |= {"dense_macs": elements * op.inputs[1][-1], "outputs": elements}
    elif op.kind == "BATCH_MATMUL":
        depth = math.prod(op.inputs[0]) * op.output[-1] / max(elements, 1)
        counts |= {"dense_macs": elements * depth, "outputs": elements}
    elif op.kind in _POOLS:
        counts["pooled"] = elements * op.window
    elif op.kind in _REDUCED:
        counts["pooled"] = math.prod(op.inputs[0])
    elif op.kind in _ELEMENTWISE:
        counts["elementwise"] = elements
    elif op.kind in _TRANSCENDENTAL:
        counts["transcendental"] = elements
    elif op.kind in _MOVED:
        counts["moved"] = elements
    else:
        raise UnsupportedOp(
            f"the cycles of {op.kind} at {op.name} of {place} are not modelled",
            "measure it on the board and use the target 'measurements'",
        )
    return Work(op.name, op.kind, counts)


def _operators(data: bytes) -> Iterator[_Operator]:
    from ethosu.vela.tflite.Model import Model

    model = Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        opcode = model.OperatorCodes(operator.OpcodeIndex())
        code = max(opcode.BuiltinCode(), opcode.DeprecatedBuiltinCode())
        kind = _names().get(code, f"operator {code}")
        places = [operator.Inputs(n) for n in range(operator.InputsLength())]
        shapes = tuple(_shape(graph.Tensors(n)) if n >= 0 else () for n in places)
        result = graph.Tensors(operator.Outputs(0))
        name = (result.Name() or b"").decode(errors="replace")
        yield _Operator(name, kind, shapes, _shape(result), result.Type(), _window(operator, kind))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(tensor.Shape(d)) for d in range(tensor.ShapeLength()))


def _window(operator: Any, kind: str) -> int:
    if kind not in _POOLS:
        return 1
    from ethosu.vela.tflite.Pool2DOptions import Pool2DOptions

    table, options = operator.BuiltinOptions(), Pool2DOptions()
    options.Init(table.Bytes, table.Pos)
    return int(options.FilterHeight() * options.FilterWidth())


@lru_cache(maxsize=1)
def _names() -> dict[int, str]:
    from ethosu.vela.tflite.BuiltinOperator import BuiltinOperator

    return {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
