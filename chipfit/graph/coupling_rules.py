# SPDX-License-Identifier: Apache-2.0
"""What each tensor operation does to the layers of its operands' axes.

A rule is called with the :class:`Flow`, the call and its arguments, tensors replaced by
:class:`Axes`, and returns the axes of the results. An operation without a rule freezes whatever
goes into it and names itself as the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from chipfit.graph.coupling_axes import Axes, Layers, freeze_all, freeze_axis, reshaped
from chipfit.graph.coupling_labels import Labels
from chipfit.graph.coupling_trace import Call, Record, Ref

Rule = Callable[..., Axes | Sequence[Axes]]
Made = TypeVar("Made", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Made], Made]:
    """Return a decorator that makes a function the rule of the operations called ``names``."""

    def add(function: Made) -> Made:
        for name in names:
            RULES[name] = function
        return function

    return add


class Unfollowed(Exception):
    """A rule does not know this form of its operation; what it computes is frozen."""


@dataclass(frozen=True)
class Site:
    """An axis whose size a module may have written down as a number.

    Args:
        module: Dotted name of the module whose forward pass made the call.
        size: Of the axis.
        layers: Its layers.
        parts: All sizes of the split that the axis is a part of, and its own place among them.
    """

    module: str
    size: int
    layers: tuple[Any, ...]
    parts: tuple[tuple[int, ...], int] = ((), 0)


class Flow:
    """Layers of every tensor of a record, propagated through its operations.

    Args:
        record: What was run.
        labels: What is known so far; grows.
        states: Layers of parameters and buffers, by their number.
        modules: Of the network, by name.
    """

    def __init__(
        self, record: Record, labels: Labels, states: dict[int, Axes],
        modules: Mapping[str, nn.Module],
    ) -> None:  # fmt: skip
        self.labels, self.record, self.modules = labels, record, modules
        self.values: dict[int, Axes] = dict(states)
        self.sites: list[Site] = []
        self.call: Call = Call("", False, (), {}, (), "")
        #: Whether activations were multiplied with each other, or an axis was split by hand.
        self.delicate = False
        #: Names of modules with parameters of their own, with the lengths of their axes.
        self.owned: dict[str, set[int]] = {}
        for name, number in record.states.items():
            lengths = self.owned.setdefault(name.rpartition(".")[0], set())
            lengths.update(record.shapes[number])

    def run(self) -> None:
        """Go through all operations once."""
        for number, call in enumerate(self.record.calls):
            self.call, self.number = call, number
            self._step(call)

    def _step(self, call: Call) -> None:
        def axes(x: Any) -> Any:
            return self.axes(x.value) if isinstance(x, Ref) else x

        args, kwargs = tree_map(axes, call.args), tree_map(axes, dict(call.kwargs))
        given = [x for x in tree_leaves((args, kwargs), is_leaf=_is_axes) if _is_axes(x)]
        if not any(x.labelled() for x in given):
            return
        function = RULES.get(call.name)
        try:
            if function is not None:
                found = function(self, *args, **kwargs)
            elif call.pointwise:
                found = pointwise(self, *args, **kwargs)
            else:
                found = self.unknown(given)
        except (TypeError, ValueError, IndexError, AttributeError, Unfollowed):
            found = self.unknown(given)  # an overload that the rule does not expect
        results = [found] if isinstance(found, Axes) else list(found)
        for number, result in zip(call.results, results, strict=False):
            shape = self.record.shapes[number]
            if result.shape == shape:
                self.values[number] = result
            else:
                freeze_all(self.labels, result, self.because("changes its shape"))

    def axes(self, number: int) -> Axes:
        """Return the axes of a tensor; those of one that no rule made have no layers."""
        if number not in self.values:
            return Axes(self.record.shapes[number])
        return self.values[number]

    def shape(self, result: int = 0) -> tuple[int, ...]:
        """Return the shape of a result of the present call."""
        return self.record.shapes[self.call.results[result]]

    def because(self, what: str) -> str:
        """Return a reason that names the present call."""
        return f"{self.call.module or 'the network'} {what} ({self.call.name})"

    def key(self, part: Any = 0) -> tuple[Any, ...]:
        """Return what identifies the present call between passes."""
        return ("call", self.number, part)

    def unknown(self, given: Sequence[Axes]) -> list[Axes]:
        """Freeze what goes into the present call."""
        for axes in given:
            freeze_all(self.labels, axes, self.because("computes what is not followed"))
        return []

    def freeze(self, axes: Axes, dims: Sequence[int], what: str) -> None:
        """Freeze what lies on the axes ``dims``."""
        for dim in dims:
            freeze_axis(self.labels, axes.layers[dim], self.because(what))

    def equal(self, one: Layers, other: Layers) -> None:
        """Note that two axes are narrowed together."""
        self.labels.same(one, other, self.because("meets it with what cannot be narrowed"))

    def equal_side(self, layers: Layers, kind: type[nn.Module], side: str, size: int) -> None:
        """Unite an axis with a side, not seen on any parameter, of the module that is running."""
        if isinstance(self.modules.get(self.call.module), kind):
            self.equal(layers, [self.labels.fresh(("side", self.call.module, side), size)])

    def reshape(self, axes: Axes, shape: tuple[int, ...], part: Any = 0) -> Axes:
        """Return a reshaped tensor."""
        return reshaped(
            self.labels, self.key(part), axes, shape, self.because("reshapes it")
        )  # fmt: skip

    def site(self, *given: Axes, parts: tuple[tuple[int, ...], int] = ((), 0)) -> None:
        """Remember the labelled axes of tensors whose sizes may be written down somewhere."""
        for axes in given:
            for dim in axes.labelled():
                layers = tuple(axes.layers[dim])
                self.sites.append(Site(self.call.module, axes.shape[dim], layers, parts))


def _is_axes(x: Any) -> bool:
    return isinstance(x, Axes)


@rule("add", "sub", "mul", "div", "_prelu_kernel", "copy", "rsub")
def pointwise(flow: Flow, *args: Any, **kwargs: Any) -> Axes:
    """Unite operands position by position; axes of size 1 are broadcast and do not count."""
    shape = flow.shape()
    found = Axes(shape)
    given = [x for x in tree_leaves((args, kwargs), is_leaf=_is_axes) if _is_axes(x)]
    for back in range(1, len(shape) + 1):
        size = shape[-back]
        wide = [x.layers[-back] for x in given if len(x.shape) >= back and x.shape[-back] == size]
        if size == 1 or not any(wide):
            continue
        first = next(layers for layers in wide if layers)
        for layers in wide:
            if layers is not first:
                flow.equal(first, layers)
        found.layers[-back] = first
    return found


@rule(
    "clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh", "zeros_like", "ones_like",
    "empty_like", "full_like", "rand_like", "randn_like", "fill", "zero", "relu", "relu6",
    "hardtanh", "hardswish", "hardsigmoid", "mish", "leaky_relu", "rrelu", "elu", "celu", "selu",
    "gelu", "silu", "softplus", "softshrink", "hardshrink", "threshold", "log_sigmoid",
    "log_sigmoid_forward", "dropout", "native_dropout", "type_as", "float", "to", "positive",
)  # fmt: skip
def unchanged(flow: Flow, x: Axes, *_: Any, **__: Any) -> Axes:
    """Pass everything on."""
    return x


@rule("_softmax", "_log_softmax", "cumsum", "cumprod", "_safe_softmax", "logcumsumexp", "sort")
def along(flow: Flow, x: Axes, dim: int, *_: Any, **__: Any) -> list[Axes]:
    """Freeze the axis along which entries depend on each other."""
    flow.freeze(x, [dim], "relates its entries")
    return [x, x]


@rule(
    "mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "logsumexp",
    "argmax", "argmin", "any", "all",
)  # fmt: skip
def reduction(flow: Flow, x: Axes, dim: Any = None, *rest: Any, **kwargs: Any) -> list[Axes]:
    """Drop the reduced axes and freeze what lies on them.

    A mean within a module that owns as long a parameter is a normalisation: it goes over what is
    left.
    """
    if isinstance(dim, Axes):  # maximum of two tensors
        return [pointwise(flow, x, dim)]
    keep = bool(kwargs.get("keepdim", len(flow.shape()) == len(x.shape) and dim is not None))
    rank = len(x.shape)
    dims = range(rank) if dim is None else [dim] if isinstance(dim, int) else (dim or range(rank))
    gone = {d % rank for d in dims}
    own = flow.owned.get(flow.call.module, set())
    statistic = flow.call.name in ("mean", "var", "std", "var_mean")
    fixed = [d for d in gone if not (statistic and x.shape[d] in own)]
    flow.freeze(x, fixed, "reduces over it")
    layers = [[] if d in gone else x.layers[d] for d in range(rank) if keep or d not in gone]
    return [Axes(flow.shape(i), list(layers)) for i in range(len(flow.call.results))]


@rule("linalg_vector_norm", "norm")
def vector_norm(flow: Flow, x: Axes, order: Any = 2, dim: Any = None, *rest: Any, **kw: Any) -> Any:
    """Treat it as any other reduction."""
    return reduction(flow, x, dim, *rest, **kw)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
def batch_norm(flow: Flow, x: Axes, *states: Any, **_: Any) -> Axes:
    """Unite the channels with weight, bias and statistics."""
    for state in states[:4]:
        if isinstance(state, Axes):
            flow.equal(x.layers[1], state.layers[0])
    training = next((s for s in states[2:] if isinstance(s, bool)), False)
    if training and "no_training" not in flow.call.name:
        flow.freeze(x, [d for d in range(len(x.shape)) if d != 1], "normalises over it")
    return x


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(
    flow: Flow, x: Axes, shape: Sequence[int], weight: Any = None, bias: Any = None, *_: Any
) -> Axes:
    """Unite the last axis with weight and bias; statistics go over what is left."""
    if len(shape) != 1:
        flow.freeze(x, range(len(x.shape) - len(shape), len(x.shape)), "normalises over several")
    for state in (weight, bias):
        if isinstance(state, Axes):
            for back in range(1, len(shape) + 1):
                flow.equal(x.layers[-back], state.layers[-back])
    if weight is None and len(shape) == 1:
        flow.equal_side(x.layers[-1], nn.LayerNorm, "out", x.shape[-1])
    return x


@rule("native_group_norm")
def group_norm(
    flow: Flow, x: Axes, weight: Any, bias: Any, n: int, channels: int, area: int, groups: int,
    *_: Any,
) -> Axes:  # fmt: skip
    """Unite channels with weight and bias; every group of several channels keeps as many."""
    for state in (weight, bias):
        if isinstance(state, Axes):
            flow.equal(x.layers[1], state.layers[0])
    if weight is None:
        flow.equal_side(x.layers[1], nn.GroupNorm, "out", channels)
    flow.freeze(x, range(2, len(x.shape)), "normalises over it")
    if groups > 1:
        grid = flow.reshape(Axes((channels,), [x.layers[1]]), (groups, channels // groups))
        flow.freeze(grid, [0], "normalises in groups, which stay")
    return x
