# SPDX-License-Identifier: Apache-2.0
"""Find the blocks of a network that are linear but for the activations inside them.

Inverted residuals (1x1, depthwise, 1x1), fused ones, separable convolutions and basic residual
blocks: chains of two or three convolutions with activations between them and perhaps a shortcut.
They are recognised by what they compute, so any class will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.workload import Node, Workload

#: Longest chain of convolutions that is one block.
LONGEST = 3
Padding = tuple[int, int, int, int]


@dataclass(frozen=True)
class ConvSite:
    """One convolution of a block.

    Args:
        module: Dotted name of the convolution.
        norm: Dotted name of the batch norm behind it, ``""`` where there is none.
        kernel: Square kernel size.
        stride: Stride of both axes.
        depthwise: Whether it is depthwise.
        padding: Zeros ``(top, bottom, left, right)``.
        activation: What follows, ``"none"`` for the identity.
    """

    module: str
    norm: str
    kernel: int
    stride: int
    depthwise: bool
    padding: Padding
    activation: str


@dataclass(frozen=True)
class ActivatedBlock:
    """A module that would be one linear map without its activations.

    Args:
        module: Dotted name.
        kind: ``inverted_residual``, ``separable``, ``fused_inverted_residual`` or ``chain``.
        nodes: Names of its operators in the workload.
        source: Name of the tensor that it reads.
        result: Name of the tensor that it writes.
        convs: Its convolutions in order.
        shortcut: Convolution of the shortcut, ``None`` where it has none.
        residual: Whether its input is added to its output.
        last_activation: What follows the block's sum, or its last convolution.
        hidden: Channels that the last convolution reads.
        in_shape: ``(1, C, H, W)`` of what it reads.
        out_shape: ``(1, C, H, W)`` of what it writes.
    """

    module: str
    kind: str
    nodes: tuple[str, ...]
    source: str
    result: str
    convs: tuple[ConvSite, ...]
    shortcut: ConvSite | None
    residual: bool
    last_activation: str
    hidden: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def in_channels(self) -> int:
        """Channels read."""
        return self.in_shape[1]

    @property
    def out_channels(self) -> int:
        """Channels written."""
        return self.out_shape[1]

    @property
    def stride(self) -> int:
        """Stride of the whole block."""
        return math.prod(site.stride for site in self.convs)

    @property
    def kernel(self) -> int:
        """Kernel size of the one convolution that equals the chain without activations."""
        size, step = 1, 1
        for site in self.convs:
            size += (site.kernel - 1) * step
            step *= site.stride
        return size

    @property
    def padding(self) -> Padding:
        """Zeros ``(top, bottom, left, right)`` that this convolution needs."""
        total, step = [0, 0, 0, 0], 1
        for site in self.convs:
            total = [t + step * p for t, p in zip(total, site.padding, strict=True)]
            step *= site.stride
        return total[0], total[1], total[2], total[3]

    @property
    def activation(self) -> str:
        """The first activation inside."""
        return next(s.activation for s in self.convs if s.activation != "none")


@dataclass(frozen=True)
class Unrecognised:
    """A module with activations between convolutions that is no such block, and why."""

    module: str
    reason: str


def find_blocks(
    net: nn.Module, example: torch.Tensor, keep: Sequence[str] = ()
) -> tuple[list[ActivatedBlock], list[Unrecognised]]:
    """Return the blocks in the order of execution, and what was looked at and left alone.

    Of nested modules that hold the same operators, the innermost that is no ``Sequential`` stands
    for the block.

    Args:
        net: The network; it is not changed.
        example: Its input, ``(1, C, H, W)``.
        keep: Prefixes of modules to leave alone.

    Raises:
        BadInput: The network fails on the example.
    """
    workload = trace(net, example)
    modules = dict(net.named_modules())
    owners = [_owner(node, modules) for node in workload.nodes]
    inside: dict[str, list[int]] = {}
    for i, owner in enumerate(owners):
        while owner:
            inside.setdefault(owner, []).append(i)
            owner = owner.rpartition(".")[0]
    found: list[tuple[int, ActivatedBlock]] = []
    taken: set[int] = set()
    refused: dict[str, tuple[list[int], str]] = {}
    # Large modules first: a chain without its shortcut is no block of its own.
    for name in sorted(inside, key=lambda n: (-len(inside[n]), n.count("."), n)):
        indices = inside[name]
        convs = [i for i in indices if workload.nodes[i].op.kind == "conv2d"]
        if taken & set(indices) or len(convs) < 2 or isinstance(modules[name], nn.ModuleList):
            continue
        outcome = _match(workload, indices, name, modules)
        if isinstance(outcome, str):
            refused[name] = indices, outcome
            continue
        name = _innermost(name, inside, modules)
        if name.startswith(tuple(keep) or ("\0",)):
            refused[name] = indices, "it is to be kept"
            taken |= set(indices)
            continue
        taken |= set(indices)
        found.append((indices[0], _named(outcome, name)))
    return [block for _, block in sorted(found, key=lambda f: f[0])], _reasons(
        refused, {i for _, block in found for i in inside[block.module]}, modules
    )


def _named(block: ActivatedBlock, name: str) -> ActivatedBlock:
    return ActivatedBlock(**{**block.__dict__, "module": name})


def _owner(node: Node, modules: dict[str, nn.Module]) -> str:
    name = (node.module or node.name).partition("#")[0]
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _innermost(name: str, inside: dict[str, list[int]], modules: dict[str, nn.Module]) -> str:
    same = [n for n in inside if inside[n] == inside[name] and n.startswith(name)]
    plain = [n for n in same if not isinstance(modules[n], nn.Sequential | nn.ModuleList)]
    return max(plain or same, key=lambda n: n.count("."))


def _reasons(
    refused: dict[str, tuple[list[int], str]], taken: set[int], modules: dict[str, nn.Module]
) -> list[Unrecognised]:
    """Name the smallest refused modules, those that hold no other and no block."""
    kept: list[Unrecognised] = []
    covered: set[int] = set(taken)
    for name, (indices, reason) in sorted(refused.items(), key=lambda r: (len(r[1][0]), r[0])):
        if covered & set(indices) or isinstance(modules[name], nn.Sequential):
            continue
        covered |= set(indices)
        kept.append(Unrecognised(name, reason))
    return sorted(kept, key=lambda u: list(modules).index(u.module))


def _match(
    workload: Workload, indices: list[int], name: str, modules: dict[str, nn.Module]
) -> ActivatedBlock | str:
    """Return the block that the operators at ``indices`` are, or why they are none."""
    nodes = [workload.nodes[i] for i in indices]
    made = {node.output: node for node in nodes}
    strangers = [n for n in nodes if n.op.kind not in ("conv2d", "add")]
    if strangers:
        return f"{strangers[0].name} ({strangers[0].op.kind}) is neither convolution nor sum"
    sources = {s for n in nodes for s in n.inputs if s not in made}
    outside = {s for i, n in enumerate(workload.nodes) if i not in set(indices) for s in n.inputs}
    results = [n.output for n in nodes if n.output in outside | set(workload.outputs)]
    if len(sources) != 1 or sources & workload.constants or len(results) != 1:
        return f"it reads {len(sources)} tensors and writes {len(results)}"
    source, last = sources.pop(), made[results[0]]
    residual, side, tail = False, None, last
    if last.op.kind == "add":
        branches = list(last.inputs)
        residual = source in branches
        ends = [b for b in branches if b != source]
        if len(branches) != 2 or not ends:
            return "its sum is no shortcut"
        if not residual:  # a convolution on the shortcut: the one that reads the input directly
            ends.sort(key=lambda b: len(_chain(made, b, source) or ()))
            side = made[ends[0]]
            if _chain(made, ends[0], source) != [side]:
                return "its shortcut is more than one convolution"
        tail = made[ends[-1]]
    chain = _chain(made, tail.output, source)
    if chain is None or len(chain) + (last.op.kind == "add") + (side is not None) != len(nodes):
        return "its convolutions are no chain"
    if not 2 <= len(chain) <= LONGEST:
        return f"it is a chain of {len(chain)} convolutions"
    sites = []
    for node in [*chain, *([side] if side else [])]:
        site = _site(node, modules)
        if isinstance(site, str):
            return site
        sites.append(site)
    if len({site.module for site in sites}) < len(sites):
        return "it uses a convolution twice"
    shortcut = sites.pop() if side else None
    if last.op.kind == "add" and sites[-1].activation != "none":
        return "an activation stands between its last convolution and its sum"
    if shortcut is not None and (shortcut.activation != "none" or shortcut.kernel != 1):
        return "its shortcut is no linear 1x1 convolution"
    if all(site.activation == "none" for site in sites[:-1]):
        return "it has no activation inside"
    outer = last.op.activation
    block = ActivatedBlock(
        name, _kind(sites), tuple(n.name for n in nodes), source, last.output, tuple(sites),
        shortcut, residual, outer, chain[-1].op.inputs[0][1], workload.shapes[source],
        last.op.output,
    )  # fmt: skip
    fits = block.stride == 1 and block.in_channels == block.out_channels
    if fits and not residual:
        return "it has no shortcut although shapes fit; a collapsed block would have one"
    return block


def _chain(made: dict[str, Node], end: str, source: str) -> list[Node] | None:
    found: list[Node] = []
    while end != source:
        if end not in made or made[end].op.kind != "conv2d":
            return None
        found.insert(0, made[end])
        end = made[end].inputs[0]
    return found


def _site(node: Node, modules: dict[str, nn.Module]) -> ConvSite | str:
    op = node.op
    (kh, kw), (sh, sw) = op["kernel"], op["stride"]
    if not isinstance(modules.get(node.module), nn.Conv2d):
        return f"{node.name} is not computed by a Conv2d module"
    if op["groups"] > 1 and not (op.depthwise and op.output[1] == op.inputs[0][1]):
        return f"{node.name} is a grouped convolution"
    if kh != kw or sh != sw or tuple(op["dilation"]) != (1, 1):
        return f"{node.name} is dilated or not square"
    norms = [n for n in node.absorbed if isinstance(modules.get(n), nn.BatchNorm2d)]
    if len(norms) > 1:
        return f"{node.name} has {len(norms)} batch norms behind it"
    return ConvSite(
        node.module, norms[0] if norms else "", kh, sh, op.depthwise, tuple(op["padding"]),
        op.activation,
    )  # fmt: skip


def _kind(sites: Sequence[ConvSite]) -> str:
    shape = [(site.kernel == 1, site.depthwise) for site in sites]
    dense, depthwise = (True, False), (False, True)
    if shape == [dense, depthwise, dense] or shape == [dense, (True, True), dense]:
        return "inverted_residual"
    if shape[0][1] and shape[1:] == [dense]:
        return "separable"
    if shape == [(False, False), dense]:
        return "fused_inverted_residual"
    return "chain"


def require_blocks(
    blocks: Iterable[ActivatedBlock], unrecognised: Sequence[Unrecognised]
) -> list[ActivatedBlock]:
    """Return the blocks as a list.

    Raises:
        BadInput: There are none; the message says why what was looked at is no block.
    """
    found = list(blocks)
    if not found:
        reasons = "; ".join(f"{u.module}: {u.reason}" for u in unrecognised[:6])
        raise BadInput(
            "this network has no block that becomes linear without the activations inside it"
            + (f" ({reasons})" if reasons else ""),
            "inverted residuals and basic residual blocks are such; netadapt narrows any network",
        )
    return found
