# SPDX-License-Identifier: Apache-2.0
"""``collapse``: merge what is linear in any network, exactly, where the cost falls."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from chipfit.errors import BadInput, ParityError
from chipfit.graph.capture import Example, trace
from chipfit.graph.run import explained, output_tensors, running_plainly, unwrapped
from chipfit.rewrite.collapse.search import Collapser, Step
from chipfit.rewrite.collapse.traced import constants_of, note_shapes, traced

#: Cost of a network in any unit; lower is better.
CostOf = Callable[[nn.Module], float]
#: Largest difference on the example, relative to the largest output, by what the network computes
#: in. It only catches a network that cannot be rewritten; the algebra is exact up to rounding.
_TOLERANCE = {torch.float64: 1e-8}
_COARSE = 1e-3


@dataclass(frozen=True)
class Collapsed:
    """A collapsed network and how it came about.

    Args:
        net: Equal to the original in evaluation mode.
        steps: What was done, in order; ``before`` and ``after`` are in the unit of the cost, or
            multiply-accumulates where none was given.
    """

    net: nn.Module
    steps: tuple[Step, ...]


def collapse(
    net: nn.Module, example: Example, cost: CostOf | None = None, *, fixed_size: bool = False
) -> nn.Module:
    """Return ``net`` with its linear parts merged; see :func:`collapse_steps`."""
    return collapse_steps(net, example, cost, fixed_size=fixed_size).net


def collapse_steps(
    net: nn.Module, example: Example, cost: CostOf | None = None, *, fixed_size: bool = False
) -> Collapsed:
    """Merge what is linear in ``net``: exact in evaluation mode, borders included.

    Batch norms, constant factors, padding and what does nothing are absorbed by the layer beside
    them. Layers in a row, parallel branches, shortcuts around linear layers, average pooling and
    concatenations with nothing but linear layers between become one layer, where the cost falls, or
    stays and there are fewer layers. A sequence whose second convolution pads what the first has
    given a bias is left alone, as no single convolution equals it at the borders, unless
    ``fixed_size`` allows to add what is missing there (:mod:`chipfit.rewrite.collapse.border`).

    Untouched layers, and those that take the place of others, keep their names. What is left can be
    trained further, but batch norms and dropout are gone from where they were merged. A part whose
    control flow depends on the data is kept, and collapsed inside.

    Args:
        net: Any module; it is not changed.
        example: One batch of inputs, as :func:`~chipfit.graph.capture.trace` takes it.
        cost: Of a network with the same inputs and outputs; lower is better. ``None`` counts
            multiply-accumulates.
        fixed_size: The result need only run on images of the example's size.

    Raises:
        BadInput: The network fails on the example, or has no weights (meta device).
        ParityError: The result computes something else, as can happen where a network keeps
            state between calls.
    """
    return _rewritten(net, example, cost, None, fixed_size)


def fold_batchnorm(net: nn.Module, example: Example) -> nn.Module:
    """Return ``net`` with batch norms folded into the layers before or behind them.

    A batch norm before a convolution that pads stays unless it shifts nothing: the zeros would have
    to be shifted too. Arguments and errors as :func:`collapse_steps`.
    """
    kinds = frozenset({"conv", "linear", "norm", "identity"})
    return _rewritten(net, example, None, kinds).net


def _rewritten(
    net: nn.Module, example: Example, cost: CostOf | None, only: frozenset[str] | None,
    fixed_size: bool = False,
) -> Collapsed:  # fmt: skip
    net = unwrapped(net)
    states = [*net.parameters(), *net.buffers()]
    if any(state.is_meta for state in states):
        raise BadInput(
            f"the weights of {type(net).__name__} are on the meta device and have no values",
            "build it on the CPU",
        )
    work = copy.deepcopy(net)
    modes = {id(part): part.training for part in work.modules()}
    work.eval()
    arguments = _arguments(net, example)
    with running_plainly(), torch.random.fork_rng(devices=[]):
        expected = _outputs(work, arguments)
        given = arguments.keywords or arguments.positional
        macs = float(trace(work, given).macs) if cost is None else 0.0
        result, steps = _Rewriter(work, cost, only, macs, fixed_size).whole(arguments)
        _check(net, expected, _outputs(result, arguments))
    for part in result.modules():
        part.training = modes.get(id(part), net.training)
    shape = getattr(net, "input_shape", None)
    if shape is not None and result is not work:
        result.input_shape = shape
    return Collapsed(result, tuple(steps))


@dataclass
class _Rewriter:
    """Collapses a network, or where it cannot be traced the modules inside."""

    work: nn.Module
    cost: CostOf | None
    only: frozenset[str] | None
    macs: float
    fixed_size: bool

    def whole(self, arguments: _Call) -> tuple[nn.Module, list[Step]]:
        """Return the rewritten network and what was done."""
        calls = _calls(self.work, arguments)
        steps: list[Step] = []
        module = self._collapsed(self.work, "", calls, steps)
        return module, steps

    def _collapsed(
        self, part: nn.Module, name: str, calls: Mapping[str, list[_Call]], steps: list[Step]
    ) -> nn.Module:
        """Return ``part`` collapsed; steps are appended with the names that the network uses."""
        called = calls.get(name, [])
        graph = traced(part) if called and _alike(called) else None
        if graph is None:
            for child_name, child in list(part.named_children()):
                place = f"{name}.{child_name}" if name else child_name
                if next(child.children(), None) is None:
                    continue
                part._modules[child_name] = self._collapsed(child, place, calls, steps)
            return part
        leaves = {
            str(node.target) for node in graph.graph.nodes if node.op == "call_module"
        }  # fmt: skip
        for leaf in sorted(leaves):
            inner = graph.get_submodule(leaf)
            if not type(inner).__module__.startswith("torch.nn") and next(inner.children(), None):
                self._collapsed_inside(inner, f"{name}.{leaf}" if name else leaf, calls, steps)
        note_shapes(graph, called[0].positional, called[0].keywords)
        cost = None if self.cost is None else self._placed(name, self.cost)
        collapser = Collapser(
            graph, constants_of(graph), cost, self.macs, self.only, self.fixed_size
        )
        if self.only is None:
            collapser.run()
        else:
            collapser.fold()
        graph.delete_all_unused_submodules()
        self.macs = collapser.now if self.cost is None else 0.0
        steps += [_prefixed(step, name) for step in collapser.steps]
        return graph

    def _collapsed_inside(
        self, part: nn.Module, name: str, calls: Mapping[str, list[_Call]], steps: list[Step]
    ) -> None:
        for child_name, child in list(part.named_children()):
            if next(child.children(), None) is not None:
                place = f"{name}.{child_name}"
                part._modules[child_name] = self._collapsed(child, place, calls, steps)

    def _placed(self, name: str, cost: CostOf) -> CostOf:
        """Return the cost of the whole network as a function of the part called ``name``."""
        if not name:
            return cost
        owner_name, _, leaf = name.rpartition(".")

        def of(part: nn.Module) -> float:
            owner = self.work.get_submodule(owner_name)
            old = owner._modules[leaf]
            owner._modules[leaf] = part
            try:
                return cost(self.work)
            finally:
                owner._modules[leaf] = old

        return of


@dataclass(frozen=True)
class _Call:
    positional: tuple[Any, ...]
    keywords: dict[str, Any]


def _prefixed(step: Step, name: str) -> Step:
    if not name:
        return step
    modules = tuple(f"{name}.{module}" for module in step.modules)
    return replace(step, modules=modules, into=tuple(f"{name}.{module}" for module in step.into))


def _arguments(net: nn.Module, example: Example) -> _Call:
    """Return the example on the network's device and in its type."""
    states = [*net.parameters(), *net.buffers()]
    state = next((s for s in states if s.is_floating_point()), None)

    def ready(x: Any) -> Any:
        if not isinstance(x, Tensor) or state is None:
            return x
        return x.to(state.device, state.dtype if x.is_floating_point() else x.dtype)

    if isinstance(example, Mapping):
        return _Call((), {name: tree_map(ready, value) for name, value in example.items()})
    given = [example] if isinstance(example, Tensor) else list(example)
    return _Call(tuple(tree_map(ready, value) for value in given), {})


