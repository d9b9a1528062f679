# SPDX-License-Identifier: Apache-2.0
"""A ``Program`` as a module with one submodule per operator, for runtimes that start from one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from chipfit.graph.execute import activate, run_op
from chipfit.graph.workload import Node, Program


class OperatorModule(nn.Module):
    """One node as a module of its own, so that exported names tell which node they belong to.

    Args:
        node: What it does.
        program: Where its parameters are.
    """

    def __init__(self, node: Node, program: Program) -> None:
        super().__init__()
        self.node = node
        self.roles = tuple(node.op.parameter_shapes)
        for role in self.roles:
            self.register_buffer(role, program.state(node, role).detach().float())

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the node's output."""
        state = {role: getattr(self, role) for role in self.roles}
        return activate(self.node.op, run_op(self.node.op, inputs, state), state)


class NetworkModule(nn.Module):
    """The operators in order; the submodule of node ``i`` is called ``node_i``.

    Args:
        program: What to run. Its parameters become buffers, shared where they are float32 already.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.load = program.workload
        self.constants: dict[str, str] = {}
        for i, node in enumerate(self.load.nodes):
            self.add_module(f"node_{i}", OperatorModule(node, program))
        for i, name in enumerate(sorted(self.load.constants)):
            self.constants[name] = f"constant_{i}"
            value = program.parameters[name]["value"].detach().float()
            self.register_buffer(self.constants[name], value)

    def fresh(self) -> NetworkModule:
        """Return a copy with tensors of its own, elsewhere in memory; the rest is shared."""
        shared = [self.load, *(node for node in self.load.nodes)]
        return copy.deepcopy(self, {id(thing): thing for thing in shared})

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs, always as a tuple."""
        values = dict(zip(self.load.inputs, inputs, strict=True))
        values |= {name: getattr(self, slot) for name, slot in self.constants.items()}
        for i, node in enumerate(self.load.nodes):
            values[node.output] = getattr(self, f"node_{i}")(*[values[n] for n in node.inputs])
        return tuple(values[name] for name in self.load.outputs)
