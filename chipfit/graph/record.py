# SPDX-License-Identifier: Apache-2.0
"""Record what a module computes, by running it once and watching every PyTorch call.

The network really runs, on the user's example input, so any Python control flow works. Calls
are understood by the handlers of :mod:`chipfit.graph.lowering`; one that no handler knows is
recorded as an ``unsupported`` operator with its name and place.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from chipfit.graph.calls import call_name, inside, version, writes
from chipfit.graph.handlers import ANY_DTYPE, HANDLERS, Declined, RawNode, host, refuse_numbers
from chipfit.graph.ledger import Ledger
from chipfit.graph.module_hooks import module_hooks
from chipfit.graph.op import Shape


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
        #: What constants held before the call under way wrote into them.
        self.before: dict[int, torch.Tensor] = {}
        self._ledger = Ledger()
        self._constant_names: dict[tuple[int, int], str] = {}
        self._kept: list[torch.Tensor] = []
        self._stack: list[str] = [""]
        self._sources: frozenset[str] = frozenset()
        self._modules = {id(m): name for name, m in net.named_modules()}
        self._by_name = dict(net.named_modules())
        self._parameters = {id(tensor): name for name, tensor in net.named_parameters()}
        self._states = {id(tensor): name for name, tensor in net.named_buffers()}
        self._states |= self._parameters

    def add_input(self, tensor: torch.Tensor) -> None:
        """Make ``tensor`` an input of the network."""
        name = "input" if not self.inputs else f"input_{len(self.inputs)}"
        self.inputs.append(name)
        self._kept.append(tensor)
        self._bind(tensor, name)

    def _bind(self, tensor: torch.Tensor, name: str) -> None:
        self._ledger.add(tensor, name=name)
        self.shapes[name] = tuple(tensor.shape)

    def is_activation(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that depends on the network's input."""
        if not isinstance(value, torch.Tensor) or id(value) in self._parameters:
            return False
        entry = self._ledger.find(value)
        return entry is not None and entry.active

    def is_constant(self, value: Any) -> bool:
        """Whether ``value`` is a tensor that does not depend on the network's input."""
        return isinstance(value, torch.Tensor) and not self.is_activation(value)

    def ref(self, value: Any) -> str:
        """Return the name of a tensor; a tensor never seen before becomes a constant."""
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(float(value))
        if not self.is_activation(value):
            return self._constant(value)
        entry = self._ledger.find(value)
        assert entry is not None
        if entry.expanded is not None:
            self.emit("add", [entry.expanded, torch.zeros(value.shape)], value)
        elif entry.writer:
            names = [entry.writer] if entry.whole else [entry.name, entry.writer]
            kind, attrs = "reshape", {}
            if not entry.whole:
                kind, attrs = "unsupported", {"aten": "a write through another view"}
            self._append(RawNode(kind, names, "", tuple(value.shape), attrs), value)
        entry = self._ledger.find(value)
        assert entry is not None
        return entry.name

    def _constant(self, value: torch.Tensor) -> str:
        old = self.before.get(id(value), value)
        key = (id(value), version(old) if old is value else -1)
        if key not in self._constant_names:
            name = self._states.get(id(value), "") if old is value else ""
            if not name or name in self.constants:
                name = f"const_{len(self.constants)}"
            self._kept += [value, old]
            self._constant_names[key] = name
            own = old is value and id(value) in self._states
            self.constants[name] = host(value) if own else host(old).clone()
            self.shapes[name] = tuple(value.shape)
        return self._constant_names[key]

    def before_write(self, target: torch.Tensor) -> torch.Tensor:
        """Return a tensor that stands for what ``target`` held before the call under way."""
        if id(target) in self.before:
            return self.before[id(target)].clone()
        old = torch.empty_like(target)
        entry = self._ledger.find(target)
        assert entry is not None
        self._ledger.add(old, name=entry.name if not entry.whole else self.ref(target))
        return old

    def ref_broadcast(self, value: Any) -> str:
        """Like :meth:`ref`, but an expanded view is named by what was expanded."""
        entry = self._ledger.find(value) if isinstance(value, torch.Tensor) else None
        return self.ref(value if entry is None or entry.expanded is None else entry.expanded)

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
        node = RawNode(kind, names, "", tuple(out.shape), attrs)
        node.params = {k: host(v) for k, v in (params or {}).items()}
        node.module = self._owner((params or {}).get("weight"))
        node.activation = activation
        self._append(node, out)

    def _owner(self, weight: torch.Tensor | None) -> str:
        if weight is None:
            return ""
        if id(weight) in self._states:
            return self._states[id(weight)].rpartition(".")[0]
        # A weight computed on the fly (weight norm, a parametrisation) belongs to its module.
        module = self._by_name.get(self._stack[-1])
        shaped = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
        return self._stack[-1] if shaped else ""

    def _append(self, node: RawNode, out: torch.Tensor) -> None:
        node.output = f"t{len(self.nodes)}"
        node.place = self._stack[-1]
        node.sources = self._sources
        self.nodes.append(node)
        self._bind(out, node.output)

    def alias(self, out: torch.Tensor, source: torch.Tensor) -> None:
        """Record that ``out`` is ``source`` under another name."""
        if out is not source:
            self._bind(out, self.ref(source))

    def expand(self, out: torch.Tensor, source: torch.Tensor) -> None:
        """Record that ``out`` is ``source`` broadcast; it is materialised only where needed."""
        entry = self._ledger.find(source)
        small = entry.expanded if entry is not None and entry.expanded is not None else source
        self._ledger.add(out, expanded=small)

    def emit_unsupported(self, name: str, inputs: list[Any], results: list[torch.Tensor]) -> None:
        """Record a call that no handler understands, one node per result."""
        names = list(dict.fromkeys(self.ref(x) for x in inputs))
        for result in results:
            shape = tuple(result.shape)
            self._append(RawNode("unsupported", list(names), "", shape, {"aten": name}), result)

    def __torch_function__(
        self, func: Any, types_: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        active = [x for x in tensors if self.is_activation(x)]
        sources = self._sources_of(tensors)
        if not active:
            result = func(*args, **kwargs)
            if sources:
                self._derive(result, sources)
            return result
        name = call_name(func)
        if name not in HANDLERS and isinstance(func, types.FunctionType):
            if func.__module__ == "torch.nn.functional":
                with self:
                    return inside(func)(*args, **kwargs)
        writing = writes(func, kwargs)
        target = kwargs.get("out", args[0] if args else None) if writing else None
        if isinstance(target, torch.Tensor) and self.is_constant(target):
            self.before[id(target)] = target.clone()
        versions = [version(x) for x in active]
        result = func(*args, **kwargs)
        outer, self._sources = self._sources, sources
        try:
            self._lower(name, args, kwargs, active, result)
        finally:
            self._sources = outer
            self.before.clear()
        written = [x for x, old in zip(active, versions, strict=True) if version(x) != old]
        for tensor in written if target is None else [target]:
            if isinstance(tensor, torch.Tensor) and self.is_activation(tensor):
                self._ledger.overwritten(tensor, self.ref(tensor))
                self._overwrite_base(tensor)
        return result

    def _lower(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], active: list[torch.Tensor],
        result: Any,
    ) -> None:  # fmt: skip
        outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if name == "setitem":
            outputs = [args[0]]  # the call itself returns nothing
        if not outputs:
            return
        handler = HANDLERS.get(name)
        if handler is not None:
            try:
                if name not in ANY_DTYPE:
                    refuse_numbers(active, outputs)
                handler(self, result, *args, **{k: v for k, v in kwargs.items() if k != "out"})
                return
            except Declined as reason:
                name = f"{name}: {reason}"
            except (TypeError, ValueError, IndexError, RuntimeError) as error:
                # An unusual way of calling it must not end the trace of the whole network.
                name = f"{name}: {type(error).__name__}: {error}"
        self.emit_unsupported(name, active, outputs)

    def _sources_of(self, tensors: list[torch.Tensor]) -> frozenset[str]:
        own = {self._parameters[id(x)] for x in tensors if id(x) in self._parameters}
        return self._ledger.sources(tensors) | own

    def sources_of(self, outputs: list[str]) -> frozenset[str]:
        """Return the names of the parameters that the tensors called ``outputs`` depend on."""
        wanted, found = set(outputs), set[str]()
        for node in reversed(self.nodes):
            if node.output in wanted:
                wanted |= set(node.inputs)
                found |= node.sources
        return frozenset(found)

    def _derive(self, result: Any, sources: frozenset[str]) -> None:
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and id(tensor) not in self._parameters:
                if not self.is_activation(tensor):
                    self._ledger.add(tensor, sources=sources)

    def _overwrite_base(self, tensor: torch.Tensor) -> None:
        """Let the constant that ``tensor`` is a view of depend on the input from now on."""
        base = tensor._base
        if base is not None and self.is_constant(base) and base is not tensor:
            node = RawNode("unsupported", [self.ref(tensor)], "", tuple(base.shape),
                           {"aten": "a write through another view"})  # fmt: skip
            self._append(node, base)

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Keep the stack of module names while the network runs."""

        def enter(module: nn.Module, _: Any) -> None:
            self._stack.append(self._modules.get(id(module), self._stack[-1]))

        def leave(module: nn.Module, inputs: Any, result: Any) -> None:
            if isinstance(module, torch.jit.ScriptModule):
                active = [x for x in tree_leaves(inputs) if self.is_activation(x)]
                new = [x for x in tree_leaves(result) if self.is_constant(x)]
                if active:  # nothing inside was seen
                    kind = getattr(module, "original_name", "module")
                    self.emit_unsupported(f"TorchScript {kind}", active, new)
            self._stack.pop()

        with module_hooks(enter, leave):
            yield
