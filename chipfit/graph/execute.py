# SPDX-License-Identifier: Apache-2.0
"""Run a ``Program`` with PyTorch, and fill a bare ``Workload`` with synthetic weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from chipfit.errors import BadInput, UnsupportedOp
from chipfit.graph.op import Op
from chipfit.graph.workload import Node, Program, Workload

#: Receives every tensor of a forward pass: ``observe(name, tensor)``.
Observer = Callable[[str, torch.Tensor], None]
State = dict[str, torch.Tensor]
Kernel = Callable[[Op, Sequence[torch.Tensor], State], torch.Tensor]

_KERNELS: dict[str, Kernel] = {}


def _kernel(*kinds: str) -> Callable[[Kernel], Kernel]:
    def add(function: Kernel) -> Kernel:
        for kind in kinds:
            _KERNELS[kind] = function
        return function

    return add


def _per_channel(vector: torch.Tensor, rank: int) -> torch.Tensor:
    return vector.reshape(1, -1, *[1] * (rank - 2))


@_kernel("conv2d")
def _conv2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    image, padding = x[0], (top, left)
    if (top, left) != (bottom, right):
        image, padding = F.pad(image, (left, right, top, bottom)), (0, 0)
    return F.conv2d(
        image, p["weight"], p.get("bias"), op["stride"], padding, op["dilation"], op["groups"]
    )


@_kernel("linear")
def _linear(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.linear(x[0], p["weight"], p.get("bias"))


@_kernel("matmul")
def _matmul(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return torch.matmul(x[0], x[1])


@_kernel("add", "sub", "mul", "div")
def _arithmetic(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    if op.kind == "add":
        return x[0] + x[1]
    if op.kind == "sub":
        return x[0] - x[1]
    return x[0] * x[1] if op.kind == "mul" else x[0] / x[1]


@_kernel("batch_norm")
def _batch_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    rank = len(op.output)
    return x[0] * _per_channel(p["scale"], rank) + _per_channel(p["shift"], rank)


@_kernel("layer_norm")
def _layer_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    shape = [op.output[axis] for axis in op["axes"]]
    return F.layer_norm(x[0], shape, p.get("weight"), p.get("bias"), op["eps"])


@_kernel("group_norm")
def _group_norm(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.group_norm(x[0], op["groups"], p.get("weight"), p.get("bias"), op["eps"])


@_kernel("concat")
def _concat(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    parts = list(x)
    if op["axis"] != 0 and op.constants and len(op.constants) < len(parts):
        # A constant (a class token, say) is stored once and follows the batch of the others.
        live = next(t for i, t in enumerate(parts) if i not in op.constants)
        for i in op.constants:
            parts[i] = parts[i].expand(live.shape[0], *parts[i].shape[1:])
    return torch.cat(parts, op["axis"])


@_kernel("slice")
def _slice(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    index: list[slice] = [slice(None)] * len(op.output)
    index[op["axis"]] = slice(op["start"], op["end"], op["step"])
    return x[0][tuple(index)]


@_kernel("pad")
def _pad(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    sides = [side for both in reversed(op["padding"]) for side in both]
    return F.pad(x[0], sides, value=op["value"])


@_kernel("max_pool2d")
def _max_pool2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    kernel = op["kernel"]
    if (top, left) == (bottom, right) and 2 * top <= kernel[0] and 2 * left <= kernel[1]:
        return F.max_pool2d(x[0], kernel, op["stride"], (top, left))
    image = F.pad(x[0], (left, right, top, bottom), value=-math.inf)
    return F.max_pool2d(image, kernel, op["stride"])


@_kernel("avg_pool2d")
def _avg_pool2d(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    top, bottom, left, right = op["padding"]
    sides = (left, right, top, bottom)
    pooled = F.avg_pool2d(F.pad(x[0], sides), op["kernel"], op["stride"])
    if op["count_include_pad"] or not any(sides):
        return pooled
    ones = F.pad(torch.ones(1, 1, *op.inputs[0][2:], dtype=pooled.dtype), sides)
    return pooled / F.avg_pool2d(ones, op["kernel"], op["stride"]).to(pooled.device)


@_kernel("mean")
def _mean(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].mean(op["axes"], keepdim=op["keepdim"])


@_kernel("amax")
def _amax(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].amax(op["axes"], keepdim=op["keepdim"])


@_kernel("resize")
def _resize(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    corners = bool(op["align_corners"]) if op["mode"] == "bilinear" else None
    return F.interpolate(x[0], op.output[2:], mode=op["mode"], align_corners=corners)


@_kernel("pixel_shuffle")
def _pixel_shuffle(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.pixel_shuffle(x[0], op["factor"])


@_kernel("pixel_unshuffle")
def _pixel_unshuffle(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return F.pixel_unshuffle(x[0], op["factor"])


@_kernel("softmax")
def _softmax(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return torch.softmax(x[0], op["axis"])


@_kernel("permute")
def _permute(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0].permute(op["dims"])


@_kernel("reshape")
def _reshape(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    # The leading axis carries the batch, so that any batch size can pass.
    return x[0].reshape(-1, *op.output[1:]) if op.output else x[0].reshape(())


@_kernel("activation")
def _identity(op: Op, x: Sequence[torch.Tensor], p: State) -> torch.Tensor:
    return x[0]


def activate(op: Op, x: torch.Tensor, parameters: State) -> torch.Tensor:
    """Apply the activation of ``op`` to ``x`` (any shape; prelu's slope lies along axis 1)."""
    simple: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "none": lambda t: t, "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid, "silu": F.silu,
        "tanh": torch.tanh, "softplus": F.softplus, "mish": F.mish,
    }  # fmt: skip
    if op.activation in simple:
        return simple[op.activation](x)
    if op.activation == "gelu":
        return F.gelu(x, approximate=op.get("approximate", "none"))
    if op.activation == "leaky_relu":
        return F.leaky_relu(x, op.get("slope", 0.01))
    if op.activation == "elu":
        return F.elu(x, op.get("alpha", 1.0))
    if op.activation == "prelu":
        return F.prelu(x, parameters["slope"])
    raise UnsupportedOp(f"unknown activation {op.activation!r}")


def run_op(op: Op, inputs: Sequence[torch.Tensor], parameters: State) -> torch.Tensor:
    """Compute one operator without its activation."""
    return _KERNELS[op.kind](op, inputs, parameters)


def refuse_unsupported(workload: Workload) -> None:
    """Raise ``UnsupportedOp`` naming the operators that have no meaning for chipfit."""
    bad = [node for node in workload.nodes if node.op.kind not in _KERNELS]
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
