# SPDX-License-Identifier: Apache-2.0
"""Run a ``Program`` with PyTorch, and fill a bare ``Workload`` with synthetic weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.graph.kernels import KERNELS, State, activate, run_op
from chipfit.graph.workload import Node, Program, Workload

__all__ = [
    "WorkloadModule", "activate", "refuse_unsupported", "run_op", "synthetic_parameters",
]  # fmt: skip

#: Receives every tensor of a forward pass: ``observe(name, tensor)``.
Observer = Callable[[str, torch.Tensor], None]


def refuse_unsupported(workload: Workload) -> None:
    """Raise ``UnsupportedOp`` naming the operators that have no meaning for chipfit."""
    bad = [node for node in workload.nodes if node.op.kind not in KERNELS]
    if bad:
        places = ", ".join(f"{n.name}: {n.op.get('aten', n.op.kind)}" for n in bad[:8])
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise UnsupportedOp(
            f"{len(bad)} operator(s) cannot be executed: {places}{more}",
            "replace them with supported operators",
        )


class WorkloadModule(nn.Module):
    """A ``Program`` as a module; parameters are frozen copies, any batch size passes.

    Args:
        program: What to run.
        observe: Called with every input, every output of a node and, under ``<output>:pre``, every
            value before a fused activation.

    Raises:
        UnsupportedOp: An operator is not understood; the message names all of them.
        BadInput: The network was traced on the meta device.
    """

    def __init__(self, program: Program, observe: Observer | None = None) -> None:
        super().__init__()
        refuse_unsupported(program.workload)
        self.workload = program.workload
        self.observe = observe
        self._slots: dict[str, dict[str, str]] = {}
        names = [node.name for node in self.workload.nodes] + sorted(self.workload.constants)
        for index, name in enumerate(names):
            roles = program.parameters.get(name, {})
            self._slots[name] = {role: f"p{index}_{role}" for role in roles}
            if any(value.is_meta for value in roles.values()):
                raise BadInput(
                    f"the weights of {name} are on the meta device and have no values",
                    "build the network on the CPU",
                )
            for role, value in roles.items():
                copy = nn.Parameter(value.detach().clone().float(), requires_grad=False)
                self.register_parameter(f"p{index}_{role}", copy)

    def state_of(self, name: str) -> State:
        """Return the parameters of the node, or of the constant tensor, called ``name``."""
        return {role: getattr(self, slot) for role, slot in self._slots[name].items()}

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the outputs, a bare tensor where there is one.

        Args:
            inputs: One tensor per input of the workload; the leading axis may be any batch.

        Raises:
            BadInput: The number of inputs differs.
        """
        load = self.workload
        if len(inputs) != len(load.inputs):
            raise BadInput(f"{len(inputs)} inputs were given, the network has {len(load.inputs)}")
        values = dict(zip(load.inputs, inputs, strict=True))
        for name, value in values.items():
            self._report(name, value)
        values |= {name: self.state_of(name)["value"] for name in load.constants}
        last = {name: span[1] for name, span in load.lifetimes.items()}
        for index, node in enumerate(load.nodes):
            values[node.output] = self._run(node, [values[name] for name in node.inputs])
            for name in node.inputs:
                if last.get(name, len(load.nodes)) <= index and name not in load.outputs:
                    values.pop(name, None)
        outputs = tuple(values[name] for name in load.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        parameters = self.state_of(node.name)
        result = run_op(node.op, inputs, parameters)
        if node.op.activation != "none":
            if node.op.kind != "activation":
                self._report(f"{node.output}:pre", result)
            result = activate(node.op, result, parameters)
        self._report(node.output, result)
        return result

    def _report(self, name: str, value: torch.Tensor) -> None:
        if self.observe is not None:
            self.observe(name, value)


def _draw(shape: Sequence[int], role: str, label: str) -> torch.Tensor:
    digest = hashlib.sha256(label.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    normal = torch.randn(tuple(shape), generator=generator)
    if role == "weight" and len(shape) >= 2:
        return normal * math.sqrt(2.0 / math.prod(shape[1:]))
    if role in ("weight", "scale", "value"):
        return 1.0 + 0.1 * normal
    return 0.25 + 0.05 * normal if role == "slope" else 0.1 * normal


def synthetic_parameters(workload: Workload, seed: int | None = None) -> Program:
    """Return ``workload`` with weights drawn as an initialiser would draw them.

    Compilers compress weights, so a cost needs weights with a plausible distribution. They depend
    on the structure of the workload and on ``seed`` alone, not on the global random state.
    """
    parameters: dict[str, State] = {}
    for index, node in enumerate(workload.nodes):
        label = f"{workload.key}/{node.op.key}/{index}/{seed}"
        norm = node.op.kind in ("layer_norm", "group_norm")
        parameters[node.name] = {
            role: _draw(shape, "scale" if norm and role == "weight" else role, f"{label}/{role}")
            for role, shape in node.op.parameter_shapes.items()
        }
    for index, name in enumerate(sorted(workload.constants)):
        label = f"{workload.key}/constant/{index}/{seed}"
        parameters[name] = {"value": _draw(workload.shapes[name], "value", label)}
    return Program(workload, parameters)
