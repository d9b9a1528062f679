# SPDX-License-Identifier: Apache-2.0
"""Trace any ``nn.Module`` to a :class:`Workload`, or, with its weights, to a :class:`Program`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import chipfit.graph.lowering  # noqa: F401  (registers the handlers)
from chipfit.errors import BadInput
from chipfit.graph.fuse import fuse
from chipfit.graph.op import make_op
from chipfit.graph.record import RawNode, Recorder
from chipfit.graph.run import explained, output_tensors, running_plainly, unwrapped
from chipfit.graph.workload import Node, Program, Workload

#: What a network is called with: a tensor, a sequence of positional arguments, or keyword
#: arguments by name; arguments may be nested lists and dicts of tensors.
Example = torch.Tensor | Sequence[Any] | Mapping[str, Any]


def trace(net: nn.Module, example: Example) -> Workload:
    """Return the fused operators of ``net`` in evaluation mode.

    A network whose parameters are on the meta device is traced there, by shapes alone, whatever
    its size.

    Args:
        net: Any module whose forward pass takes tensors and returns tensors, in any nesting of
            lists, tuples, dicts and data classes.
        example: The input, ``(1, C, H, W)`` for images; a sequence of arguments; or a mapping of
            keyword arguments. Floating-point inputs are converted to the network's own type.

    Raises:
        BadInput: The network fails on the example, or its output does not depend on it.
    """
    return capture(net, example).workload


def capture(net: nn.Module, example: Example) -> Program:
    """Return the fused operators of ``net`` with their folded parameters (float32, CPU).

    The network runs once without gradients, in evaluation mode; its mode is restored.
    Arguments and errors as in :func:`trace`.
    """
    net = unwrapped(net)
    positional, keywords = _arguments(net, example)
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    recorder = Recorder(net)
    for x in tree_leaves((positional, keywords)):
        if isinstance(x, torch.Tensor):
            recorder.add_input(x)
    try:
        with running_plainly(), recorder.watching_modules(), recorder:
            result = net(*positional, **keywords)
    except Exception as error:  # the network's own code may raise anything
        raise explained(net, error, tree_leaves((positional, keywords))) from error
    finally:
        for module, training in modes:
            module.training = training
    leaves = output_tensors(result)
    if not leaves:
        raise BadInput(
            f"{type(net).__name__} returns a {type(result).__name__} that holds no tensor",
            "its forward pass must return a tensor, or tensors in a list, dict or data class",
        )
    if not any(recorder.is_activation(x) for x in leaves):
        raise BadInput(
            f"the output of {type(net).__name__} does not depend on its input",
            "its forward pass may detach the data or leave PyTorch",
        )
    outputs = [recorder.ref(x) for x in leaves if recorder.is_activation(x)]
    reached = recorder.sources_of(outputs)
    return _freeze(recorder, fuse(recorder, outputs), outputs, reached)


def _arguments(net: nn.Module, example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return copies of the arguments on the network's device and in its type."""
    states = [t for t in net.parameters() if not isinstance(t, nn.UninitializedParameter)]
    place = next((t.device for t in states), None)
    floating = next((t.dtype for t in states if t.dtype.is_floating_point), None)

    def ready(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        dtype = floating if x.dtype.is_floating_point and floating is not None else x.dtype
        moved = x.to(device=x.device if place is None else place, dtype=dtype)
        return moved.clone() if moved is x else moved

    if isinstance(example, Mapping):
        return (), {name: tree_map(ready, value) for name, value in example.items()}
    given = [example] if isinstance(example, torch.Tensor) else list(example)
    return tuple(tree_map(ready, value) for value in given), {}


def _freeze(
    recorder: Recorder, raw: list[RawNode], outputs: list[str], reached: frozenset[str]
) -> Program:
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
            parameters[node.inputs[i]] = {"value": _plain(recorder.constants[node.inputs[i]])}
        inputs = tuple(rename.get(n, n) for n in node.inputs)
        op = make_op(
            node.kind, [shapes[n] for n in inputs], node.shape,
            activation=node.activation, constants=fixed, **node.attrs,
        )  # fmt: skip
        shapes[name] = op.output
        if 0 in op.output:
            raise BadInput(
                f"{name} makes a tensor of shape {op.output}, which holds nothing",
                "a layer with no channels, or an image too small for the network",
            )
        if node.params:
            parameters[name] = {k: _plain(v) for k, v in node.params.items()}
        nodes.append(Node(name, op, inputs, name, node.module, tuple(node.absorbed)))
    leaving = tuple(dict.fromkeys(rename.get(name, name) for name in outputs))
    workload = Workload(tuple(nodes), tuple(recorder.inputs), leaving, shapes, frozenset(constants))
    return Program(workload, parameters, reached)


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous() if value.is_complex() else value.float().contiguous()


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
