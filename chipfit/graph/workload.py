# SPDX-License-Identifier: Apache-2.0
"""``Workload``: a network as a sequence of fused operators, and ``Program``: with its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from chipfit.errors import BadInput
from chipfit.graph.op import Op, Shape

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Node:
    """One operator at its place.

    Args:
        name: Unique; the dotted name of the module that does the work where there is one.
        op: What it does.
        inputs: Names of the tensors it reads, constants included, in the order of ``op.inputs``.
        output: Name of the tensor it writes.
        module: Dotted name of the module that owns the weight (``""`` for a bare function).
        absorbed: Names of modules folded into this operator (batch norm, activation, padding).
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    output: str
    module: str = ""
    absorbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """Operators in execution order.

    Args:
        nodes: The operators; every one writes one tensor.
        inputs: Names of the network's input tensors.
        outputs: Names of its output tensors.
        shapes: Shape of every tensor by name, constants included.
        constants: Names of tensors that are parameters of the network.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    constants: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def producer(self) -> dict[str, int]:
        """Index of the node that writes a tensor, by the tensor's name."""
        return {node.output: i for i, node in enumerate(self.nodes)}

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass."""
        return sum(node.op.macs for node in self.nodes)

    @cached_property
    def parameter_count(self) -> int:
        """Folded parameters; a constant tensor that several operators read counts once."""
        own = sum(math.prod(shape) for n in self.nodes for shape in n.op.parameter_shapes.values())
        return own + sum(math.prod(self.shapes[name]) for name in self.constants)

    @cached_property
    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """First and last node index at which an activation must be in memory.

        An input of the network lives from 0; an output lives to the last node.
        """
        first = {name: 0 for name in self.inputs}
        last = {name: 0 for name in self.inputs}
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                if name not in self.constants:
                    last[name] = i
            first[node.output] = last[node.output] = i
        for name in self.outputs:
            last[name] = len(self.nodes) - 1
        return {name: (first[name], last[name]) for name in first}

    @cached_property
    def batched(self) -> bool:
        """Whether axis 0 is the batch everywhere, so that any batch size can run."""
        for node in self.nodes:
            op = node.op
            moved = op.kind == "permute" and op["dims"][0] != 0
            cut = op.kind in ("slice", "concat", "softmax", "gather", "cumsum") and op["axis"] == 0
            reduced = op.kind in ("mean", "amax") and 0 in op["axes"]
            reshaped = op.kind == "reshape" and op.output[:1] != op.inputs[0][:1]
            if moved or cut or reduced or reshaped:
                return False
        return True

    def peak_activation_elements(self) -> int:
        """Largest sum of live activation elements over the execution order.

        Reshapes are counted as views: their output shares the memory of their input.
        :func:`chipfit.graph.operator_order.best_order` finds the order in which it is least.
        """
        from chipfit.graph.memory_graph import peak_bytes

        return peak_bytes(self)

    def window(self, start: int, stop: int) -> Workload:
        """Return nodes ``start:stop`` as a workload of their own.

        Tensors made outside become inputs; tensors read outside, or by nobody, become outputs.
        """
        nodes = self.nodes[start:stop]
        made = {node.output for node in nodes}
        read = {name for node in nodes for name in node.inputs}
        later = {name for node in self.nodes[stop:] for name in node.inputs} | set(self.outputs)
        constants = read & self.constants
        inputs = tuple(
            dict.fromkeys(name for n in nodes for name in n.inputs if name not in made | constants)
        )
        outputs = tuple(n.output for n in nodes if n.output in later or n.output not in read)
        shapes = {name: self.shapes[name] for name in sorted(made | read)}
        return Workload(nodes, inputs, outputs, shapes, frozenset(constants))

    def part(self, indices: Sequence[int]) -> Workload:
        """Return the nodes at ``indices`` (ascending) as a workload of their own.

        Unlike in :meth:`window`, a tensor that a node of the part reads is no output of it, even
        where others outside read it too.
        """
        nodes = tuple(self.nodes[i] for i in indices)
        made = {node.output for node in nodes}
        read = dict.fromkeys(name for node in nodes for name in node.inputs)
        inputs = tuple(n for n in read if n not in made and n not in self.constants)
        outputs = tuple(node.output for node in nodes if node.output not in read)
        shapes = {name: self.shapes[name] for name in (*read, *outputs)}
        return Workload(nodes, inputs, outputs, shapes, frozenset(read) & self.constants)

    @cached_property
    def key(self) -> str:
        """A stable identity (hex) by structure: operators and wiring, whatever the names."""
        index: dict[str, int] = {}
        parts = []
        for name in (*self.inputs, *(n.output for n in self.nodes)):
            index[name] = len(index)
        for name in sorted(self.constants):
            index.setdefault(name, -1)
        for node in self.nodes:
            parts.append(node.op.key + ":" + ",".join(str(index[name]) for name in node.inputs))
        parts.append(">" + ",".join(str(index[name]) for name in self.outputs))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


Parameters = Mapping[str, Mapping[str, "torch.Tensor"]]


@dataclass(frozen=True)
class Program:
    """A workload with its parameters: what exporters and interpreters run.

    Args:
        workload: The operators.
        parameters: By node name, the tensors of ``node.op.parameter_shapes`` (batch norm already
            folded in, float32); a constant tensor stands under its own name as ``"value"``.
        reached: Dotted names of the network's parameters that its outputs depend on.
    """

    workload: Workload
    parameters: Parameters = field(repr=False)
    reached: frozenset[str] = field(default=frozenset(), repr=False)

    def state(self, node: Node, role: str) -> torch.Tensor:
        """Return the parameter ``role`` of ``node``.

        Raises:
            BadInput: The network was traced on the meta device, and has no values.
        """
        value = self.parameters[node.name][role]
        if value.is_meta:
            raise BadInput(
                f"the weights of {node.name} are on the meta device and have no values",
                "use the program's workload, or build the network on the CPU",
            )
        return value

    def window(self, start: int, stop: int) -> Program:
        """Return nodes ``start:stop`` with their parameters."""
        part = self.workload.window(start, stop)
        names: Sequence[str] = [n.name for n in part.nodes] + sorted(part.constants)
        kept = {name: self.parameters[name] for name in names if name in self.parameters}
        return Program(part, kept)
