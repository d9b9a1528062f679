# SPDX-License-Identifier: Apache-2.0
"""Regions of a graph that compute one affine map of a single tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import fx

from chipfit.rewrite.collapse.affine import Affine
from chipfit.rewrite.collapse.algebra import add, compose, concat
from chipfit.rewrite.collapse.border import middle, run
from chipfit.rewrite.collapse.lift import Lifted, fixed_axes, lift

#: Nodes of one region; what is larger is found in parts.
LARGEST = 64


@dataclass(frozen=True)
class Region:
    """Nodes of which only the last is read outside, and which read one tensor from outside.

    Args:
        source: The tensor they read.
        nodes: In the order of execution.
        lifts: What each does.
        axes: That convolutions slide along.
    """

    source: fx.Node
    nodes: tuple[fx.Node, ...]
    lifts: dict[fx.Node, Lifted]
    axes: int

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """Names of source and nodes."""
        return self.source.name, tuple(node.name for node in self.nodes)

    def kinds(self) -> list[str]:
        """Return the kind of every node."""
        return [self.lifts[node].kind for node in self.nodes]

    def weighing(self) -> int:
        """Return how many convolutions, linear layers and average poolings there are."""
        return sum(self.lifts[node].weighs for node in self.nodes)

    def macs(self) -> int:
        """Return the multiply-accumulates of the convolutions and linear layers inside."""
        total = 0
        for node in self.nodes:
            one = self.lifts[node]
            if one.kind in ("conv", "linear") and one.affine is not None:
                total += positions(node, self.axes) * one.affine.macs_per_position
        return total

    def merged(self) -> Affine | None:
        """Return the map from the source to the last node; ``None`` where it is not exact."""
        found = {self.source: self._identity()}
        for node in self.nodes:
            one = self.lifts[node]
            inputs = [found[name] for name in one.inputs]
            if one.kind == "add":
                result = add([x.scaled(f) for x, f in zip(inputs, one.factors, strict=True)])
            elif one.kind == "concat":
                result = concat(inputs)
            else:
                assert one.affine is not None
                result = compose(inputs[0], one.affine)
            if result is None:
                return None
            found[node] = result
        return found[self.nodes[-1]]

    def bordered(self) -> Affine | None:
        """Return the same for images of this size, with an offset at the borders where need be.

        ``None`` where not even the linear part is one map.
        """
        if not self.axes:
            return None
        image = torch.zeros(1, *self.source.meta["shape"][1:], dtype=torch.float64)
        plain = self._without_biases().merged()
        if plain is None:
            return None
        found = {self.source: image}
        for node in self.nodes:
            one = self.lifts[node]
            inputs = [found[name] for name in one.inputs]
            if one.kind == "add":
                found[node] = sum(f * x for x, f in zip(inputs, one.factors, strict=True))  # type: ignore[assignment]
            elif one.kind == "concat":
                found[node] = torch.cat(inputs, 1)
            else:
                assert one.affine is not None
                found[node] = run(one.affine, inputs[0])
        made = found[self.nodes[-1]]
        bias = middle(made)
        offset = made - bias.reshape(1, -1, *[1] * self.axes)
        return replace(plain, bias=bias, has_bias=True, offset=offset)

    def _without_biases(self) -> Region:
        lifts = {
            node: one if one.affine is None
            else replace(one, affine=replace(one.affine, bias=torch.zeros_like(one.affine.bias)))
            for node, one in self.lifts.items()
        }  # fmt: skip
        return replace(self, lifts=lifts)

    def _identity(self) -> Affine:
        channels = self.source.meta["shape"][1 if self.axes else -1]
        return Affine.identity(channels, self.axes)


def positions(node: fx.Node, axes: int) -> int:
    """Return how many positions of the output of ``node`` share one set of weights."""
    shape = node.meta["shape"]
    return prod(shape) // shape[1 if axes else -1]


class Regions:
    """Finds regions in a graph, reading each node once.

    Args:
        module: The traced network, whose nodes carry ``meta["shape"]``.
        constants: Values of the nodes that do not depend on the input.
    """

    def __init__(self, module: fx.GraphModule, constants: dict[fx.Node, Any]) -> None:
        self.constants = constants
        self.modules = dict(module.named_modules())
        self._lifts: dict[tuple[fx.Node, int], Lifted | None] = {}

    def lifted(self, node: fx.Node, axes: int) -> Lifted | None:
        """Return what ``node`` does, in the layout of ``axes``."""
        if (node, axes) not in self._lifts:
            found = None
            if node.meta.get("type"):
                found = lift(node, axes, self.modules, self.constants)
            self._lifts[node, axes] = found
        return self._lifts[node, axes]

    def changed(self, module: fx.GraphModule, readers: Iterable[fx.Node]) -> None:
        """Note that ``module`` has other modules now, and that ``readers`` read another node."""
        self.modules = dict(module.named_modules())
        gone = set(readers)
        self._lifts = {key: one for key, one in self._lifts.items() if key[0] not in gone}

    def ending_at(self, last: fx.Node) -> Iterator[Region]:
        """Yield the regions whose last node is ``last``, the smallest first."""
        rank = len(last.meta.get("shape") or ())
        for axes in {0, max(0, rank - 2)}:
            if self.lifted(last, axes) is not None:
                yield from self._growing(last, axes)

    def _growing(self, last: fx.Node, axes: int) -> Iterator[Region]:
        lifts: dict[fx.Node, Lifted] = {}
        frontier = {last}
        fixed = False
        while len(lifts) < LARGEST:
            node = max(frontier)
            one = self.lifted(node, axes)
            if one is None or any(user not in lifts for user in node.users if node is not last):
                return
            lifts[node] = one
            fixed = fixed or fixed_axes(node, self.modules) is not None
            frontier.discard(node)
            frontier.update(one.inputs)
            if len(frontier) == 1:
                source = next(iter(frontier))
                # Without a layer to tell, the channels are taken to be where images have them.
                if fixed or axes or len(last.meta["shape"]) == 2:
                    yield Region(source, tuple(sorted(lifts)), dict(lifts), axes)
