# SPDX-License-Identifier: Apache-2.0
"""Networks as ONNX models for measuring: built from workloads or read from files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from chipfit.errors import BadInput
from chipfit.export.onnx_int8 import Int8Scheme, is_quantised, quantise, random_feed
from chipfit.graph.execute import synthetic_parameters
from chipfit.graph.workload import Program, Workload
from chipfit.targets.footprint import footprint
from chipfit.targets.measured import Subject
from chipfit.targets.torch_module import NetworkModule

_SCOPE = re.compile(r"/?node_(\d+)/")
#: Element types of stored weights, with the bytes of one.
_WEIGHT_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 10: 2, 11: 8}


def network_of(
    source: Workload | Program | Path, precision: str = "float32", scheme: Int8Scheme | None = None
) -> Subject:
    """Return ``source`` as an ONNX model; a bare workload gets synthetic weights.

    For int8, activations get the ranges of one random input: good for cost, not for accuracy.

    Raises:
        BadInput: A file cannot be read, is no ONNX model, or is of the other precision.
        UnsupportedOp: An operator has no export.
    """
    if isinstance(source, Path):
        return _from_file(source, precision)
    workload = source.workload if isinstance(source, Program) else source
    program = source if isinstance(source, Program) else synthetic_parameters(source)
    data = onnx_of(program)
    if precision == "int8":
        data = quantise(data, [random_feed(data)], scheme or Int8Scheme())
    return Subject(data, footprint(workload, precision), workload, "the network")


def onnx_of(program: Program) -> bytes:
    """Export ``program`` to ONNX; names of the operators carry the node's index.

    Raises:
        UnsupportedOp: An operator has no export.
    """
    from chipfit.export.onnx import to_onnx_bytes

    example = tuple(torch.zeros(program.workload.shapes[n]) for n in program.workload.inputs)
    return to_onnx_bytes(NetworkModule(program).eval(), example)


def layer_of(name: str, workload: Workload | None) -> str:
    """Return the layer that an ONNX operator belongs to, ``""`` for none, by its name.

    PyTorch's exporter names operators by the path of their module:
    ``/features/features.0/conv/Conv`` belongs to ``features.0.conv``.
    """
    if workload is not None:
        match = _SCOPE.search(name)
        return workload.nodes[int(match[1])].name if match else ""
    path: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        # An entry of a ModuleList or Sequential repeats the name of its parent: conv/conv.0.
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _from_file(path: Path, precision: str) -> Subject:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's exception classes differ between versions
        raise BadInput(f"{path} is not an ONNX model") from error
    if not model.graph.node:
        raise BadInput(f"{path} is not an ONNX model", "it holds no operators")
    found = "int8" if is_quantised(data) else "float32"
    if found != precision:
        raise BadInput(
            f"{path} is an {found} file, the target runs {precision}"
            if found == "int8" else f"{path} is a {found} file, the target runs {precision}",
            f"add precision={found} to the target's name",
        )  # fmt: skip
    return Subject(data, _stored(model), None, str(path))


def _stored(model: Any) -> dict[str, float]:
    """Return what the file's stored tensors tell; scales and zero points are no parameters."""
    import onnx

    scales: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scales.update(node.input[1:])
    floats = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    quantised = onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32
    sizes = {
        t.name: (math.prod(t.dims), _WEIGHT_BYTES[t.data_type])
        for t in model.graph.initializer
        if t.data_type in (*floats, *(quantised if scales else ())) and t.name not in scales
    }
    params = sum(count for count, _ in sizes.values())
    return {"params": params, "weight_bytes": sum(count * size for count, size in sizes.values())}
