# SPDX-License-Identifier: Apache-2.0
"""``find_places``: which modules of a user's own network another block could stand for.

A module can go where it is called once, with one image ``(N, C, H, W)``, and returns one of the
same size, or of half of it. What it computes inside does not matter, and neither does its class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ACTIVATION_MODULES, same_padding
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.run import running_plainly
from chipfit.graph.workload import Node, Workload

#: Most convolutions of a module that counts as one block; a larger one is looked into. A strided
#: ghost bottleneck with squeeze-excite has nine, and a plain ``Sequential`` of more than six is
#: seldom meant as one.
MOST_CONVS, MOST_IN_SEQUENTIAL = 9, 6
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A module that a block can stand for.

    Args:
        module: Dotted name.
        in_shape: ``(1, C, H, W)`` of what it reads.
        out_shape: ``(1, C, H, W)`` of what it returns.
        stride: 1 or 2.
        kernel: Largest of its convolutions, 1 where it has none.
        inner: Activation for the inside of a replacement.
        last: What it ends with, ``"none"`` for no known activation.
        pads_same: Whether it pads SAME where that differs from the same on all sides.
    """

    module: str
    in_shape: Shape
    out_shape: Shape
    stride: int
    kernel: int
    inner: str
    last: str
    pads_same: bool

    @property
    def keeps_shape(self) -> bool:
        """Whether the identity could stand here."""
        return self.in_shape == self.out_shape


def find_places(
    net: nn.Module, example: torch.Tensor, blocks: Sequence[str] = (), keep: Sequence[str] = ()
) -> list[Place]:
    """Return the modules to choose for, in the order of execution; none stands in another.

    Without patterns, a module with at most :data:`MOST_CONVS` convolutions is a block; one that is
    nothing but blocks in a row, some of several convolutions each, is looked into, and so is a
    plain ``Sequential`` of units. In a network without any such module every convolution is a place
    by itself, and batch norm and activation stay behind it.

    Args:
        net: The network; it is not changed.
        example: Its input, ``(1, C, H, W)``.
        blocks: Patterns of dotted names, where ``*`` stands for any part between two dots
            (``layers.*``); none to find blocks by themselves.
        keep: Prefixes of modules to leave alone.

    Raises:
        BadInput: The network fails on the example, a pattern matches nothing, or what it matches
            cannot be replaced; the message says why.
    """
    look = _Look(net, example)
    if blocks:
        names = _named(look, blocks)
    else:
        names = look.blocks_in("", net)
        # What is absorbed by others cannot be priced as a piece, so it is a last resort.
        names = [n for n in names if not isinstance(look.modules[n], nn.Conv2d)] or names
    names = [n for n in names if not _is_kept(n, keep)]
    return [look.place(name) for name in sorted(names, key=lambda n: look.inside[n][0])]


def _is_kept(name: str, keep: Sequence[str]) -> bool:
    return any(name.startswith(k) or k.startswith(f"{name}.") for k in keep)


