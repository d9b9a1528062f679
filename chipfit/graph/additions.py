# SPDX-License-Identifier: Apache-2.0
"""Where a layer's output is added to something: the ends of residual branches, found by running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: Names of the functions that add two tensors.
ADDING = {"add", "add_", "__add__", "__iadd__", "__radd__"}


class _Numbered(TorchFunctionMode):
    """Numbers the calls that a network makes of PyTorch's functions.

    One that branches on no values makes the same calls each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count, self._aside = 0, False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do what is no part of the network."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Make one call."""
        if self._aside:
            return func(*args, **(kwargs or {}))
        self._before(func, args, kwargs)
        result = func(*args, **(kwargs or {}))
        self._after(self._count, result)
        self._count += 1
        return result

    def _before(self, func: Any, args: Any, kwargs: Any) -> None: ...

    def _after(self, number: int, result: Any) -> None: ...


class Summands(_Numbered):
    """While a network runs, keeps what outputs of its layers are going to be added to.

    Args:
        calls: By layer, the number of the call that makes the other summand
            (:func:`additions_of`).
    """

    def __init__(self, calls: Mapping[str, int]) -> None:
        super().__init__()
        self._calls, self._readers = dict(calls), Counter(calls.values())
        self._kept: dict[int, Tensor] = {}

    def _after(self, number: int, result: Any) -> None:
        if number in self._readers:
            self._kept[number] = result

    def take(self, layer: str) -> Tensor | None:
        """Return the other summand as it is now, if the layer has one; each layer takes once.

        There is none, either, where the network makes other calls this time.
        """
        if layer not in self._calls:
            return None
        call = self._calls[layer]
        self._readers[call] -= 1
        return self._kept.get(call) if self._readers[call] else self._kept.pop(call, None)


class _Additions(_Numbered):
    def __init__(self) -> None:
        super().__init__()
        self.begun: dict[str, int] = {}
        self.found: dict[str, int] = {}
        self._made: dict[int, tuple[str, int]] = {}
        self._last: dict[int, int] = {}
        self._alive: list[Tensor] = []

    def begin(self, layer: str) -> None:
        """Say that a layer begins."""
        self.begun[layer] = self._count

    def end(self, layer: str, result: Tensor) -> None:
        """Say that a tensor, as it is now, is what a layer made."""
        with self.aside():
            self._made[id(result)] = layer, result._version

    def _before(self, func: Any, args: Any, kwargs: Any) -> None:
        if getattr(func, "__name__", "") not in ADDING or kwargs or len(args) != 2:
            return
        for one, other in (args, args[::-1]):
            layer, version = self._made.get(id(one), ("", 0))
            if layer and id(other) in self._last:
                if one.shape == other.shape and one._version == version:
                    self.found[layer] = self._last[id(other)]

    def _after(self, number: int, result: Any) -> None:
        if isinstance(result, Tensor):
            self._last[id(result)] = number
            self._alive.append(result)  # or its identity would be another's later


def additions_of(
    net: nn.Module, norms: Mapping[str, str], layers: Iterable[str], inputs: Tensor
) -> dict[str, int]:
    """Return, by layer, the number of the call that makes what the layer's output is added to.

    Only layers whose output, behind its batch norm where there is one, is a summand as it is; and
    only where the other summand is made before the layer runs, as a shortcut is. Of two layers
    that are added the later one is found.

    Args:
        net: Where the layers are; it is run once.
        norms: The batch norm behind each layer, where there is one.
        layers: Names of layers.
        inputs: ``(N, C, H, W)``.
    """
    watch = _Additions()
    with ExitStack() as stack:
        for name in layers:

            def begin(module: nn.Module, args: Any, name: str = name) -> None:
                watch.begin(name)

            def end(module: nn.Module, args: Any, result: Tensor, name: str = name) -> None:
                watch.end(name, result)

            last = net.get_submodule(norms.get(name, name))
            stack.callback(net.get_submodule(name).register_forward_pre_hook(begin).remove)
            stack.callback(last.register_forward_hook(end).remove)
        with torch.no_grad(), watch:
            net(inputs)
    return {name: call for name, call in watch.found.items() if call < watch.begun[name]}
