# SPDX-License-Identifier: Apache-2.0
"""Slicing as data: a JSON edit list that replays on the user's own network class.

An edit keeps some indices of one side of one module, always counted on the original network.
A narrower network is stored as its edits and a safetensors file; nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chipfit.errors import BadInput
from chipfit.graph.coupling_groups import ChannelGroup, kept_sides


@dataclass(frozen=True)
class Edit:
    """Keep only some channels on one side of one module.

    Args:
        module: Dotted name of a module, or of a bare parameter.
        side: ``"out"``, ``"in"`` or ``"param:AXIS"``; also ``"attr:NAME"`` and
            ``"attr:NAME:ITEM"``, a number (in a tuple) that the module's own class has written
            down, and ``"off:NAME"``, a shortcut that it takes no longer.
        size: Length of that side on the original network.
        keep: Indices that stay, ascending.
    """

    module: str
    side: str
    size: int
    keep: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "rewrite": "slice", "module": self.module, "side": self.side, "size": self.size,
            "keep": list(self.keep),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Edit:
        """Restore an edit from :meth:`to_json`.

        Raises:
            BadInput: A field is missing or of the wrong kind.
        """
        if not isinstance(data, Mapping) or data.get("rewrite") != "slice":
            raise BadInput(f"not a slicing edit: {data!r}")
        try:
            keep = tuple(int(i) for i in data["keep"])
            return cls(str(data["module"]), str(data["side"]), int(data["size"]), keep)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"not an edit: {data!r} ({error})") from error


def edits_for(
    groups: Sequence[ChannelGroup],
    kept: Mapping[str, Sequence[int]],
    sizes: Mapping[tuple[str, str], int],
) -> list[Edit]:
    """Return the edits that keep the channels ``kept`` of each group.

    Args:
        groups: The channel groups of the original network.
        kept: Channels that stay, by group name; groups left out stay whole.
        sizes: Length of every side of the original network (:func:`side_sizes`).

    Raises:
        BadInput: A group is unknown or frozen, or its list is empty or out of range.
    """
    by_name = {group.name: group for group in groups}
    for name, channels in kept.items():
        group = by_name.get(name)
        if group is None:
            raise BadInput(f"no channel group is called {name!r}", f"known: {', '.join(by_name)}")
        stay = set(channels)
        if not stay or not stay <= set(range(group.channels)):
            raise BadInput(f"group {name}: cannot keep {sorted(stay)} of {group.channels} channels")
        if group.frozen and len(stay) < group.channels:
            raise BadInput(f"group {name} is frozen: {group.frozen}")
    return [
        Edit(module, side, sizes[module, side], stay)
        for (module, side), stay in kept_sides(groups, kept, sizes).items()
    ]


def relative(before: Sequence[Edit], after: Sequence[Edit]) -> list[Edit]:
    """Return edits that turn the network of ``before`` into that of ``after``.

    Raises:
        BadInput: ``after`` keeps something that ``before`` has already removed.
    """
    had = {(edit.module, edit.side): edit.keep for edit in before}
    result = []
    for edit in after:
        present = had.get((edit.module, edit.side), tuple(range(edit.size)))
        place = {index: i for i, index in enumerate(present)}
        missing = [i for i in edit.keep if i not in place]
        if missing:
            raise BadInput(f"{edit.module} ({edit.side}) lost {missing[:5]} in an earlier edit")
        keep = tuple(place[i] for i in edit.keep)
        if len(keep) != len(present):
            result.append(Edit(edit.module, edit.side, len(present), keep))
    return result
