# SPDX-License-Identifier: Apache-2.0
"""Skip connections of a traced network: residual additions and dense concatenations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from chipfit.graph import Node, Workload
from chipfit.graph.op import Shape

#: Kinds that leave the channels where their input has them.
_ELEMENTWISE = ("add", "sub", "mul", "div", "activation", "maximum", "minimum", "clamp", "unary")
#: Kinds that only put channels together or pick some.
_PICKING = ("concat", "gather", "slice")
#: Kinds whose channels are the last axis.
_LAST = ("linear", "layer_norm", "matmul")


@dataclass(frozen=True)
class DenseCell:
    """Layers of one image size that concatenate what earlier ones computed.

    Args:
        channels: Of every layer that a concatenation reads, in execution order.
        carried: Channels that skip connections carry, of all concatenations together.
        possible: Channels that they could carry.
    """

    channels: tuple[int, ...]
    carried: int
    possible: int

    @property
    def density(self) -> float:
        """Carried channels in units of the possible ones, 0 to 1."""
        return self.carried / self.possible

    @property
    def width(self) -> float:
        """Mean channels of a layer."""
        return sum(self.channels) / len(self.channels)

    @property
    def depth(self) -> int:
        """Layers: those that are read, and the one that reads the last concatenation."""
        return len(self.channels) + 1


def residual_channels(workload: Workload) -> list[int]:
    """Return the channels of every residual connection, in execution order.

    That is a term of a sum of activations from which another term of the sum was computed; a sum
    of several terms is one, whatever the order of its additions.
    """
    graph = _Graph(workload)
    found = []
    for node in workload.nodes:
        if not _adds(node) or graph.only_added(node.output):
            continue
        terms = list(graph.terms(node))
        direct = [term for term in terms if any(graph.comes_from(t, term) for t in terms)]
        found += [node.op.output[graph.channel_axis(node)]] * len(direct)
    return found


def _adds(node: Node) -> bool:
    """Return whether a node adds two activations of equal shape."""
    op = node.op
    return (
        op.kind == "add" and not op.constants and len(op.inputs) == 2 and len(set(op.inputs)) == 1
    )


def dense_cells(workload: Workload) -> list[DenseCell]:
    """Return the dense cells of a network: one for each image size with such concatenations."""
    graph = _Graph(workload)
    cells: dict[Shape, list[list[_Part]]] = {}
    for node in workload.nodes:
        joins = node.op.kind == "concat" and node.op["axis"] == 1 and len(node.op.output) == 4
        if joins and graph.feeds_a_layer(node.output):
            cells.setdefault(node.op.output[2:], []).append(list(graph.parts(node.output)))
    return [cell for parts in cells.values() if (cell := _cell(graph, parts)) is not None]


@dataclass(frozen=True)
class _Part:
    """``channels`` of a concatenation that were picked from the tensors ``sources``."""

    sources: tuple[str, ...]
    channels: int


def _cell(graph: _Graph, concatenations: list[list[_Part]]) -> DenseCell | None:
    layers = {source for parts in concatenations for part in parts for source in part.sources}
    order = sorted(layers, key=graph.position)
    carried = possible = 0
    for parts in concatenations:
        direct = max((s for part in parts for s in part.sources), key=graph.position)
        skips = [
            part.channels
            for part in parts
            if any(graph.comes_from(direct, source) for source in part.sources)
        ]
        if skips:
            carried += sum(skips)
            earlier = order[: order.index(direct)]
            possible += sum(graph.shape(source)[1] for source in earlier)
    if not carried:
        return None
    return DenseCell(tuple(graph.shape(name)[1] for name in order), carried, possible)


class _Graph:
    """Who was computed from whom."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    @cached_property
    def _before(self) -> dict[str, int]:
        """By tensor, the tensors it was computed from, as bits at their positions."""
        before = {name: 0 for name in (*self.workload.inputs, *self.workload.constants)}
        for node in self.workload.nodes:
            bits = 0
            for name in node.inputs:
                bits |= before[name]
                if name not in self.workload.constants:
                    bits |= 1 << self.position(name)
            before[node.output] = bits
        return before

    def position(self, name: str) -> int:
        """Return where in the execution order a tensor is written; inputs come first."""
        index = self.workload.producer.get(name)
        inputs = self.workload.inputs
        return inputs.index(name) if index is None else len(inputs) + index

    def comes_from(self, name: str, source: str) -> bool:
        """Return whether ``name`` was computed from ``source``."""
        return bool(self._before[name] >> self.position(source) & 1)

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.workload.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    def only_added(self, name: str) -> bool:
        """Return whether a plain sum is nothing but a term of one other sum."""
        readers = self._readers.get(name, [])
        made = self.workload.nodes[self.workload.producer[name]]
        alone = len(readers) == 1 and name not in self.workload.outputs
        return alone and made.op.activation == "none" and _adds(readers[0])

    def terms(self, node: Node) -> Iterator[str]:
        """Yield the terms of the sum that ends in ``node``."""
        for name in node.inputs:
            index = self.workload.producer.get(name)
            made = None if index is None else self.workload.nodes[index]
            if made is not None and _adds(made) and self.only_added(name):
                yield from self.terms(made)
            else:
                yield name

    def feeds_a_layer(self, name: str) -> bool:
        """Return whether something reads a tensor that does more than put channels together."""
        return name in self.workload.outputs or any(
            node.op.kind not in _PICKING for node in self._readers.get(name, [])
        )

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor."""
        return self.workload.shapes[name]

    def parts(self, name: str) -> Iterator[_Part]:
        """Yield the layers' outputs that a tensor was put together from, and their channels."""
        index = self.workload.producer.get(name)
        node = None if index is None else self.workload.nodes[index]
        kind = "" if node is None else node.op.kind
        if node is not None and kind == "concat" and node.op["axis"] == 1:
            for part in node.inputs:
                yield from self.parts(part)
        elif node is not None and kind in ("gather", "slice") and node.op["axis"] == 1:
            sources = [source for part in self.parts(node.inputs[0]) for source in part.sources]
            yield _Part(tuple(sources), node.op.output[1])
        else:
            yield _Part((name,), self.shape(name)[1])

    def channel_axis(self, node: Node) -> int:
        """Return the axis of the channels: the second of images, the last behind a linear layer."""
        while node.op.kind in _ELEMENTWISE:
            made = [self.workload.producer[n] for n in node.inputs if n in self.workload.producer]
            if not made:
                break
            node = self.workload.nodes[max(made)]
        return -1 if node.op.kind in _LAST or len(node.op.output) < 4 else 1
