# SPDX-License-Identifier: Apache-2.0
"""Fuse recorded operators as devices do: padding, batch norm and activations join their operator.

Folding batch norm is done in double precision: ``W' = W * s``, ``b' = b * s + t`` with
``s = gamma / sqrt(var + eps)`` and ``t = beta - mean * s`` (Jacob et al., arXiv 1712.05877).
"""

from __future__ import annotations

import torch

from chipfit.graph.record import RawNode, Recorder

#: Operators behind which an activation is fused.
CARRIERS = ("conv2d", "linear", "add", "sub", "mul", "div", "batch_norm")


def fuse(recorded: Recorder, outputs: list[str]) -> list[RawNode]:
    """Return the nodes of ``recorded`` that reach ``outputs``, fused, in execution order."""
    nodes = _reachable(recorded.nodes, outputs)
    readers = _readers(nodes, outputs)
    made = {node.output: node for node in nodes}
    gone: set[int] = set()

    def only_reader(node: RawNode) -> RawNode | None:
        users = readers.get(node.output, [])
        return users[0] if len(users) == 1 else None

    def absorb(host: RawNode, guest: RawNode) -> None:
        host.absorbed += [*guest.absorbed, guest.place]
        gone.add(id(guest))

    for node in nodes:
        if id(node) in gone:
            continue
        if node.kind == "pad":
            user = only_reader(node)
            if user is not None and user.kind == "conv2d" and _fold_padding(node, user):
                user.inputs = list(node.inputs)
                absorb(user, node)
            continue
        while (user := only_reader(node)) is not None:
            if user.kind == "batch_norm" and node.activation == "none" and _fold_norm(node, user):
                pass
            elif (
                user.kind == "activation" and node.activation == "none" and (node.kind in CARRIERS)
            ):
                node.activation = user.activation
                node.attrs |= user.attrs
                node.params |= user.params
            elif node.kind == "reshape" == user.kind:
                node.shape = user.shape
            else:
                break
            absorb(node, user)
            readers[node.output] = readers.get(user.output, [])
            for reader in {id(reader): reader for reader in readers[node.output]}.values():
                reader.inputs = [node.output if n == user.output else n for n in reader.inputs]
            for i, name in enumerate(outputs):
                if name == user.output:
                    outputs[i] = node.output
                    readers[node.output] = [*readers[node.output], node, node]
            recorded.shapes[node.output] = user.shape
            node.shape = user.shape
    left = [node for node in nodes if id(node) not in gone]
    return _fuse_silu(left, outputs, made)


def _reachable(nodes: list[RawNode], outputs: list[str]) -> list[RawNode]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted |= set(node.inputs)
            kept.append(node)
    return kept[::-1]


def _readers(nodes: list[RawNode], outputs: list[str]) -> dict[str, list[RawNode]]:
    readers: dict[str, list[RawNode]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for name in outputs:
        # A tensor that leaves the network must stay: two entries forbid every fusion over it.
        entry = readers.setdefault(name, [])
        entry += [nodes[-1], nodes[-1]] if nodes else []
    return readers


def _fold_padding(pad: RawNode, conv: RawNode) -> bool:
    sides = pad.attrs["padding"]
    if pad.attrs["value"] != 0.0 or len(sides) != 4 or sides[1] != (0, 0):
        return False
    top, bottom, left, right = conv.attrs["padding"]
    (t, b), (le, r) = sides[2], sides[3]
    conv.attrs["padding"] = (top + t, bottom + b, left + le, right + r)
    return True


def _fold_norm(node: RawNode, norm: RawNode) -> bool:
    scale, shift = norm.params["scale"], norm.params["shift"]
    if node.kind == "linear" and len(node.shape) != 2:
        return False
    if node.kind in ("conv2d", "linear"):
        weight = node.params["weight"].double()
        bias = node.params.get("bias", torch.zeros_like(shift)).double()
        node.params["weight"] = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        node.params["bias"] = bias * scale + shift
        node.attrs["bias"] = True
        return True
    if node.kind == "batch_norm":
        node.params["shift"] = node.params["shift"] * scale + shift
        node.params["scale"] = node.params["scale"] * scale
        return True
    return False


def _fuse_silu(nodes: list[RawNode], outputs: list[str], made: dict[str, RawNode]) -> list[RawNode]:
    """Turn ``x * sigmoid(x)``, written by hand, into one SiLU."""
    readers = _readers(nodes, outputs)
    gone: set[int] = set()
    for node in nodes:
        if node.kind != "mul" or node.activation != "none" or len(node.inputs) != 2:
            continue
        for x, y in (node.inputs, node.inputs[::-1]):
            gate = made.get(y)
            if gate and gate.kind == "activation" and gate.activation == "sigmoid":
                if gate.inputs == [x] and len(readers[y]) == 1:
                    node.kind, node.inputs, node.activation = "activation", [x], "silu"
                    node.absorbed.append(gate.place)
                    gone.add(id(gate))
                    break
    return [node for node in nodes if id(node) not in gone]
