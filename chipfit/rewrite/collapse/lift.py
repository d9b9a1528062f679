# SPDX-License-Identifier: Apache-2.0
"""What a node of a traced network does, where that is affine."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules import batchnorm

from chipfit.rewrite.collapse.affine import Affine
from chipfit.rewrite.collapse.layers import convolution, linear, norm, pooling, zeros

_CONVOLUTIONS = {nn.Conv1d.forward: 1, nn.Conv2d.forward: 2, nn.Conv3d.forward: 3}
_CONVOLVE = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
_POOLS = {nn.AvgPool1d.forward: 1, nn.AvgPool2d.forward: 2, nn.AvgPool3d.forward: 3}
_POOL = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}
_NORMS = (batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_DROP = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout)
_PADS = tuple(
    getattr(nn, f"{kind}Pad{axes}d").forward for kind in ("Zero", "Constant") for axes in (1, 2, 3)
)
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUB = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_MUL = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_DIV = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_NEG = (operator.neg, torch.neg, "neg")
_CAT = (torch.cat, torch.concat, torch.concatenate)


@dataclass(frozen=True)
class Lifted:
    """What a node computes from ``inputs``.

    Args:
        inputs: The nodes read, constants left out.
        kind: ``"conv"``, ``"linear"``, ``"norm"``, ``"pool"``, ``"pad"``, ``"scale"``,
            ``"identity"``, ``"add"`` or ``"concat"``.
        affine: Of a node that reads one other.
        factors: Of each term of an ``"add"``.
    """

    inputs: tuple[fx.Node, ...]
    kind: str
    affine: Affine | None = None
    factors: tuple[float, ...] = ()

    @property
    def weighs(self) -> bool:
        """Whether it is a convolution, a linear layer or average pooling."""
        return self.kind in ("conv", "linear", "pool")


def lift(
    node: fx.Node, axes: int, modules: Mapping[str, nn.Module], constants: Mapping[fx.Node, Any]
) -> Lifted | None:
    """Return what ``node`` does; ``None`` where it is not affine, or not in that layout.

    Args:
        node: Of a traced graph whose nodes carry ``meta["shape"]``.
        axes: Axes that convolutions slide along; with 0 the channels are the last axis, else they
            are axis 1.
        modules: By dotted name.
        constants: Values of the nodes that do not depend on the input.
    """
    shape = node.meta.get("shape")
    if shape is None or node in constants or (axes and len(shape) != axes + 2) or len(shape) < 2:
        return None
    if node.op == "call_module":
        return _module(node, modules[str(node.target)], axes)
    if node.op not in ("call_function", "call_method"):
        return None

    def known(value: Any) -> Any:
        return constants.get(value, value) if isinstance(value, fx.Node) else value

    first = node.args[0] if node.args else node.kwargs.get("input")
    rest = [known(value) for value in node.args[1:]]
    keywords = {key: known(value) for key, value in node.kwargs.items() if key != "input"}
    if any(isinstance(value, fx.Node) for value in (*rest[1:], *keywords.values())):
        return None
    target = node.target
    if target in _CAT:
        return _concat(node, axes)
    if target in (*_ADD, *_SUB, *_MUL, *_DIV, *_NEG):
        return _arithmetic(node, known(first), rest, keywords, axes)
    if not isinstance(first, fx.Node) or first in constants:
        return None
    if any(isinstance(value, fx.Node) for value in rest):
        return None
    try:
        affine, kind = _function(target, axes, first, rest, keywords)
    except (TypeError, AttributeError):  # an unusual way of calling it
        return None
    return None if affine is None else Lifted((first,), kind, affine)


def _module(node: fx.Node, module: nn.Module, axes: int) -> Lifted | None:
    """Modules of another class may do anything in their forward pass, as may hooks."""
    first = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(first, fx.Node) or module._forward_hooks or module._forward_pre_hooks:
        return None
    forward: Any = type(module).forward
    affine, kind, m = None, "", _Attributes(module)
    if _CONVOLUTIONS.get(forward) == axes and axes:
        kind = "conv"
        if m.padding_mode == "zeros":
            affine = convolution(
                axes, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups
            )  # fmt: skip
    elif forward is nn.Linear.forward and axes == 0:
        affine, kind = linear(m.weight, m.bias), "linear"
    elif forward in _NORMS and (axes or len(first.meta["shape"]) == 2):
        affine = norm(axes, m.running_mean, m.running_var, m.weight, m.bias, m.eps)
        kind = "norm"
    elif _POOLS.get(forward) == axes and axes:
        affine = pooling(
            axes, first.meta["shape"][1], m.kernel_size, m.stride, m.padding, m.ceil_mode,
            m.count_include_pad, getattr(module, "divisor_override", None),
        )  # fmt: skip
        kind = "pool"
    elif forward in _PADS and m.value == 0:
        affine, kind = zeros(axes, first.meta["shape"], m.padding), "pad"
    elif forward is nn.Identity.forward or type(module) in _DROPOUTS:
        affine, kind = Affine.identity(_channels(first, axes), axes), "identity"
    return None if affine is None else Lifted((first,), kind, affine)


class _Attributes:
    """A module's attributes, without their many possible types."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _channels(node: fx.Node, axes: int) -> int:
    return int(node.meta["shape"][1 if axes else -1])


