# SPDX-License-Identifier: Apache-2.0
"""Groups that can be narrowed, but only alike: several tied to one.

Every head with a projection of its own has channels of its own, and one ``self.key_dim`` says how
many all of them have. And ``y.reshape(b, n, c)``, with the ``c`` of what the attention has read, is
right as long as the heads are together as wide as the network around them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from chipfit.graph.coupling import Side
from chipfit.graph.coupling_groups import ChannelGroup, Member

#: A tied group, and the names of those that it is made of.
Tied = tuple[ChannelGroup, tuple[str, ...]]


def tied(groups: Sequence[ChannelGroup], numbers: Mapping[str, Sequence[Member]]) -> list[Tied]:
    """Return groups that share a number as one.

    The channels of one are the first of each, the second of each, and so on.

    Args:
        groups: To tie; those that share no number with another are left out.
        numbers: By name of group, those that may follow its width.
    """
    sharing: dict[Side, list[ChannelGroup]] = {}
    for group in groups:
        for number in numbers[group.name]:
            sharing.setdefault((number.module, number.side), []).append(group)
    pairs = [
        (first, other)
        for first, *others in sharing.values()
        for other in others
        if first.channels == other.channels
    ]
    return _made(_parts(groups, pairs), numbers)


def bundled(
    groups: Sequence[ChannelGroup], numbers: Mapping[str, Sequence[Member]], fine: bool
) -> list[Tied]:
    """Return groups on both sides of layers as one, of those that keep the length of an axis.

    Queries, keys and values may be made by one layer, so that it may be twice or three times that.

    Of heads and head dimensions, which overlap, one is tied with the channels around them. A group
    of more channels loses several for each one that the others lose.

    Args:
        groups: To tie; those that share no such layer with another are left out.
        numbers: By name of group, those that may follow its width.
        fine: Whether to tie the one of most channels (dimensions, mostly), or that of fewest.
    """
    found: dict[Side, list[tuple[ChannelGroup, int]]] = defaultdict(list)
    taken: dict[Side, set[int]] = defaultdict(set)
    for group in sorted(groups, key=lambda g: -g.channels if fine else g.channels):
        own = {(m.module, m.side): {i for part in m.index for i in part} for m in group.members}
        if any(indices & taken[side] for side, indices in own.items()):
            continue
        for side, indices in own.items():
            taken[side] |= indices
            found[side].append((group, len(indices)))
    pairs = [
        (before, behind)
        for (module, side), read in list(found.items())
        if side == "in"
        for before, length in read
        for behind, made in found.get((module, "out"), ())
        if before is not behind and made in (length, 2 * length, 3 * length)
    ]
    return _made(_parts(groups, pairs), numbers)


def _parts(
    groups: Sequence[ChannelGroup], pairs: Sequence[tuple[ChannelGroup, ChannelGroup]]
) -> list[list[ChannelGroup]]:
    """Return what pairs connect, each part in the order of the groups."""
    parts = {group.name: [group] for group in groups}
    for one, other in pairs:
        mine, theirs = parts[one.name], parts[other.name]
        if mine is not theirs:
            mine += theirs
            parts |= dict.fromkeys((group.name for group in theirs), mine)
    distinct = {id(part): part for part in parts.values() if len(part) > 1}
    return [sorted(part, key=groups.index) for part in distinct.values()]


def _made(
    parts: Sequence[Sequence[ChannelGroup]], numbers: Mapping[str, Sequence[Member]]
) -> list[Tied]:
    """Return the tied groups, as far as their channels can be."""
    found = []
    for part in parts:
        count = min(group.channels for group in part)
        if count < 2 or any(group.channels % count for group in part):
            continue
        members = _joined([_bundles(m, count) for group in part for m in group.members])
        own = _joined([_bundles(m, count) for group in part for m in numbers[group.name]])
        if members:
            whole = replace(part[0], channels=count, members=members, frozen="", attributes=own)
            found.append((whole, tuple(group.name for group in part)))
    return found


def _bundles(member: Member, count: int) -> Member:
    """Return a member with its channels in so many bundles."""
    index = [sum(member.index[i::count], ()) for i in range(count)]
    return replace(member, index=tuple(tuple(dict.fromkeys(own)) for own in index))


def _joined(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return one member for every side; none at all where channels would differ in size."""
    found: dict[Side, Member] = {}
    for member in members:
        side = member.module, member.side
        if side in found:
            pairs = zip(found[side].index, member.index, strict=True)
            member = replace(member, index=tuple(tuple(dict.fromkeys(a + b)) for a, b in pairs))
        found[side] = member
    even = all(len({len(own) for own in member.index}) == 1 for member in found.values())
    return tuple(found.values()) if even else ()
