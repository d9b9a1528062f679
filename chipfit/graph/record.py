# SPDX-License-Identifier: Apache-2.0
"""Record what a module computes, by running it once and watching every PyTorch call.

The network really runs, on the user's example input, so any Python control flow works. Calls
are understood by the handlers of :mod:`chipfit.graph.lowering`; one that no handler knows is
recorded as an ``unsupported`` operator with its name and place.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from chipfit.graph.op import Shape

#: A handler records the operators behind one call: ``handler(recorder, result, *args, **kwargs)``.
Handler = Callable[..., None]
HANDLERS: dict[str, Handler] = {}


def lowers(*names: str) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the handler of the calls named ``names``."""

    def add(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return add


class Declined(Exception):
    """A handler meets a variant of its call that it cannot express."""


@dataclass
class RawNode:
    """An operator under construction; fusion edits it before it is frozen into a ``Node``."""

    kind: str
    inputs: list[str]
    output: str
    shape: Shape
    attrs: dict[str, Any]
    params: dict[str, torch.Tensor] = field(default_factory=dict)
    place: str = ""
    module: str = ""
    activation: str = "none"
    absorbed: list[str] = field(default_factory=list)


def _call_name(func: Any) -> str:
    name: str = getattr(func, "__name__", str(func))
    if name.startswith("__") and name.endswith("__") and name != "__get__":
        name = name.strip("_")
        if name in ("iadd", "radd", "isub", "imul", "rmul", "itruediv", "rmatmul", "imatmul"):
            name = name[1:]
        return {"truediv": "div", "rsub": "rsub", "rtruediv": "reciprocal_div"}.get(name, name)
    if name == "__get__":
        return "get_" + str(getattr(func, "__self__", None)).split("'")[1]
    return name.rstrip("_") if len(name) > 1 else name


def host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in main memory; double precision stays, all else becomes float32."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _inside(func: types.FunctionType) -> Callable[..., Any]:
    """Return ``func`` of ``torch.nn.functional`` without its own hand-over to overrides."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    quiet = {name: lambda *_: False for name in checks}
    clone = types.FunctionType(
        func.__code__, {**func.__globals__, **quiet}, func.__name__, func.__defaults__
    )
    clone.__kwdefaults__ = func.__kwdefaults__
    return clone


class Recorder(TorchFunctionMode):
    """Watches one forward pass and collects :class:`RawNode` objects.

    Args:
        net: The network; its parameters and buffers are constants under their dotted names.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.nodes: list[RawNode] = []
        self.inputs: list[str] = []
        self.shapes: dict[str, Shape] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self._names: dict[int, str] = {}
        self._constant_names: dict[int, str] = {}
        self._expanded: dict[int, torch.Tensor] = {}
        self._alive: list[torch.Tensor] = []
        self._stack: list[str] = [""]
        self._modules = {id(m): name for name, m in net.named_modules()}
        states = (*net.named_parameters(), *net.named_buffers())
        self._states = {id(tensor): name for name, tensor in states}

    def add_input(self, tensor: torch.Tensor) -> None:
        """Make ``tensor`` an input of the network."""
        name = "input" if not self.inputs else f"input_{len(self.inputs)}"
        self.inputs.append(name)
        self._bind(tensor, name)

    def _bind(self, tensor: torch.Tensor, name: str) -> None:
        self._alive.append(tensor)
        self._names[id(tensor)] = name
        self._expanded.pop(id(tensor), None)
        self.shapes[name] = tuple(tensor.shape)

    def is_activation(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that depends on the network's input."""
        return isinstance(value, torch.Tensor) and (
            id(value) in self._names or id(value) in self._expanded
        )

    def is_constant(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that does not depend on the network's input."""
        return isinstance(value, torch.Tensor) and not self.is_activation(value)

    def ref(self, value: Any) -> str:
        """Return the name of a tensor; a tensor never seen before becomes a constant."""
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(float(value))
        if id(value) in self._expanded:
            small = self._expanded.pop(id(value))
            self.emit("add", [small, torch.zeros(value.shape)], value)
        if id(value) in self._names:
            return self._names[id(value)]
        if id(value) not in self._constant_names:
            name = self._states.get(id(value), f"const_{len(self.constants)}")
            self._alive.append(value)
            self._constant_names[id(value)] = name
            self.constants[name] = host(value)
            self.shapes[name] = tuple(value.shape)
        return self._constant_names[id(value)]

    def ref_broadcast(self, value: Any) -> str:
        """Like :meth:`ref`, but an expanded view is named by what was expanded."""
        return self.ref(self._expanded.get(id(value), value))

    def emit(
        self,
        kind: str,
        inputs: list[Any],
        out: torch.Tensor,
        *,
        params: dict[str, torch.Tensor] | None = None,
        broadcast: bool = False,
        activation: str = "none",
        **attrs: Any,
    ) -> None:
        """Record one operator that computes ``out`` from ``inputs`` (tensors or numbers)."""
        names = [self.ref_broadcast(x) if broadcast else self.ref(x) for x in inputs]
        weight = (params or {}).get("weight")
        owner = self._states.get(id(weight), "").rpartition(".")[0]
        node = RawNode(kind, names, f"t{len(self.nodes)}", tuple(out.shape), attrs)
        node.params = {k: host(v) for k, v in (params or {}).items()}
        node.place = self._stack[-1]
        node.module = owner
        node.activation = activation
        self.nodes.append(node)
        self._bind(out, node.output)

    def alias(self, out: torch.Tensor, source: torch.Tensor) -> None:
        """Record that ``out`` is ``source`` under another name."""
        if out is not source:
            self._bind(out, self.ref(source))

    def expand(self, out: torch.Tensor, source: torch.Tensor) -> None:
        """Record that ``out`` is ``source`` broadcast; it is materialised only where needed."""
        self._alive.append(out)
        self._expanded[id(out)] = self._expanded.get(id(source), source)

    def emit_unsupported(self, name: str, inputs: list[Any], results: list[torch.Tensor]) -> None:
        """Record a call that no handler understands, one node per result."""
        names = [self.ref(x) for x in inputs]
        for result in results:
            node = RawNode("unsupported", list(names), f"t{len(self.nodes)}",
                           tuple(result.shape), {"aten": name}, place=self._stack[-1])  # fmt: skip
            self.nodes.append(node)
            self._bind(result, node.output)

    def __torch_function__(
        self, func: Any, types_: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        active = [x for x in tree_leaves((args, kwargs)) if self.is_activation(x)]
        if not active:
            return func(*args, **kwargs)
        name = _call_name(func)
        handler = HANDLERS.get(name)
        if handler is None and isinstance(func, types.FunctionType):
            if func.__module__ == "torch.nn.functional":
                with self:
                    return _inside(func)(*args, **kwargs)
        result = func(*args, **kwargs)
        if name == "setitem":
            self.emit_unsupported("setitem", active, [args[0]])
            return result
        outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if not outputs:
            return result
        if handler is not None:
            try:
                handler(self, result, *args, **kwargs)
                return result
            except Declined as reason:
                name = f"{name}: {reason}"
        self.emit_unsupported(name, active, outputs)
        return result

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Keep the stack of module names while the network runs."""

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(self._modules.get(id(module), self._stack[-1]))

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            self._stack.pop()

        hooks = [
            nn_module.register_module_forward_pre_hook(enter),
            nn_module.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
