# SPDX-License-Identifier: Apache-2.0
"""Trace any ``nn.Module`` to a :class:`Workload`, or, with its weights, to a :class:`Program`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import chipfit.graph.lowering  # noqa: F401  (registers the handlers)
from chipfit.errors import BadInput
from chipfit.graph.fuse import fuse
from chipfit.graph.op import make_op
from chipfit.graph.record import RawNode, Recorder
from chipfit.graph.workload import Node, Program, Workload


def trace(net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> Workload:
    """Return the fused operators of ``net`` in evaluation mode.

    Args:
        net: Any module whose forward pass takes tensors and returns tensors.
        example: The input, ``(1, C, H, W)`` for images, or a sequence of inputs.

    Raises:
        BadInput: The network fails on the example, or its output does not depend on it.
    """
    return capture(net, example).workload


def capture(net: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> Program:
    """Return the fused operators of ``net`` with their folded parameters (float32, CPU).

    The network runs once without gradients, in evaluation mode; its mode is restored.
    Arguments and errors as in :func:`trace`.
    """
    tensors = [example] if isinstance(example, torch.Tensor) else list(example)
    place = next((t.device for t in net.parameters()), torch.device("cpu"))
    inputs = [x.to(place).clone() for x in tensors]
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    recorder = Recorder(net)
    for x in inputs:
        recorder.add_input(x)
    try:
        with torch.no_grad(), recorder.watching_modules(), recorder:
            result = net(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise BadInput(
            f"{type(net).__name__} fails on an input of shape {shapes}: {error}",
            "give the shape it expects, for instance --input 1,3,224,224",
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    leaves = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
    if not any(recorder.is_activation(x) for x in leaves):
        raise BadInput(
            f"the output of {type(net).__name__} does not depend on its input",
            "its forward pass may detach the data or leave PyTorch",
        )
    outputs = [recorder.ref(x) for x in leaves if recorder.is_activation(x)]
    return _freeze(recorder, fuse(recorder, outputs), outputs)


def _freeze(recorder: Recorder, raw: list[RawNode], outputs: list[str]) -> Program:
    names = _unique_names(raw, set(recorder.inputs) | set(recorder.constants))
    rename = {node.output: name for node, name in zip(raw, names, strict=True)}
    nodes: list[Node] = []
    shapes = {name: recorder.shapes[name] for name in recorder.inputs}
    parameters: dict[str, dict[str, torch.Tensor]] = {}
    constants: set[str] = set()
    for node, name in zip(raw, names, strict=True):
        fixed = [i for i, n in enumerate(node.inputs) if n in recorder.constants]
        for i in fixed:
            constants.add(node.inputs[i])
            shapes[node.inputs[i]] = recorder.shapes[node.inputs[i]]
            parameters[node.inputs[i]] = {"value": recorder.constants[node.inputs[i]]}
        inputs = tuple(rename.get(n, n) for n in node.inputs)
        op = make_op(
            node.kind, [shapes[n] for n in inputs], node.shape,
            activation=node.activation, constants=fixed, **node.attrs,
        )  # fmt: skip
        shapes[name] = op.output
        if node.params:
            parameters[name] = {k: v.float().contiguous() for k, v in node.params.items()}
        nodes.append(Node(name, op, inputs, name, node.module, tuple(node.absorbed)))
    leaving = tuple(dict.fromkeys(rename.get(name, name) for name in outputs))
    workload = Workload(tuple(nodes), tuple(recorder.inputs), leaving, shapes, frozenset(constants))
    return Program(workload, parameters)


def _unique_names(raw: list[RawNode], taken: set[str]) -> list[str]:
    """Name a node by its module where it is alone there, else by module and kind."""
    alone = Counter(node.place for node in raw)
    names: list[str] = []
    used = Counter[str](taken)
    for node in raw:
        kind = node.activation if node.kind == "activation" else node.kind
        if (node.module and node.module == node.place) or (node.place and alone[node.place] == 1):
            name = node.place
        else:
            name = f"{node.place}.{kind}" if node.place else kind
        used[name] += 1
        while used[name] > 1:
            name = f"{name}#{used[name]}"
            used[name] += 1
        names.append(name)
    return names
