# SPDX-License-Identifier: Apache-2.0
"""Serialise a :class:`TFGraph` as a TFLite flatbuffer, with the schema that Vela ships."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from chipfit.errors import ChipfitError, MissingBackend
from chipfit.export.tflite.ir import TFGraph, TFOperator, TFTensor

#: Options table and version of every operator that is written; the version is one with int8.
OPERATORS: dict[str, tuple[str, int]] = {
    "ABS": ("AbsOptions", 2), "ADD": ("AddOptions", 2), "AVERAGE_POOL_2D": ("Pool2DOptions", 2),
    "BATCH_MATMUL": ("BatchMatMulOptions", 2), "CONCATENATION": ("ConcatenationOptions", 2),
    "CONV_2D": ("Conv2DOptions", 3), "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3),
    "DIV": ("DivOptions", 2), "ELU": ("", 1), "EXP": ("ExpOptions", 2),
    "FULLY_CONNECTED": ("FullyConnectedOptions", 4), "GELU": ("GeluOptions", 2),
    "HARD_SWISH": ("HardSwishOptions", 1), "LEAKY_RELU": ("LeakyReluOptions", 2),
    "LOG": ("", 2), "LOGISTIC": ("", 2), "MAX_POOL_2D": ("Pool2DOptions", 2),
    "MAXIMUM": ("MaximumMinimumOptions", 2), "MINIMUM": ("MaximumMinimumOptions", 2),
    "MEAN": ("ReducerOptions", 2), "MUL": ("MulOptions", 2), "PAD": ("PadOptions", 2),
    "PADV2": ("PadV2Options", 2), "PRELU": ("", 1), "QUANTIZE": ("QuantizeOptions", 1),
    "REDUCE_MAX": ("ReducerOptions", 2), "RELU": ("", 2), "RELU6": ("", 2),
    "RESHAPE": ("ReshapeOptions", 1), "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", 3), "RSQRT": ("", 2),
    "SOFTMAX": ("SoftmaxOptions", 2), "STRIDED_SLICE": ("StridedSliceOptions", 2),
    "SUB": ("SubOptions", 2), "TANH": ("", 2), "TRANSPOSE": ("TransposeOptions", 2),
}  # fmt: skip

_NO_BUFFER = 0


def _schema(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"ethosu.vela.tflite.{name}")
    except ImportError as error:
        raise MissingBackend(
            "writing TFLite files needs the ethos-u-vela and flatbuffers packages",
            "pip install 'chipfit[tflite]'",
        ) from error


class _Writer:
    def __init__(self) -> None:
        _schema("Model")
        self.builder = importlib.import_module("flatbuffers").Builder(1 << 16)

    def numbers(self, values: Any, dtype: Any) -> int:
        return int(self.builder.CreateNumpyVector(np.atleast_1d(np.asarray(values, dtype))))

    def aligned_bytes(self, data: bytes) -> int:
        # The format asks for 16-byte alignment; microcontrollers read weights in place.
        self.builder.StartVector(1, len(data), 16)
        self.builder.head = self.builder.head - len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return int(self.builder.EndVector())

    def offsets(self, items: list[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def table(self, schema: str, **fields: Any) -> int:
        module = _schema(schema)
        module.Start(self.builder)
        for name, value in fields.items():
            getattr(module, f"Add{name}")(self.builder, value)
        return int(module.End(self.builder))

    def tensor(self, tensor: TFTensor, buffer: int) -> int:
        fields: dict[str, Any] = {
            "Shape": self.numbers(tensor.shape, np.int32) if tensor.shape else self.offsets([]),
            "Name": self.builder.CreateString(tensor.name),
        }
        if tensor.quant is not None:
            scales = tensor.quant.scale
            fields["Quantization"] = self.table(
                "QuantizationParameters",
                Scale=self.numbers(scales, np.float32),
                ZeroPoint=self.numbers([tensor.quant.zero_point] * len(scales), np.int64),
                QuantizedDimension=tensor.quant.axis,
            )
        dtype = getattr(_schema("TensorType").TensorType, tensor.dtype.upper())
        return self.table("Tensor", Type=dtype, Buffer=buffer, **fields)

    def operator(self, operator: TFOperator, code: int, index: dict[int, int]) -> int:
        fields: dict[str, Any] = {
            "Inputs": self.numbers([index[id(t)] for t in operator.inputs], np.int32),
            "Outputs": self.numbers([index[id(t)] for t in operator.outputs], np.int32),
        }
        table = OPERATORS[operator.kind][0]
        if table:
            options = {
                name: self.numbers(value, np.int32) if isinstance(value, tuple) else value
                for name, value in operator.options.items()
            }
            fields["BuiltinOptions"] = self.table(table, **options)
            kinds = _schema("BuiltinOptions").BuiltinOptions
            fields["BuiltinOptionsType"] = getattr(kinds, table)
        return self.table("Operator", OpcodeIndex=code, **fields)

    def code(self, kind: str) -> int:
        number = getattr(_schema("BuiltinOperator").BuiltinOperator, kind)
        return self.table(
            "OperatorCode",
            DeprecatedBuiltinCode=min(number, 127),
            BuiltinCode=number,
            Version=OPERATORS[kind][1],
        )


def write(graph: TFGraph) -> bytes:
    """Return the content of a ``.tflite`` file.

    Raises:
        MissingBackend: The schema package is not installed.
        ChipfitError: Two tensors have the same name.
    """
    tensors = graph.tensors()
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ChipfitError(f"tensor names are used twice: {', '.join(twice[:5])}")
    out = _Writer()
    buffers = [out.table("Buffer")]
    offsets = []
    for tensor in tensors:
        number = _NO_BUFFER
        if tensor.data is not None:
            number = len(buffers)
            content = out.aligned_bytes(np.ascontiguousarray(tensor.data).tobytes())
            buffers.append(out.table("Buffer", Data=content))
        offsets.append(out.tensor(tensor, number))
    index = {id(tensor): i for i, tensor in enumerate(tensors)}
    kinds = sorted({operator.kind for operator in graph.operators})
    codes = [out.code(kind) for kind in kinds]
    operators = [out.operator(o, kinds.index(o.kind), index) for o in graph.operators]
    subgraph = out.table(
        "SubGraph",
        Tensors=out.offsets(offsets),
        Inputs=out.numbers([index[id(t)] for t in graph.inputs], np.int32),
        Outputs=out.numbers([index[id(t)] for t in graph.outputs], np.int32),
        Operators=out.offsets(operators),
        Name=out.builder.CreateString("main"),
    )
    model = out.table(
        "Model",
        Version=3,
        OperatorCodes=out.offsets(codes),
        Subgraphs=out.offsets([subgraph]),
        Description=out.builder.CreateString("chipfit"),
        Buffers=out.offsets(buffers),
    )
    out.builder.Finish(model, file_identifier=b"TFL3")
    return bytes(out.builder.Output())
