# SPDX-License-Identifier: Apache-2.0
"""Channel coupling of any network, by running its own operations on the channels' labels.

Every axis of every parameter gets labels; the operations of one real forward pass carry them on
(:mod:`chipfit.graph.coupling_rules`). It is repeated until nothing new is learnt, because what
is frozen or split late changes what earlier operations mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import chipfit.graph.coupling_rules_layers
import chipfit.graph.coupling_rules_views  # noqa: F401  (both register rules)
from chipfit.graph.coupling_axes import Axes, Layers, freeze_axis
from chipfit.graph.coupling_labels import Labels, Vector
from chipfit.graph.coupling_rules import Flow, Site
from chipfit.graph.coupling_sides import CONVOLUTIONS, NORMS, TRANSPOSED
from chipfit.graph.coupling_trace import Record, Ref, record

Side = tuple[str, str]
#: Passes after which a network that still brings news is given up.
PASSES = 24
#: Reason of what leaves the network; the layer is named where it is reported.
OUTPUT = "makes the output of the network"
#: Layers that make channels of their own.
MAKERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


@dataclass
class Atom:
    """What can be removed at once, or is frozen.

    Args:
        root: Its label.
        family: The same for labels that were made together.
        frozen: Why it stays, or ``""``.
        owns: Indices by side.
    """

    root: int
    family: int
    frozen: str
    owns: dict[Side, tuple[int, ...]] = field(default_factory=dict)


@dataclass
class Coupling:
    """Atoms of a network, and the axes whose sizes modules may have written down.

    Args:
        atoms: By root.
        labels: All that is known.
        sites: Labelled axes of views.
        delicate: Whether numbers, not only shapes, decide if narrowing is exact.
    """

    atoms: dict[int, Atom]
    labels: Labels
    sites: Sequence[Site]
    delicate: bool

    def positions(self, site: Site) -> dict[int, tuple[int, ...]]:
        """Return which positions of a site each root owns."""
        found: dict[int, list[int]] = defaultdict(list)
        for layer in site.layers:
            for i, label in enumerate(layer):
                for root in self.labels.expand(int(label)):
                    if not found[root] or found[root][-1] != i:
                        found[root].append(i)
        return {root: tuple(own) for root, own in found.items()}


def couple(net: nn.Module, example: Any) -> Coupling:
    """Return what can be removed from ``net``.

    Raises:
        BadInput: The network fails on the example.
        RuntimeError: Its operations cannot be followed to an end.
    """
    done = record(net, example)
    labels, modules = Labels(), dict(net.named_modules())
    states, sides = _states(net, done, labels)
    _freeze_shared(net, done, labels, states)
    _freeze_unused(done, labels, states, modules)
    for _ in range(PASSES):
        before = labels.facts
        flow = Flow(done, labels, states, modules)
        flow.run()
        for number in done.outputs:
            for own in flow.axes(number).layers:
                for layer in own:
                    labels.freeze(np.unique(layer), OUTPUT)
        if labels.facts == before:
            break
    else:
        raise RuntimeError("the coupling of its channels does not settle")
    for key, vector in labels.made("side"):
        sides.setdefault((key[1], key[2]), vector)
    return Coupling(_atoms(labels, sides), labels, flow.sites, flow.delicate)


def _states(
    net: nn.Module, done: Record, labels: Labels
) -> tuple[dict[int, Axes], dict[Side, Vector]]:
    """Return the axes of parameters and buffers, and the labels of every side by index."""
    modules = dict(net.named_modules())
    axes: dict[int, Axes] = {}
    sides: dict[Side, Vector] = {}
    for name, number in done.states.items():
        owner, _, leaf = name.rpartition(".")
        shape = done.shapes[number]
        layers: list[Layers] = [[] for _ in shape]
        for axis, size in enumerate(shape):
            if size < 2:
                continue
            side, repeats = _side(modules.get(owner), leaf, axis, len(shape))
            if side == "none":
                continue
            key = (owner, side) if side else (name, f"param:{axis}")
            vector = labels.fresh(("side", *key), size)
            layers[axis] = [vector]
            sides[key] = np.tile(vector, repeats)
        axes[number] = Axes(shape, layers)
    return axes, sides


def _side(module: nn.Module | None, leaf: str, axis: int, rank: int) -> tuple[str, int]:
    """Return the side that an axis of a parameter is, and how often its labels repeat on it.

    ``""`` is the axis of a bare parameter, ``"none"`` one that is never narrowed.
    """
    if isinstance(module, CONVOLUTIONS) and leaf in ("weight", "bias"):
        if axis == 1:
            return "in", module.groups
        return ("out", 1) if axis == 0 else ("none", 1)
    if isinstance(module, TRANSPOSED) and leaf in ("weight", "bias"):
        if leaf == "bias" or axis == 1:
            return "out", 1 if leaf == "bias" else module.groups
        return ("in", 1) if axis == 0 else ("none", 1)
    if isinstance(module, nn.Linear) and leaf in ("weight", "bias"):
        return ("out", 1) if axis == 0 else ("in", 1)
    if isinstance(module, NORMS) and rank == 1:
        return "out", 1
    return "", 1


def _freeze_shared(net: nn.Module, done: Record, labels: Labels, states: dict[int, Axes]) -> None:
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    for shared in names.values():
        if len(shared) > 1:
            number = next(done.states[name] for name in shared if name in done.states)
            for own in states[number].layers:
                freeze_axis(labels, own, f"{shared[0]} is the same tensor as {shared[1]}")


def _freeze_unused(
    done: Record, labels: Labels, states: dict[int, Axes], modules: dict[str, nn.Module]
) -> None:
    used = {
        x.value
        for call in done.calls
        for x in tree_leaves((call.args, dict(call.kwargs)))
        if isinstance(x, Ref)
    }
    for name, number in done.states.items():
        owner, _, leaf = name.rpartition(".")
        if number not in used and leaf == "weight" and isinstance(modules[owner], MAKERS):
            for own in states[number].layers:
                freeze_axis(labels, own, f"{owner} is not seen in use")


def _atoms(labels: Labels, sides: dict[Side, Vector]) -> dict[int, Atom]:
    found: dict[int, Atom] = {}
    owned: dict[int, dict[Side, list[int]]] = defaultdict(lambda: defaultdict(list))
    for side, vector in sides.items():
        for i, roots in enumerate(labels.owners(vector)):
            for root in roots:
                owned[root][side].append(i)
    for root, own in owned.items():
        atom = Atom(root, labels.family(root), "")
        if root in labels.frozen:
            atom.frozen = labels.reason(root) or "it cannot be narrowed"
        atom.owns = {side: tuple(index) for side, index in own.items()}
        found[root] = atom
    return found


def maker_of(atom: Atom, modules: dict[str, nn.Module], order: dict[str, int]) -> str:
    """Return the first layer that makes the channel, ``""`` where none does."""
    makers = [
        module for module, side in atom.owns
        if side == "out" and isinstance(modules.get(module), MAKERS)
    ]  # fmt: skip
    return min(makers, key=order.__getitem__, default="")


def host_copy(net: nn.Module) -> nn.Module:
    """Return a copy of ``net`` on the CPU, where it is not on the meta device."""
    import copy

    clone = copy.deepcopy(net)
    on_meta = any(p.is_meta for p in clone.parameters())
    return clone if on_meta else clone.to(torch.device("cpu"))
