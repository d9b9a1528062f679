# SPDX-License-Identifier: Apache-2.0
"""The state of a lowering: values made so far, operators written, names given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chipfit.errors import UnsupportedOp
from chipfit.export.tflite.ir import (
    Quant,
    TFGraph,
    TFOperator,
    TFTensor,
    quant_of_range,
    quantise,
)
from chipfit.export.tflite.layout import (
    Order,
    Value,
    permutation,
    same_memory,
    stored,
)
from chipfit.export.tflite.ranges import Quantisation, Ranges
from chipfit.graph.workload import Node, Program


def _runs(dims: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for axis in dims:
        if runs and runs[-1][-1] == axis - 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


Handler = Callable[["Context", Node], None]
#: The function that lowers each operator kind.
HANDLERS: dict[str, Handler] = {}


def lowers(*kinds: str) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the handler of operator kinds."""

    def add(handler: Handler) -> Handler:
        for kind in kinds:
            HANDLERS[kind] = handler
        return handler

    return add


class Context:
    """Builds the TFLite graph of one program."""

    def __init__(self, program: Program, ranges: Ranges) -> None:
        self.program = program
        self.workload = program.workload
        self.quants = Quantisation(program.workload, ranges)
        self.graph = TFGraph()
        self.values: dict[str, Value] = {}
        self.tensors_of: dict[str, list[str]] = {node.name: [] for node in self.workload.nodes}
        self.shuffled: set[str] = set()
        self._names: set[str] = set(self.workload.shapes)
        self._turned: dict[tuple[str, Order], TFTensor] = {}
        self._readers: dict[str, list[Node]] = {}
        for node in self.workload.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)

    # Names and parameters ---------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        """Return ``name``, or a variation of it where it is taken."""
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}#{count}"
        self._names.add(candidate)
        return candidate

    def parameter(self, node: Node, role: str) -> np.ndarray:
        """Return a parameter of ``node`` in double precision."""
        array: np.ndarray = self.program.state(node, role).detach().cpu().double().numpy()
        return array

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a tensor; empty for one that is also a network output."""
        return [] if name in self.workload.outputs else self._readers.get(name, [])

    def quant(self, name: str) -> Quant:
        """Return the quantisation of an activation of the workload or ``<output>:<role>``."""
        return self.quants.of(name)

    # Tensors ----------------------------------------------------------------------------------

    def tensor(self, name: str, shape: Sequence[int], quant: Quant) -> TFTensor:
        """Return a new activation tensor; a workload tensor keeps its name."""
        label = name if name in self.workload.shapes else self.fresh(name)
        return TFTensor(label, tuple(int(d) for d in shape), quant)

    def integers(self, name: str, values: Any) -> TFTensor:
        """Return a constant int32 tensor such as axes or a shape."""
        data = np.asarray(values, np.int32)
        return TFTensor(self.fresh(name), data.shape, None, data, "int32")

    def constant(self, name: str, values: np.ndarray, quant: Quant | None = None) -> TFTensor:
        """Return a constant int8 tensor; without ``quant`` its own values set the range."""
        values = np.asarray(values, np.float64)
        quant = quant or quant_of_range(values.min(), values.max())
        return TFTensor(self.fresh(name), values.shape, quant, quantise(values, quant))

    def constant_values(self, name: str) -> np.ndarray:
        """Return the content of a constant tensor of the workload in double precision."""
        tensor = self.program.parameters[name]["value"]
        array: np.ndarray = tensor.detach().cpu().double().numpy()
        return array

    # Operators --------------------------------------------------------------------------------

    def emit(
        self, node: Node | str, kind: str, inputs: list[TFTensor], out: TFTensor, **options: Any
    ) -> TFTensor:
        """Append an operator that is charged to ``node`` and return its output."""
        self.graph.operators.append(TFOperator(kind, inputs, [out], options))
        name = node if isinstance(node, str) else node.name
        if name in self.tensors_of:
            self.tensors_of[name].append(out.name)
        return out

    def reshape(
        self,
        node: Node | str,
        x: TFTensor,
        shape: Sequence[int],
        name: str,
        always: bool = False,
    ) -> TFTensor:
        """Return ``x`` with another stored shape; the leading axis stays free for the batch.

        Where nothing changes there is no operator, unless a tensor of the workload needs its name
        or ``always`` is set.
        """
        shape = tuple(int(d) for d in shape)
        if shape == x.shape and name not in self.workload.shapes and not always:
            return x
        assert x.quant is not None
        out = self.tensor(name, shape, x.quant)
        free = (-1, *shape[1:])
        return self.emit(
            node, "RESHAPE", [x, self.integers(f"{out.name}/shape", free)], out, NewShape=free
        )

    def transpose(self, node: Node | str, x: TFTensor, dims: Sequence[int], name: str) -> TFTensor:
        """Return ``x`` with its stored axes permuted.

        Axes that stay side by side move as one where there are many: kernels take few axes.
        """
        assert x.quant is not None
        if len(dims) > 4:
            runs = _runs(dims)
            starts = sorted(range(len(runs)), key=lambda k: runs[k][0])
            shape = [math.prod(x.shape[d] for d in runs[k]) for k in starts]
            if len(runs) < len(dims):
                merged = self.reshape(node, x, shape, f"{name}:merged")
                swapped = [starts.index(k) for k in range(len(runs))]
                moved = self.transpose(node, merged, swapped, f"{name}:moved")
                return self.reshape(node, moved, [x.shape[d] for d in dims], name)
        out = self.tensor(name, [x.shape[d] for d in dims], x.quant)
        return self.emit(node, "TRANSPOSE", [x, self.integers(f"{out.name}/dims", dims)], out)

    def requantise(self, node: Node, x: TFTensor, quant: Quant, name: str) -> TFTensor:
        """Return ``x`` in another quantisation."""
        if x.quant == quant:
            return x
        return self.emit(node, "QUANTIZE", [x], self.tensor(name, x.shape, quant))

    # Values -----------------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        """Return an activation as it is stored."""
        return self.values[name]

    def ordered(self, node: Node, name: str, order: Order) -> TFTensor:
        """Return an activation stored in ``order``; data moves only if it must."""
        value = self.values[name]
        if value.order == order:
            return value.tensor
        key = (name, order)
        if key not in self._turned:
            shape, charged = value.shape, value.owner or node.name
            label = f"{name}:{''.join(map(str, order))}"
            if same_memory(shape, value.order, order):
                turned = self.reshape(charged, value.tensor, stored(shape, order), label)
            else:
                dims = permutation(value.order, order)
                turned = self.transpose(charged, value.tensor, dims, label)
            self._turned[key] = turned
        return self._turned[key]

    def operand(
        self, node: Node, position: int, order: Order, quant: Quant | None = None
    ) -> TFTensor:
        """Return input ``position`` for broadcasting: rank and order of ``order``.

        A constant becomes int8, in ``quant`` where that is given.

        Raises:
            UnsupportedOp: An activation has fewer axes than the result.
        """
        name, rank = node.inputs[position], len(order)
        if name in self.workload.constants:
            array = self.constant_values(name)
            array = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(order)
            return self.constant(f"{node.output}/input{position}", array, quant)
        value = self.values[name]
        if len(value.order) == rank:
            return self.ordered(node, name, order)
        raise UnsupportedOp(
            f"{node.name}: {node.op.kind} of activations with {len(value.order)} and {rank} axes",
            "give both the same number of axes, the batch first",
        )

    def define(self, node: Node, tensor: TFTensor, order: Order) -> None:
        """Bind the output of ``node`` after applying an activation that is not fused."""
        from chipfit.export.tflite.activations import activate

        if tensor.name != node.output and node.op.activation != "none":
            tensor = activate(self, node, tensor, order)
        self.values[node.output] = Value(tensor, order)