def _function(
    target: Any, axes: int, first: fx.Node, rest: list[Any], keywords: dict[str, Any]
) -> tuple[Affine | None, str]:
    if axes and _CONVOLVE.get(target) == axes:
        return convolution(axes, *rest, **keywords), "conv"
    if target is F.linear and axes == 0:
        return linear(*rest, **keywords), "linear"
    if target is F.batch_norm and (axes or len(first.meta["shape"]) == 2):
        short = {key.removeprefix("running_"): value for key, value in keywords.items()}
        order = ("mean", "var", "weight", "bias", "training", "momentum", "eps")
        given = _named(order, rest, short)
        if given.get("training"):
            return None, ""
        return norm(
            axes, given["mean"], given["var"], given.get("weight"), given.get("bias"),
            given.get("eps", 1e-5),
        ), "norm"  # fmt: skip
    if axes and _POOL.get(target) == axes:
        return pooling(axes, first.meta["shape"][1], *rest, **keywords), "pool"
    if target is F.pad:
        given = _named(("pad", "mode", "value"), rest, keywords)
        if given.get("mode", "constant") == "constant" and not given.get("value"):
            return zeros(axes, first.meta["shape"], given["pad"]), "pad"
    if target in _DROP:
        default = target is F.dropout
        given = _named(("p", "training"), rest, keywords)
        if not given.get("training", default) or given.get("p", 0.5) == 0:
            return Affine.identity(_channels(first, axes), axes), "identity"
    return None, ""


def _named(names: Sequence[str], rest: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names, rest, strict=False)), **keywords}


def _concat(node: fx.Node, axes: int) -> Lifted | None:
    given = _named(("tensors", "dim"), list(node.args), dict(node.kwargs))
    axis, parts = given.get("dim", given.get("axis", 0)), given.get("tensors")
    rank = len(node.meta["shape"])
    if not isinstance(axis, int) or axis % rank != (1 if axes else rank - 1):
        return None
    if not isinstance(parts, list | tuple) or not all(isinstance(p, fx.Node) for p in parts):
        return None
    return Lifted(tuple(parts), "concat")


def _arithmetic(
    node: fx.Node, left: Any, rest: list[Any], keywords: dict[str, Any], axes: int
) -> Lifted | None:
    target: Any = node.target
    if target in _NEG:
        return Lifted((left,), "scale", Affine.identity(_channels(node, axes), axes).scaled(-1.0))
    right = rest[0] if rest else keywords.pop("other", None)
    factor = keywords.pop("alpha", 1)
    if keywords or len(rest) > 1 or right is None:
        return None
    sign = -float(factor) if target in _SUB else float(factor)
    nodes = [x for x in (left, right) if isinstance(x, fx.Node)]
    if len(nodes) == 2:
        same = all(x.meta.get("shape") == node.meta["shape"] for x in nodes)
        if not same or target in (*_MUL, *_DIV):
            return None
        return Lifted(tuple(nodes), "add", None, (1.0, sign))
    if not nodes or nodes[0].meta.get("shape") != node.meta["shape"]:
        return None
    constant = _by_channel(right if nodes[0] is left else left, node, axes)
    if constant is None:
        return None
    one, none = torch.ones(len(constant)), torch.zeros(len(constant))
    if target in _MUL:
        return Lifted((nodes[0],), "scale", Affine.diagonal(constant, none, axes))
    if target in _DIV:
        if nodes[0] is not left:
            return None
        return Lifted((nodes[0],), "scale", Affine.diagonal(1 / constant, none, axes))
    if nodes[0] is left:
        return Lifted((nodes[0],), "scale", Affine.diagonal(one, sign * constant, axes))
    return Lifted((nodes[0],), "scale", Affine.diagonal(sign * one, constant, axes))


def _by_channel(value: Any, node: fx.Node, axes: int) -> Tensor | None:
    """Return a constant operand as ``(C,)``; ``None`` where it differs within a channel."""
    shape, channels = node.meta["shape"], _channels(node, axes)
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        return None
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if tensor.dim() > len(shape) or tensor.is_meta:
        return None
    tensor = tensor.detach().cpu().reshape(*[1] * (len(shape) - tensor.dim()), *tensor.shape)
    axis = 1 if axes else len(shape) - 1
    if any(size != 1 for i, size in enumerate(tensor.shape) if i != axis):
        return None
    return tensor.flatten().expand(channels)


#: Functions whose result depends on the axes that a convolution slides along, and modules.
def fixed_axes(node: fx.Node, modules: Mapping[str, nn.Module]) -> int | None:
    """Return how many axes ``node`` slides along, where it is a layer with weights or pooling."""
    if node.op == "call_module":
        forward: Any = type(modules[str(node.target)]).forward
        if forward is nn.Linear.forward:
            return 0
        return _CONVOLUTIONS.get(forward, _POOLS.get(forward))
    if node.op == "call_function":
        target: Any = node.target
        return 0 if target is F.linear else _CONVOLVE.get(target, _POOL.get(target))
    return None
