# SPDX-License-Identifier: Apache-2.0
"""Record the tensor operations of one forward pass, with those on parameters, below autograd.

Composite calls (``einsum``, ``nn.MultiheadAttention``, ``F.linear``) arrive here as the few
operations they consist of, and parameters are tensors like any others.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from chipfit.graph.module_hooks import module_hooks
from chipfit.graph.run import explained, output_tensors, running_plainly, unwrapped


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor in the arguments of a call.

    Args:
        value: Number of the tensor.
    """

    value: int


@dataclass(frozen=True)
class Call:
    """One operation.

    Args:
        name: Of the operation, without the mark of in-place variants: ``add``, ``view``.
        pointwise: Whether every entry of the result depends on the entries of its position.
        args: Positional arguments, tensors as :class:`Ref`.
        kwargs: Keyword arguments.
        results: Numbers of the tensors that it returns.
        module: Dotted name of the module whose forward pass made the call.
    """

    name: str
    pointwise: bool
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[int, ...]
    module: str


@dataclass
class Record:
    """The operations of a forward pass.

    Args:
        calls: In order.
        shapes: By number of tensor.
        states: Number of each parameter and buffer, by dotted name.
        outputs: Numbers of the tensors that the network returns.
    """

    calls: list[Call] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)


class _Watcher(TorchDispatchMode):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.record = Record()
        self.stack = [""]
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._places: dict[Any, tuple[weakref.ref[torch.Tensor], int]] = {}
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            self.record.states[name] = self.new(tensor)

    def number(self, tensor: torch.Tensor) -> int:
        """Return the number of a tensor, a new one where it was never seen."""
        entry = self._known.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        place = _place(tensor)
        twin = self._places.get(place) if place is not None else None
        if twin is not None and twin[0]() is not None:  # the same memory as another object
            return self._bind(tensor, twin[1])
        return self.new(tensor)

    def new(self, tensor: torch.Tensor) -> int:
        """Give a tensor a number of its own."""
        self.record.shapes.append(tuple(tensor.shape))
        return self._bind(tensor, len(self.record.shapes) - 1)

    def _bind(self, tensor: torch.Tensor, number: int) -> int:
        reference = weakref.ref(tensor)
        self._known[id(tensor)] = (reference, number)
        place = _place(tensor)
        if place is not None:
            self._places[place] = (reference, number)
        return number

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}

        def referred(x: Any) -> Any:
            return Ref(self.number(x)) if isinstance(x, torch.Tensor) else x

        given, named = tree_map(referred, args), tree_map(referred, kwargs)
        result = func(*args, **kwargs)
        results = tuple(
            self.new(x) for x in tree_leaves(result) if isinstance(x, torch.Tensor)
        )  # fmt: skip
        name = func.overloadpacket.__name__
        name = name if name.startswith("__") else name.rstrip("_")
        pointwise = torch.Tag.pointwise in func.tags
        self.record.calls.append(Call(name, pointwise, given, named, results, self.stack[-1]))
        return result


def _place(tensor: torch.Tensor) -> Any:
    if tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


@contextmanager
def _watching(net: nn.Module, stack: list[str]) -> Iterator[None]:
    names = {id(module): name for name, module in net.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        stack.append(names.get(id(module), stack[-1]))

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        stack.pop()

    with module_hooks(enter, leave):
        yield


def arguments(net: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return copies of the arguments on the device and in the type of the network."""
    place = next((p.device for p in net.parameters()), torch.device("cpu"))
    floating = next((p.dtype for p in net.parameters() if p.dtype.is_floating_point), None)

    def ready(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        dtype = floating if floating is not None and x.dtype.is_floating_point else x.dtype
        return x.detach().to(device=place, dtype=dtype).clone()

    if isinstance(example, Mapping):
        return (), {name: tree_map(ready, value) for name, value in example.items()}
    given: Sequence[Any] = [example] if isinstance(example, torch.Tensor) else list(example)
    return tuple(tree_map(ready, value) for value in given), {}


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients; the mode of every module is restored."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with running_plainly():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _refuse_failing(net: nn.Module, example: Any) -> None:
    """Raise ``BadInput`` where the network fails on the example also when nobody watches."""
    positional, keywords = arguments(net, example)
    try:
        net(*positional, **keywords)
    except Exception as error:
        raise explained(net, error, tree_leaves((positional, keywords))) from error


def record(net: nn.Module, example: Any) -> Record:
    """Run ``net`` once and return its operations.

    Raises:
        BadInput: The network fails on the example.
        RuntimeError: It fails only when it is watched.
    """
    net = unwrapped(net)
    positional, keywords = arguments(net, example)
    watcher = _Watcher(net)
    with evaluating(net), _watching(net, watcher.stack):
        try:
            with watcher:
                result = net(*positional, **keywords)
        except Exception as error:  # the network's own code may raise anything
            _refuse_failing(net, example)
            raise RuntimeError(str(error) or type(error).__name__) from error
        found = watcher.record
        found.outputs = [watcher.number(x) for x in output_tensors(result)]
    return found
