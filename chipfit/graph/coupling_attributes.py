# SPDX-License-Identifier: Apache-2.0
"""Numbers that a network's own classes have written down and that follow a group's width.

``x.reshape(b, n, self.heads, self.head_dim)`` needs another number once heads are gone. What may
be such a number is found where the forward pass of a module meets an axis as long as one of its
integer attributes; :mod:`chipfit.graph.coupling_verified` decides which are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from chipfit.graph.coupling import Coupling, Site
from chipfit.graph.coupling_groups import ChannelGroup, Member
from chipfit.graph.coupling_sides import numbers_of

#: What the names of switches hold that choose an operation with built-in numbers.
_SHORTCUTS = ("fuse", "flash", "sdp")


@dataclass(frozen=True)
class Candidates:
    """What may have to change with the width of one group.

    Args:
        numbers: Attributes as long as an axis that the group narrows.
        switches: Shortcuts of the modules that such axes pass through.
    """

    numbers: tuple[Member, ...] = ()
    switches: tuple[Member, ...] = ()


def candidates(
    coupling: Coupling, net: nn.Module, groups: Sequence[ChannelGroup],
    roots: Mapping[str, Sequence[int]],
) -> dict[str, Candidates]:  # fmt: skip
    """Return, by name of group, what may have to change with its width."""
    modules = dict(net.named_modules())
    owners: dict[int, list[tuple[Site, Mapping[int, tuple[int, ...]]]]] = {}
    for site in _distinct(coupling.sites):
        positions = coupling.positions(site)
        for root in positions:
            owners.setdefault(root, []).append((site, positions))
    found = {}
    for group in groups:
        if group.frozen:
            continue
        own = roots[group.name]
        members: dict[tuple[str, str], Member] = {}
        places: dict[str, None] = {}
        for site, owned in owners.get(own[0], []):
            index = tuple(owned.get(root, ()) for root in own)
            if len({len(part) for part in index}) != 1:
                continue
            places[site.module] = None
            for side in _sides(modules[site.module], site):
                members.setdefault((site.module, side), Member(site.module, side, index))
        off = _switches(modules, places, group.channels)
        found[group.name] = Candidates(tuple(members.values()), off)
    return found


def _switches(
    modules: Mapping[str, nn.Module], places: Iterable[str], channels: int
) -> tuple[Member, ...]:
    return tuple(
        Member(place, side, ((1,),) * channels)
        for place in places
        for side, value in numbers_of(modules[place]).items()
        if side.startswith("off:") and value == 2 and any(word in side for word in _SHORTCUTS)
    )


def _sides(module: nn.Module, site: Site) -> list[str]:
    """Return the numbers of a module that may be the size of a site."""
    numbers = numbers_of(module)
    found = [
        side for side, value in numbers.items()
        if side.startswith("attr:") and side.count(":") == 1 and value == site.size
    ]  # fmt: skip
    parts, place = site.parts
    for name in {side.split(":")[1] for side in numbers if side.count(":") == 2}:
        value = tuple(getattr(module, name))
        if value == parts:
            found.append(f"attr:{name}:{place}")
        elif len(value) == 1 and value[0] == site.size:
            found.append(f"attr:{name}:0")
    return found


def _distinct(sites: Sequence[Site]) -> list[Site]:
    seen: dict[tuple[object, ...], Site] = {}
    for site in sites:
        key = (site.module, site.size, site.parts, *(layer.tobytes() for layer in site.layers))
        seen.setdefault(key, site)
    return list(seen.values())
