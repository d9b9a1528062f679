# SPDX-License-Identifier: Apache-2.0
"""Networks as ONNX models for measuring: built from workloads or read from files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.execute import activate, run_op, synthetic_parameters
from chipfit.graph.workload import Node, Program, Workload
from chipfit.targets.footprint import ELEMENT_BYTES, footprint, op_weight_bytes
from chipfit.targets.ort_session import profile

_SCOPE = re.compile(r"/?node_(\d+)/")

#: Name, kind, share of the latency and static figures of a layer.
Layer = tuple[str, str, float, dict[str, float]]


@dataclass(frozen=True)
class OnnxNetwork:
    """A model to measure.

    Args:
        data: The ONNX file's bytes.
        statics: Figures that need no measurement.
        workload: The operators, where the model was built from them.
        place: What it is, for messages.
    """

    data: bytes
    statics: dict[str, float]
    workload: Workload | None
    place: str

    def layers(self) -> list[Layer]:
        """Return the shares of the layers in the latency, by ONNX Runtime's profiler.

        The runtime fuses and converts as it sees fit; a share includes the conversions that the
        runtime inserted behind the layer. Shares of a file are by the runtime's own nodes.
        """
        rows = profile(self.data, place=self.place)
        if self.workload is None:
            return [(name, kind, share, {}) for name, kind, share in rows]
        shares = [0.0] * len(self.workload)
        last = 0
        for name, _, share in rows:
            match = _SCOPE.search(name)
            last = int(match[1]) if match else last
            shares[last] += share
        return [
            (node.name, node.op.kind, share, _statics(node))
            for node, share in zip(self.workload.nodes, shares, strict=True)
        ]


def network_of(source: Workload | Program | Path) -> OnnxNetwork:
    """Return ``source`` as an ONNX model; a bare workload gets synthetic weights.

    Raises:
        BadInput: A file cannot be read or is no ONNX model.
        UnsupportedOp: An operator has no export.
    """
    if isinstance(source, Path):
        return _from_file(source)
    workload = source.workload if isinstance(source, Program) else source
    program = source if isinstance(source, Program) else synthetic_parameters(source)
    statics = footprint(workload, "float32")
    return OnnxNetwork(onnx_of(program), statics, workload, "the network")


def onnx_of(program: Program) -> bytes:
    """Export ``program`` to ONNX; names of the operators carry the node's index.

    Raises:
        UnsupportedOp: An operator has no export.
    """
    from chipfit.export.onnx import to_onnx_bytes

    module = _Network(program).eval()
    example = tuple(torch.zeros(program.workload.shapes[n]) for n in program.workload.inputs)
    return to_onnx_bytes(module, example)


class _Operator(nn.Module):
    """One node as a module of its own, so that exported names tell which node they belong to."""

    def __init__(self, node: Node, program: Program) -> None:
        super().__init__()
        self.node = node
        self.roles = tuple(node.op.parameter_shapes)
        for role in self.roles:
            self.register_buffer(role, program.state(node, role).detach().float())

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        state = {role: getattr(self, role) for role in self.roles}
        return activate(self.node.op, run_op(self.node.op, inputs, state), state)


class _Network(nn.Module):
    def __init__(self, program: Program) -> None:
        super().__init__()
        self.load = program.workload
        self.constants: dict[str, str] = {}
        for i, node in enumerate(self.load.nodes):
            self.add_module(f"node_{i}", _Operator(node, program))
        for i, name in enumerate(sorted(self.load.constants)):
            self.constants[name] = f"constant_{i}"
            value = program.parameters[name]["value"].detach().float()
            self.register_buffer(self.constants[name], value)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = dict(zip(self.load.inputs, inputs, strict=True))
        values |= {name: getattr(self, slot) for name, slot in self.constants.items()}
        for i, node in enumerate(self.load.nodes):
            values[node.output] = getattr(self, f"node_{i}")(*[values[n] for n in node.inputs])
        return tuple(values[name] for name in self.load.outputs)


def _from_file(path: Path) -> OnnxNetwork:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    import onnx

    try:
        model = onnx.load_from_string(data)
    except Exception as error:  # protobuf's exception classes differ between versions
        raise BadInput(f"{path} is not an ONNX model") from error
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    if not model.graph.node:
        raise BadInput(f"{path} is not an ONNX model", "it holds no operators")
    params = sum(_size(tensor.dims) for tensor in floats)
    size = params * ELEMENT_BYTES["float32"]
    statics: dict[str, float] = {"params": params, "weight_bytes": size}
    return OnnxNetwork(data, statics, None, str(path))


def _size(dims: Sequence[int]) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size


def _statics(node: Node) -> dict[str, float]:
    op = node.op
    return {
        "macs": op.macs,
        "params": op.parameter_count,
        "weight_bytes": op_weight_bytes(op, "float32"),
    }
