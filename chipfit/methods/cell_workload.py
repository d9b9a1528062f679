# SPDX-License-Identifier: Apache-2.0
"""The workload of any architecture of a network of cells, whose edges may be absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from chipfit.blocks.skip import is_absent
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.pieces import piece_at
from chipfit.graph.splice import Piece, fused, splice, trace_piece
from chipfit.graph.workload import Node, Workload
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.node_rule import empty_nodes_of

#: Blocks that leave an edge out, or run no operator by which a place could be told.
_EMPTY = ("none", "skip")


class CellWorkload:
    """Maps an architecture to its workload, from the operators of every operation.

    The network in which every edge runs some operator is traced once. Of an architecture, edges
    that are absent go, with the additions that they were a term of and with whatever nothing reads
    any more; a node without edges is what the network says in ``empty_nodes``.

    Args:
        net: The network with nothing swapped.
        example: Its input ``(1, C, H, W)``.
        blocks: The space.

    Raises:
        BadInput: A place is no separate part of the graph, or has no operation that runs one.
    """

    def __init__(self, net: nn.Module, example: torch.Tensor, blocks: BlockSpace) -> None:
        self._blocks = blocks
        swaps = [swap for choice in blocks for swap in _full(choice).swaps]
        base = replay(net, swaps).eval()
        self._base = trace(base, example)
        self._old: dict[str, Piece] = {}
        #: By choice, operation and place; ``None`` where the edge is absent.
        self._new: dict[tuple[str, str], dict[str, Piece | None]] = {}
        for choice in blocks:
            for place in choice.places:
                self._old[place] = piece_at(self._base, place)
            for operation in choice.operations:
                built = {
                    s.module: s.made_from(net.get_submodule(s.module)) for s in operation.swaps
                }
                self._new[choice.name, operation.name] = self._pieces(net, choice, built)
            self._new[choice.name, KEEP] = self._pieces(net, choice, {})
        self._empty: dict[str, Piece] = {}
        for sums, (zero, source) in empty_nodes_of(net).items():
            read = piece_at(self._base, source).result
            made = trace_piece(base.get_submodule(zero).eval(), self._base.shapes[read], zero)
            last = [n.output for n in self._base.nodes if _within(n, sums)][-1]
            self._empty[last] = replace(
                made, nodes=tuple(_reading(n, {made.source: read}) for n in made.nodes)
            )
        pieces = [*self._old.items(), *(p for own in self._new.values() for p in own.items())]
        self._inside = {
            node.name: place for place, piece in pieces if piece for node in piece.nodes
        }

    def __call__(self, architecture: Mapping[str, str]) -> Workload:
        """Return the workload of an architecture by operation names; ``keep`` is allowed.

        Raises:
            BadInput: A node without edges is read where nothing stands for it.
        """
        new: dict[str, Piece] = {}
        absent: set[str] = set()
        for choice in self._blocks:
            for place, piece in self._new[choice.name, architecture[choice.name]].items():
                if piece is None:
                    absent.add(place)
                else:
                    new[place] = piece
        gone = {self._old[place].result for place in absent}
        # An activation that joined an addition would go with it: nothing is fused before the end.
        whole = splice(self._base, self._old, new, fuse=False)
        left = _without(whole, self._inside, absent, gone, self._empty)
        return fused(_alive(left))

    def _pieces(
        self, net: nn.Module, choice: BlockChoice, built: Mapping[str, nn.Module]
    ) -> dict[str, Piece | None]:
        found: dict[str, Piece | None] = {}
        for place in choice.places:
            block = (built[place] if built else net.get_submodule(place)).eval()
            shape = self._base.shapes[self._old[place].source]
            found[place] = None if is_absent(block) else trace_piece(block, shape, place)
        return found


def _full(choice: BlockChoice) -> Operation:
    """Return an operation that runs an operator; a pooling where there is one.

    Poolings begin with no activation, which could be fused into what stands before.
    """
    running = [o for o in choice.operations if o.swaps and all(s.block not in _EMPTY
                                                               for s in o.swaps)]  # fmt: skip
    if not running:
        raise BadInput(f"no operation of {choice.name} tells its place")
    return next((o for o in running if o.swaps[0].block == "pool"), running[0])


def _without(
    base: Workload, inside: Mapping[str, str], absent: set[str], gone: set[str],
    empty: Mapping[str, Piece],
) -> Workload:  # fmt: skip
    """Return the workload without absent places, and without additions of a single term.

    Args:
        base: The workload.
        inside: By operator, its place.
        absent: Places that go.
        gone: Tensors that they would leave; what is nothing without these is added.
        empty: By tensor that may be gone, the operators that stand for it.
    """
    rename: dict[str, str] = {}
    nodes: list[Node] = []
    for node in base.nodes:
        place = inside.get(node.name)
        if place in absent:
            continue
        node = _reading(node, rename)
        terms = [name for name in node.inputs if name not in gone]
        if len(terms) == len(node.inputs):
            nodes.append(node)
        elif place is None and node.op.kind == "add" and terms:
            rename[node.output] = terms[0]
        elif node.output in empty:
            nodes += empty[node.output].nodes
            rename[node.output] = empty[node.output].result
        elif place is not None or (node.op.kind == "add" and not terms):
            gone.add(node.output)
        else:
            raise BadInput(f"{node.name} reads a node that has no edges")
    shapes = {name: base.shapes[name] for name in (*base.inputs, *base.constants)}
    shapes |= {node.output: node.op.output for node in nodes}
    return replace(base, nodes=tuple(nodes), shapes=shapes)


def _alive(workload: Workload) -> Workload:
    """Return the workload without operators that no output depends on."""
    needed = set(workload.outputs)
    for node in reversed(workload.nodes):
        if node.output in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in workload.nodes if node.output in needed)
    shapes = {n: workload.shapes[n] for n in (*workload.inputs, *workload.constants)}
    shapes |= {node.output: node.op.output for node in nodes}
    return replace(workload, nodes=nodes, shapes=shapes)


def _reading(node: Node, rename: Mapping[str, str]) -> Node:
    return replace(node, inputs=tuple(rename.get(name, name) for name in node.inputs))


def _within(node: Node, place: str) -> bool:
    return f"{(node.module or node.name).partition('#')[0]}.".startswith(f"{place}.")
