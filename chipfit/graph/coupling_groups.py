# SPDX-License-Identifier: Apache-2.0
"""Channel groups as data, and how atoms become groups."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from chipfit.graph.coupling import OUTPUT, Atom, Coupling, Side, maker_of

#: Maker, family, number of indices by side, and reason to be frozen, of the atoms of a group.
_Kind = tuple[str, int, tuple[tuple[Side, int], ...], str]


@dataclass(frozen=True)
class Member:
    """The part of one module that belongs to a channel group.

    Args:
        module: Dotted name of the module, or of a bare parameter.
        side: ``"out"``, ``"in"``, or ``"param:AXIS"`` for a bare parameter.
        index: For every channel of the group, the indices it owns on that side.
    """

    module: str
    side: str
    index: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are removed together.

    Args:
        name: Dotted name of the first layer that makes the group's channels; where a layer makes
            the channels of several groups (heads and head dimensions), the others end in ``#2``
            and so on.
        channels: Number of channels.
        members: What each channel owns in every module of the group.
        frozen: Why the width cannot change; ``""`` where it can.
        uncoupled: Why it is not known which channels go together, the same in all groups of a
            network; every group is then one layer, frozen. ``""`` where the coupling is known.
        attributes: Numbers that modules have written down and that follow the group's width, as
            members whose sides are ``"attr:NAME"``, ``"attr:NAME:ITEM"`` or ``"off:NAME"``.
    """

    name: str
    channels: int
    members: tuple[Member, ...]
    frozen: str = ""
    uncoupled: str = ""
    attributes: tuple[Member, ...] = ()

    @property
    def layers(self) -> list[str]:
        """Names of the modules in the group, in order, without repetition."""
        return list(dict.fromkeys(member.module for member in self.members))


def kept_sides(
    groups: Sequence[ChannelGroup],
    kept: Mapping[str, Sequence[int]],
    sizes: Mapping[Side, int],
) -> dict[Side, tuple[int, ...]]:
    """Return the indices that stay of every side that loses some.

    Args:
        groups: Those that are narrowed, and any others.
        kept: Channels that stay, by group name; groups left out stay whole.
        sizes: Length of every side.
    """
    removed: dict[Side, set[int]] = {}
    for group in groups:
        stay = set(kept.get(group.name, range(group.channels)))
        if len(stay) == group.channels:
            continue
        gone_channels = [c for c in range(group.channels) if c not in stay]
        for member in (*group.members, *group.attributes):
            gone = removed.setdefault((member.module, member.side), set())
            for channel in gone_channels:
                gone.update(member.index[channel])
    return {
        side: tuple(i for i in range(sizes[side]) if i not in gone)
        for side, gone in removed.items()
    }


def widths_of_sides(
    groups: Sequence[ChannelGroup], widths: Mapping[str, int], sizes: Mapping[Side, int]
) -> dict[Side, int]:
    """Return the length of every side that changes where groups have other widths.

    Groups that share a side (heads and head dimensions) remove overlapping parts of it, which
    count once.
    """
    changed: dict[Side, list[tuple[ChannelGroup, Member]]] = defaultdict(list)
    for group in groups:
        if widths.get(group.name, group.channels) != group.channels:
            for member in group.members:
                changed[member.module, member.side].append((group, member))
    found: dict[Side, int] = {}
    for side, parts in changed.items():
        count = sum(_gone(group, widths) * len(member.index[0]) for group, member in parts)
        if any(len(member.index[0]) > 1 for _, member in parts[1:]):
            last = [member.index[widths[group.name] :] for group, member in parts]
            count = len({i for own in last for indices in own for i in indices})
        found[side] = sizes[side] - count
    return found


def _gone(group: ChannelGroup, widths: Mapping[str, int]) -> int:
    return group.channels - widths[group.name]


def groups_of(
    coupling: Coupling, net: nn.Module, keep: Sequence[str]
) -> tuple[list[ChannelGroup], dict[str, tuple[int, ...]]]:
    """Return the groups in the order of the modules, and the roots of each one's channels."""
    modules = dict(net.named_modules())
    order = {name: i for i, name in enumerate(modules)}
    bundles: dict[_Kind, list[tuple[int, Atom]]] = defaultdict(list)
    for atom in coupling.atoms.values():
        maker = maker_of(atom, modules, order)
        if maker:
            counts = tuple(sorted((side, len(own)) for side, own in atom.owns.items()))
            place = atom.owns[maker, "out"][0]
            bundles[maker, atom.family, counts, atom.frozen].append((place, atom))
    found: list[tuple[ChannelGroup, tuple[int, ...]]] = []
    covered: dict[str, set[int]] = defaultdict(set)
    ranked = sorted(
        bundles.items(),
        key=lambda item: (bool(item[0][3]), len(item[1]) < 2, order[item[0][0]]),
    )
    for (name, _, counts, reason), atoms in ranked:
        owned = {i for _, atom in atoms for i in atom.owns[name, "out"]}
        last = bool(reason) or len(atoms) < 2
        if len(owned) < 2 or (last and owned <= covered[name]):
            continue
        if len(atoms) < 2:
            whole = alone(name, len(owned), reason or "its channels can only go together")
            found.append((whole, ()))
            continue
        for side, _ in counts:
            if side[1] == "out":
                covered[side[0]].update(i for _, atom in atoms for i in atom.owns[side])
        chosen = [atom for _, atom in sorted(atoms, key=lambda pair: pair[0])]
        found.append(_group(name, chosen, reason, modules, order, keep))
    found.sort(key=lambda pair: order[pair[0].name])
    seen: Counter[str] = Counter()
    named = []
    for group, roots in found:
        seen[group.name] += 1
        if seen[group.name] > 1:
            group = replace(group, name=f"{group.name}#{seen[group.name]}")
        named.append((group, roots))
    return [group for group, _ in named], {group.name: roots for group, roots in named}


def _group(
    name: str, atoms: Sequence[Atom], reason: str, modules: Mapping[str, nn.Module],
    order: Mapping[str, int], keep: Sequence[str],
) -> tuple[ChannelGroup, tuple[int, ...]]:  # fmt: skip
    def rank(side: Side) -> tuple[int, int, str, str]:
        owner = side[0] if side[0] in order else side[0].rpartition(".")[0]
        return order.get(owner, len(order)), side[1] == "in", side[0], side[1]

    members = tuple(
        Member(module, side, tuple(atom.owns[module, side] for atom in atoms))
        for module, side in sorted(atoms[0].owns, key=rank)
    )
    frozen = f"{_last(members, name)} {OUTPUT}" if reason == OUTPUT else reason
    for member in members:
        layer = isinstance(modules.get(member.module), nn.Conv2d | nn.Linear)
        if layer and member.module.startswith(tuple(keep) or ("\0",)):
            frozen = frozen or f"{member.module} is to be kept"
    group = ChannelGroup(name, len(atoms), members, frozen)
    return group, tuple(atom.root for atom in atoms)


def _last(members: Sequence[Member], name: str) -> str:
    """Return the layer of a group that comes last: it makes the output."""
    makers = [member.module for member in members if member.side == "out"]
    return makers[-1] if makers else name


def alone(name: str, channels: int, frozen: str, uncoupled: str = "") -> ChannelGroup:
    """Return a frozen group of one layer."""
    index = tuple((i,) for i in range(channels))
    return ChannelGroup(name, channels, (Member(name, "out", index),), frozen, uncoupled)
