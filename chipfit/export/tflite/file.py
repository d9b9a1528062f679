# SPDX-License-Identifier: Apache-2.0
"""``to_tflite``: a program with ranges becomes an int8 TFLite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chipfit.errors import UnsupportedOp
from chipfit.export.tflite import (
    activations,
    convolution,
    elementwise,
    limits,
    movement,
    normalisation,
    pooling,
)
from chipfit.export.tflite.context import HANDLERS, Context
from chipfit.export.tflite.ir import TFTensor
from chipfit.export.tflite.layout import NHWC, Order, Value, identity
from chipfit.export.tflite.order import reorder
from chipfit.export.tflite.ranges import Ranges
from chipfit.export.tflite.writer import write
from chipfit.files import write_bytes
from chipfit.graph.memory_graph import MemoryGraph
from chipfit.graph.workload import Node, Program, Workload

#: Importing these fills the table of handlers.
LOWERINGS = (activations, convolution, elementwise, limits, movement, normalisation, pooling)

#: Activations made of operators that tflite-micro has no int8 kernels for.
_NOT_MICRO = {"gelu": "GELU", "softplus": "LOG", "mish": "LOG"}


@dataclass(frozen=True)
class TFLiteFile:
    """A TFLite file in memory.

    Args:
        data: The flatbuffer.
        tensors_of: By node name, the output tensors of the TFLite operators made for the node, in
            execution order; empty for one that needs none, such as a permutation that only
            changes how the data is read.
        memory: What its operators read and write, in the order of the file.
    """

    data: bytes
    tensors_of: dict[str, list[str]]
    memory: MemoryGraph

    def save(self, path: Path) -> None:
        """Write the file; an existing one is replaced at once or not at all."""
        write_bytes(path, self.data)


def tflite_refusals(workload: Workload, micro: bool = False) -> list[tuple[str, str, str]]:
    """Return ``(name, kind, reason)`` for every operator that cannot be written.

    Args:
        workload: The operators.
        micro: Also refuse what tflite-micro cannot interpret; compilers such as Vela can.
    """
    refused = []
    for node in workload.nodes:
        op = node.op
        if op.kind not in HANDLERS:
            known = op.kind != "unsupported"
            reason = (
                f"there is no int8 TFLite form of {op.kind}" if known
                else f"chipfit does not understand {op.get('aten', op.kind)}"
            )  # fmt: skip
            refused.append((node.name, op.kind, reason))
        elif max(len(shape) for shape in (*op.inputs, op.output)) > 6:
            refused.append((node.name, op.kind, "TFLite kernels take up to six axes"))
        elif op.kind == "resize" and op["mode"] not in ("nearest", "bilinear"):
            refused.append((node.name, op.kind, f"TFLite resizes in no mode {op['mode']}"))
        elif op.kind == "unary" and op["function"] not in limits.UNARY:
            refused.append((node.name, op.kind, f"TFLite has no int8 {op['function']}"))
        elif micro and op.kind == "unary" and op["function"] in ("exp", "log"):
            refused.append((node.name, op.kind, f"tflite-micro has no int8 {op['function']}"))
        elif not op.output:
            refused.append((node.name, op.kind, "its output is a bare number"))
        elif micro and op.activation in _NOT_MICRO:
            reason = f"tflite-micro has no int8 {_NOT_MICRO[op.activation]}"
            refused.append((node.name, op.activation, reason))
    return refused


def to_tflite(program: Program, ranges: Ranges) -> TFLiteFile:
    """Quantise a program to int8 and write it as TFLite.

    Weights get one scale per output channel, activations one scale and zero point per tensor.
    Images go in and out as NHWC, all other tensors in PyTorch's order of axes. Operators stand in
    the order that needs the least memory (:mod:`chipfit.export.tflite.order`).

    Args:
        program: The operators with their parameters.
        ranges: From :func:`calibrate`, or :func:`synthetic_ranges` where only the cost counts.

    Raises:
        UnsupportedOp: Operators cannot be written; the message names them.
        BadInput: A tensor has no range.
        MissingBackend: The packages with the TFLite schema are not installed.
    """
    workload = program.workload
    refused = tflite_refusals(workload)
    if refused:
        places = "; ".join(f"{name}: {kind} ({reason})" for name, kind, reason in refused[:8])
        raise UnsupportedOp(
            f"{len(refused)} operator(s) cannot be written to TFLite: {places}",
            "replace them with supported operators",
        )
    ctx = Context(program, ranges)
    for name in workload.inputs:
        order = _outer_order(len(workload.shapes[name]))
        shape = tuple(workload.shapes[name][axis] for axis in order)
        tensor = ctx.tensor(name, shape, ctx.quant(name))
        ctx.graph.inputs.append(tensor)
        ctx.values[name] = Value(tensor, order)
    for node in workload.nodes:
        HANDLERS[node.op.kind](ctx, node)
    for name in workload.outputs:
        ctx.graph.outputs.append(_output(ctx, name))
    memory = reorder(ctx.graph)
    return TFLiteFile(write(ctx.graph), ctx.tensors_of, memory)


def _outer_order(rank: int) -> Order:
    return NHWC if rank == 4 else identity(rank)


def _output(ctx: Context, name: str) -> TFTensor:
    owner: Node | str = ""
    if name in ctx.workload.producer:
        owner = ctx.workload.nodes[ctx.workload.producer[name]]
    order = _outer_order(len(ctx.workload.shapes[name]))
    value = ctx.values[name]
    if isinstance(owner, Node) and value.order != order:
        tensor = ctx.ordered(owner, name, order)
    else:
        tensor = value.tensor
    if any(tensor is other for other in (*ctx.graph.inputs, *ctx.graph.outputs)):
        # A tensor is an input, or an output, once only.
        tensor = ctx.reshape(owner, tensor, tensor.shape, f"{name}:copy", always=True)
    return tensor