def _named(look: _Look, patterns: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        own = [name for name in look.modules if name and _matches(name, pattern)]
        if not own:
            raise BadInput(
                f"no module of the network is called {pattern!r}",
                f"there are {', '.join(n for n in look.modules if n.count('.') < 2 and n)}",
            )
        for name in own:
            reason = look.refusal(name)
            if reason:
                raise BadInput(f"{name} cannot be replaced: {reason}", "name other blocks")
        found += [name for name in own if name not in found]
    for name in found:
        outer = [n for n in found if name.startswith(f"{n}.")]
        if outer:
            raise BadInput(f"{name} stands in {outer[0]}; both are named as blocks", "name one")
    return found


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


class _Look:
    """A network with what each of its modules reads, returns and computes."""

    def __init__(self, net: nn.Module, example: torch.Tensor) -> None:
        self.modules = dict(net.named_modules())
        self.workload: Workload = trace(net, example)
        self.calls = _calls(net, example)
        self.inside: dict[str, list[int]] = {}
        for i, node in enumerate(self.workload.nodes):
            name = (node.module or node.name).partition("#")[0]
            while name:
                if name in self.modules:
                    self.inside.setdefault(name, []).append(i)
                name = name.rpartition(".")[0]
        used = Counter(n.op.activation for n in self.workload.nodes)
        known = [name for name, _ in used.most_common() if name in ACTIVATION_MODULES]
        self.usual = known[0] if known else "relu"

    def nodes(self, name: str) -> list[Node]:
        """Return the operators of a module."""
        return [self.workload.nodes[i] for i in self.inside.get(name, [])]

    def convs(self, name: str) -> int:
        """Return how many convolutions a module runs."""
        return sum(node.op.kind == "conv2d" for node in self.nodes(name))

    def refusal(self, name: str) -> str:
        """Return why a module cannot be replaced, ``""`` where it can."""
        calls = self.calls.get(name, [])
        if len(calls) != 1 or not self.nodes(name):
            return f"it is called {len(calls)} times" if len(calls) != 1 else "it computes nothing"
        into, out = calls[0]
        if into is None or out is None:
            return "it does not map one image (N, C, H, W) to one"
        if max(out[2:]) < 2:
            return "it returns single pixels"
        if _stride(into, out) is None:
            sizes = f"{into[2]}x{into[3]} to {out[2]}x{out[3]}"
            return f"it maps images of {sizes}, which no stride of 1 or 2 does"
        return ""

    def blocks_in(self, name: str, module: nn.Module) -> list[str]:
        """Return the blocks of a module, itself where it is one."""
        parts: list[str] = []
        for child, one in module.named_children():
            place = f"{name}.{child}" if name else child
            if place in self.modules:  # one that stands in two places goes by its first name
                parts += self.blocks_in(place, one)
        convs = self.convs(name)
        most = MOST_IN_SEQUENTIAL if type(module) is nn.Sequential else MOST_CONVS
        if not name or self.refusal(name) or not 0 < convs <= most:
            return parts
        return parts if self._goes_on_inside(name, parts) else [name]

    def _goes_on_inside(self, name: str, parts: Sequence[str]) -> bool:
        """Tell whether the blocks inside a module are to stand for it."""
        covered = {i for part in parts for i in self.inside[part]}
        if covered != set(self.inside[name]):
            return False
        whole = [part for part in parts if not isinstance(self.modules[part], nn.Conv2d)]
        plain = type(self.modules[name]) is nn.Sequential
        if len(parts) == 1:  # a wrapper: of equal ones the innermost that is no Sequential
            return len(whole) == 1 and (plain or type(self.modules[parts[0]]) is not nn.Sequential)
        several = any(self.convs(part) > 1 for part in whole)
        return len(whole) > 1 and (plain or several)

    def place(self, name: str) -> Place:
        """Return a module that can be replaced as a place."""
        into, out = self.calls[name][0]
        nodes = self.nodes(name)
        convs = [node for node in nodes if node.op.kind == "conv2d"]
        last = self._last_activation(name, nodes)
        first = [n.op.activation for n in nodes[:-1] if n.op.activation in ACTIVATION_MODULES]
        inner = first[0] if first else last if last != "none" else self.usual
        stride = _stride(into, out) if into is not None and out is not None else None
        if into is None or out is None or stride is None:
            raise BadInput(f"{name} cannot be replaced: {self.refusal(name)}")
        return Place(
            name, into, out, stride,
            max((max(node.op["kernel"]) for node in convs), default=1), inner, last,
            any(_pads_same(node) for node in convs),
        )  # fmt: skip

    def _last_activation(self, name: str, nodes: Sequence[Node]) -> str:
        at = len(nodes) - 1
        while at and nodes[at].op.kind in ("max_pool2d", "avg_pool2d"):
            at -= 1
        node = nodes[at]
        foreign = [a for a in node.absorbed if not f"{a}.".startswith(f"{name}.")]
        known = node.op.activation in ACTIVATION_MODULES
        return node.op.activation if known and not foreign else "none"


def _calls(
    net: nn.Module, example: torch.Tensor
) -> dict[str, list[tuple[Shape | None, Shape | None]]]:
    """Return by module the shapes of every call, ``None`` for what is no single image."""
    found: dict[str, list[tuple[Shape | None, Shape | None]]] = {}
    names = {module: name for name, module in net.named_modules()}
    modes = {module: module.training for module in net.modules()}

    def shape(value: object) -> Shape | None:
        image = isinstance(value, torch.Tensor) and value.ndim == 4
        return tuple(value.shape) if image else None  # type: ignore[attr-defined]

    def seen(module: nn.Module, args: tuple[object, ...], kwargs: object, result: object) -> None:
        into = shape(args[0]) if len(args) == 1 and not kwargs else None
        found.setdefault(names[module], []).append((into, shape(result)))

    hooks = [m.register_forward_hook(seen, with_kwargs=True) for m in net.modules()]
    like = next(net.parameters(), example)
    try:
        net.eval()
        with running_plainly():
            net(example.to(like.device, like.dtype).clone())
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def _stride(into: Shape, out: Shape) -> int | None:
    for stride in (1, 2):
        if [-(-size // stride) for size in into[2:]] == list(out[2:]):
            return stride
    return None


def _pads_same(node: Node) -> bool:
    """Tell whether a convolution pads SAME in a way that differs from the same on all sides."""
    kernel, stride = node.op["kernel"], node.op["stride"]
    sizes = node.op.inputs[0][2:]
    rows, columns = (same_padding(s, k, d) for s, k, d in zip(sizes, kernel, stride, strict=True))
    padding = tuple(node.op["padding"])
    return padding == (*rows, *columns) and padding != (kernel[0] // 2,) * 2 + (kernel[1] // 2,) * 2
