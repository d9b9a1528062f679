# SPDX-License-Identifier: Apache-2.0
"""Groups that only one number of a module's own knows the width of, tied to one group.

Every head with a projection of its own has channels of its own, and one ``self.key_dim`` says how
many all of them have: they can be narrowed, but only alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chipfit.graph.coupling import Side
from chipfit.graph.coupling_groups import ChannelGroup, Member


def tied(
    groups: Sequence[ChannelGroup], numbers: Mapping[str, Sequence[Member]]
) -> list[tuple[ChannelGroup, tuple[str, ...]]]:
    """Return groups that share a number as one, with the names of those that each is made of.

    The channels of one are the first of each, the second of each, and so on.

    Args:
        groups: To tie; those that share no number with another are left out.
        numbers: By name of group, those that may follow its width.
    """
    sharing: dict[Side, list[ChannelGroup]] = {}
    for group in groups:
        for number in numbers[group.name]:
            sharing.setdefault((number.module, number.side), []).append(group)
    parts = {group.name: [group] for group in groups}
    for first, *others in sharing.values():
        for other in others:
            mine, theirs = parts[first.name], parts[other.name]
            if mine is not theirs and first.channels == other.channels:
                mine += theirs
                parts |= dict.fromkeys((group.name for group in theirs), mine)
    distinct = {id(part): part for part in parts.values() if len(part) > 1}
    found = []
    for part in distinct.values():
        part.sort(key=groups.index)
        members = _joined([member for group in part for member in group.members])
        own = {(m.module, m.side): m for group in part for m in numbers[group.name]}
        if members:
            whole = replace(part[0], members=members, frozen="", attributes=tuple(own.values()))
            found.append((whole, tuple(group.name for group in part)))
    return found


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