def _copied(call: _Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    copies = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x,
                      (call.positional, call.keywords))  # fmt: skip
    return copies[0], copies[1]


def _outputs(net: nn.Module, call: _Call) -> list[Tensor]:
    positional, keywords = _copied(call)
    torch.manual_seed(0)
    try:
        return [x.clone() for x in output_tensors(net(*positional, **keywords))]
    except Exception as error:  # the network's own code may raise anything
        raise explained(net, error, tree_leaves((positional, keywords))) from error


def _calls(net: nn.Module, arguments: _Call) -> dict[str, list[_Call]]:
    """Run ``net`` and return with what each of its modules was called."""
    found: dict[str, list[_Call]] = {"": [arguments]}
    with _watched(net, found):
        _outputs(net, arguments)
    return found


@contextmanager
def _watched(net: nn.Module, found: dict[str, list[_Call]]) -> Iterator[None]:
    hooks = []
    for name, module in net.named_modules():
        simple = type(module).__module__.startswith("torch.nn.") and not module._modules
        if not name or simple:
            continue

        def note(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            positional, keywords = _copied(_Call(tuple(args), dict(kwargs)))
            found.setdefault(name, []).append(_Call(positional, keywords))

        hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _alike(calls: Sequence[_Call]) -> bool:
    """Whether all calls had arguments of the same shapes."""

    def shapes(call: _Call) -> list[Any]:
        return [tuple(x.shape) if isinstance(x, Tensor) else x
                for x in tree_leaves((call.positional, call.keywords))]  # fmt: skip

    first = shapes(calls[0])
    return all(shapes(call) == first for call in calls[1:])


def _check(net: nn.Module, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    for one, other in zip(expected, found, strict=True):
        if not one.is_floating_point() or not one.numel():
            continue
        error = float((one - other).abs().max()) if one.shape == other.shape else float("inf")
        largest = float(one.abs().max())
        if error > _TOLERANCE.get(one.dtype, _COARSE) * max(largest, 1e-30):
            raise ParityError(
                f"{type(net).__name__} cannot be collapsed: its output changes by {error:.3g} of"
                f" {largest:.3g}",
                "does it keep state between calls, or draw random numbers?",
            )
