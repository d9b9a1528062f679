# SPDX-License-Identifier: Apache-2.0
"""Tracing a network to a graph of named modules, with the shape of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


class _Tracer(fx.Tracer):
    """Traces into every module but PyTorch's own and those that were found untraceable."""

    def __init__(self, leaves: set[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Sequential) and not (m._forward_hooks or m._forward_pre_hooks):
            return module_qualified_name in self.leaves
        hooked = bool(m._forward_hooks or m._forward_pre_hooks)
        known = super().is_leaf_module(m, module_qualified_name)
        return hooked or known or module_qualified_name in self.leaves

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # fmt: skip
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise


def traced(net: nn.Module) -> fx.GraphModule | None:
    """Return ``net``, in evaluation mode, as a graph over its own modules.

    A submodule whose control flow depends on the data stays a single node; ``None`` where the
    network itself is such.
    """
    leaves: set[str] = set()
    while True:
        tracer = _Tracer(leaves)
        try:
            graph = tracer.trace(net)
        except Exception:  # the network's own code may raise anything
            if not tracer.failed:
                return None
            leaves.add(tracer.failed)
            continue
        return fx.GraphModule(net, graph, type(net).__name__)


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of what every node computes."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        real = isinstance(result, Tensor) and result.is_floating_point()
        n.meta["type"] = {"dtype": result.dtype, "device": result.device} if real else None
        return result


def note_shapes(module: fx.GraphModule, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Run ``module`` once and put ``meta["shape"]`` and ``meta["type"]`` on its nodes.

    The type is there for tensors of real numbers only.
    """
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    values = list(arguments)
    for node in places[len(values) :]:
        name = str(node.target).lstrip("*")
        if name in named:
            values.append(named[name])
        elif node.args:
            values.append(node.args[0])
        else:
            break
    with torch.no_grad():
        _Shapes(module).run(*values, enable_io_processing=False)


def constants_of(module: fx.GraphModule) -> dict[fx.Node, Any]:
    """Return the values of all nodes that depend on parameters and numbers alone."""
    found: dict[fx.Node, Any] = {}
    runner = fx.Interpreter(module)
    with torch.no_grad():
        for node in module.graph.nodes:
            sources = node.all_input_nodes
            if node.op == "get_attr":
                found[node] = runner.fetch_attr(str(node.target))
            elif node.op in ("call_function", "call_method", "call_module") and sources:
                if all(source in found for source in sources) and not random(node):
                    runner.env = dict(found)
                    found[node] = runner.run_node(node)
    return found


def random(node: fx.Node) -> bool:
    """Whether ``node`` draws random numbers even in evaluation mode."""
    if node.target in (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout):
        return True
    return any(word in str(node.target) for word in ("rand", "bernoulli", "normal_", "uniform_"))
