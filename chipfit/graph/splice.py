# SPDX-License-Identifier: Apache-2.0
"""Predict the workload of a network whose blocks are exchanged, without building the network.

Each new block is traced once, alone; any combination of blocks is then put together from the
pieces, in well under a millisecond per operator. What devices fuse across the edge of a block (a
batch norm and an activation at its beginning join the convolution before it) is fused here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.fuse import CARRIERS
from chipfit.graph.op import make_op
from chipfit.graph.workload import Node, Workload


@dataclass(frozen=True)
class Piece:
    """Operators of a block, with the names of the tensors that it reads and writes.

    Args:
        nodes: In the order of execution.
        source: Name of the tensor that they read from outside.
        result: Name of the tensor that they leave; ``source`` where there is no operator, as in a
            block that is the identity.
    """

    nodes: tuple[Node, ...]
    source: str
    result: str


def trace_piece(block: nn.Module, in_shape: tuple[int, ...], name: str) -> Piece:
    """Return the operators of ``block`` as they stand in a network where it is called ``name``.

    Args:
        block: Takes one image and gives one.
        in_shape: ``(1, C, H, W)`` of what it reads.
        name: Dotted name that its operators get as a prefix.

    Raises:
        BadInput: It fails on that shape, or does not map one tensor to one.
    """
    found = trace(block, torch.zeros(in_shape))
    if len(found.inputs) != 1 or len(found.outputs) != 1 or found.constants:
        raise BadInput(f"{name}: a block must map one tensor to one")
    names = {n.output: f"{name}.{n.output}" for n in found.nodes}
    children = tuple(f"{child}." for child, _ in block.named_children())
    own = [n.output for n in found.nodes if not f"{n.output}.".startswith(children)]
    if len(own) == 1:
        names[own[0]] = name  # an operator that is alone in a module is called like the module
    nodes = tuple(
        Node(
            names[n.output], n.op, tuple(names.get(i, i) for i in n.inputs), names[n.output],
            f"{name}.{n.module}" if n.module else "",
            tuple(f"{name}.{a}" if a else name for a in n.absorbed),
        )
        for n in found.nodes
    )  # fmt: skip
    return Piece(nodes, found.inputs[0], names.get(found.outputs[0], found.outputs[0]))


def splice(
    workload: Workload, old: Mapping[str, Piece], new: Mapping[str, Piece], fuse: bool = True
) -> Workload:
    """Return ``workload`` with some blocks exchanged.

    Args:
        workload: The network.
        old: By block, the operators that go: ``source`` and ``result`` name tensors of
            ``workload``.
        new: By block, the operators that come, from :func:`trace_piece`; blocks that are not here
            stay as they are. A block without operators (a skip) hands on what it reads.
        fuse: Fold what devices fuse; otherwise :func:`fused` does so later.

    Raises:
        BadInput: A new block writes another shape than the old one, the old one has no operator
            to tell its place by, or a module outside of it runs in its last operator.
    """
    for name in new:
        _check_replaceable(name, old[name])
    first = {old[name].nodes[0].name: name for name in new}
    gone = {node.name for name in new for node in old[name].nodes}
    rename: dict[str, str] = {}
    nodes: list[Node] = []
    for node in workload.nodes:
        block = first.get(node.name)
        if block is not None:
            piece, was = new[block], old[block]
            source = rename.get(was.source, was.source)
            made = {n.output: n.op.output for n in piece.nodes}
            written = made.get(piece.result, workload.shapes[was.source])
            if written != workload.shapes[was.result]:
                raise BadInput(f"{block}: the new block writes another shape than the old one")
            nodes += [_reading(n, {piece.source: source}) for n in piece.nodes]
            rename[was.result] = piece.result if piece.nodes else source
        if node.name not in gone:
            nodes.append(_reading(node, rename))
    outputs = tuple(rename.get(name, name) for name in workload.outputs)
    nodes = _fuse(nodes, outputs) if fuse else nodes
    shapes = {n: workload.shapes[n] for n in (*workload.inputs, *workload.constants)}
    shapes |= {node.output: node.op.output for node in nodes}
    return Workload(tuple(nodes), workload.inputs, outputs, shapes, workload.constants)


def fused(workload: Workload) -> Workload:
    """Return the workload with what devices fuse folded again, after operators have gone."""
    nodes = tuple(_fuse(list(workload.nodes), workload.outputs))
    shapes = {n: workload.shapes[n] for n in (*workload.inputs, *workload.constants)}
    shapes |= {node.output: node.op.output for node in nodes}
    return replace(workload, nodes=nodes, shapes=shapes)


def _check_replaceable(name: str, piece: Piece) -> None:
    if not piece.nodes:
        raise BadInput(
            f"{name} runs no operator, so nothing can be put in its place",
            "build the network with a block that computes something there",
        )
    for node in piece.nodes:
        for absorbed in node.absorbed:
            if not f"{absorbed}.".startswith(f"{name}."):
                raise BadInput(
                    f"{absorbed} runs in the last operator of {name}, and would go with it",
                    "let the place be a module that holds both",
                )


def _reading(node: Node, rename: Mapping[str, str]) -> Node:
    if rename.keys().isdisjoint(node.inputs):
        return node
    return replace(node, inputs=tuple(rename.get(name, name) for name in node.inputs))


def _fuse(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Fold what devices fuse over the edges of blocks.

    Batch norms, with their activation, go into the convolution that they alone read; activations
    into whatever computes what they alone read.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    readers.update(outputs)
    place = {node.output: i for i, node in enumerate(nodes)}
    rename: dict[str, str] = {}
    left: list[Node | None] = list(nodes)
    for i, node in enumerate(nodes):
        node = _reading(node, rename)
        left[i] = node
        at = place.get(node.inputs[0], -1)
        host = left[at] if at >= 0 else None
        plain = host is not None and host.op.activation == "none"
        alone = readers[node.inputs[0]] == 1
        if host is None or not plain or not alone:
            continue
        attrs = dict(host.op.attrs)
        if node.op.kind == "batch_norm" and host.op.kind in ("conv2d", "batch_norm"):
            attrs |= {"bias": True} if host.op.kind == "conv2d" else {}
        elif node.op.kind == "activation" and host.op.kind in CARRIERS:
            attrs |= dict(node.op.attrs)
        else:
            continue
        op = make_op(
            host.op.kind, host.op.inputs, host.op.output, activation=node.op.activation,
            constants=host.op.constants, **attrs,
        )  # fmt: skip
        left[at] = replace(host, op=op, absorbed=(*host.absorbed, node.name, *node.absorbed))
        left[i] = None
        rename[node.output] = host.output
        readers[host.output] = readers[node.output]
    return [node for node in left if node is not None]
