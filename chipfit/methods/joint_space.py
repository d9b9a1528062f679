# SPDX-License-Identifier: Apache-2.0
"""``JointSpace``: widths of all channel groups and replacements of blocks, chosen together.

A block that goes takes the groups inside it along; groups that pass by are still the same, with
other members inside. Which members, is found once for every replacement, by coupling the network
that has it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from chipfit.graph.capture import trace
from chipfit.graph.channels import ChannelGroup, Member, channel_groups, widths_of_sides
from chipfit.graph.workload import Workload
from chipfit.methods.space_workload import SpaceWorkload
from chipfit.methods.widths import resized
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.replay import Rewrite, replay
from chipfit.rewrite.slice import side_sizes
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.choice import Choice, SearchSpace

#: Before the name of a block's choice: a group may have the same name.
BLOCK = "block "

Sides = dict[tuple[str, str], int]


@dataclass(frozen=True)
class Inside:
    """What one replacement of a block has to do with the groups of the network.

    Args:
        members: Of groups that pass by, by their names: the part inside the replacement.
        sizes: Of all sides inside it.
    """

    members: Mapping[str, tuple[Member, ...]]
    sizes: Sides


class JointSpace:
    """Choices of widths, and one of an operation for each block.

    Args:
        net: The original; it is not changed.
        example: Its input, ``(1, C, H, W)``.
        groups: Its channel groups.
        widths: One ordered choice per group that may change; the last option is its own width.
        blocks: Replacements; ``keep`` is among each one's operations. Those in whose presence other
            channels go together than without them are left out.
    """

    def __init__(
        self, net: nn.Module, example: torch.Tensor, groups: Sequence[ChannelGroup],
        widths: SearchSpace, blocks: BlockSpace | None = None,
    ) -> None:  # fmt: skip
        self._net, self._example, self._groups = net, example, list(groups)
        self._sizes = side_sizes(net)
        self._widths = {choice.name for choice in widths}
        self._inside: dict[tuple[str, str], Inside] = {}
        self.blocks = self._compatible(blocks) if blocks is not None else None
        own = self.blocks or ()
        self.space = SearchSpace(
            (*widths, *(Choice(BLOCK + c.name, tuple(o.name for o in c.operations)) for c in own))
        )
        self._spliced = SpaceWorkload(net, example, self.blocks) if self.blocks else None
        self._whole = trace(net, example)

    def operations(self, architecture: Mapping[str, Any]) -> dict[str, Operation]:
        """Return the operation of each block that is replaced."""
        return {
            c.name: c[architecture[BLOCK + c.name]]
            for c in self.blocks or ()
            if architecture[BLOCK + c.name] != KEEP
        }

    def groups(self, architecture: Mapping[str, Any]) -> list[ChannelGroup]:
        """Return the groups of the network with its blocks replaced, by their original names."""
        chosen = self.operations(architecture)
        gone = tuple(name for o in chosen.values() for swap in o.swaps for name in swap.removed)
        found = []
        for group in self._groups:
            members = [m for m in group.members if not _within(m.module, gone)]
            if not members:
                continue
            for block, operation in chosen.items():
                members += self._inside[block, operation.name].members.get(group.name, ())
            attributes = tuple(m for m in group.attributes if not _within(m.module, gone))
            found.append(replace(group, members=tuple(members), attributes=attributes))
        return found

    def edits(
        self, architecture: Mapping[str, Any], kept: Mapping[str, Sequence[int]]
    ) -> tuple[Rewrite, ...]:
        """Return the swaps, and the slices behind them.

        Args:
            architecture: An option of every choice.
            kept: Channels that stay by group; groups that went with a block are passed over.
        """
        groups = self.groups(architecture)
        left = {group.name for group in groups}
        slices = edits_for(
            groups, {name: own for name, own in kept.items() if name in left},
            self._sizes_of(architecture),
        )  # fmt: skip
        swaps = [s for o in self.operations(architecture).values() for s in o.swaps]
        return (*swaps, *slices)

    def workload(self, architecture: Mapping[str, Any]) -> Workload:
        """Return the workload of a network."""
        groups = self.groups(architecture)
        widths = {g.name: int(architecture[g.name]) for g in groups if g.name in self._widths}
        whole = self._whole
        if self._spliced is not None:
            whole = self._spliced({c.name: architecture[BLOCK + c.name] for c in self.blocks or ()})
        sides = widths_of_sides(groups, widths, self._sizes_of(architecture))

        def replayed() -> nn.Module:
            kept = {name: range(width) for name, width in widths.items()}
            return replay(self._net, self.edits(architecture, kept))

        return resized(whole, sides, replayed, self._example)

    def _sizes_of(self, architecture: Mapping[str, Any]) -> Sides:
        sizes = dict(self._sizes)
        for block, operation in self.operations(architecture).items():
            sizes |= self._inside[block, operation.name].sizes
        return sizes

    def _compatible(self, blocks: BlockSpace) -> BlockSpace | None:
        choices = []
        for choice in blocks:
            kept = [choice[KEEP]]
            for operation in choice.operations:
                inside = self._look(operation) if operation.swaps else None
                if inside is not None:
                    self._inside[choice.name, operation.name] = inside
                    kept.insert(-1, operation)
            if len(kept) > 1:
                choices.append(BlockChoice(choice.name, choice.places, tuple(kept)))
        return BlockSpace(tuple(choices)) if choices else None

    def _look(self, operation: Operation) -> Inside | None:
        """Return what is inside a replacement; none where it couples other channels."""
        gone = tuple(name for swap in operation.swaps for name in swap.removed)
        swapped = replay(self._net, operation.swaps).eval()
        outside = {_outside(group, gone): group for group in self._groups if _outside(group, gone)}
        members: dict[str, tuple[Member, ...]] = {}
        for group in channel_groups(swapped, self._example):
            around = _outside(group, gone)
            if not around:
                continue
            same = outside.pop(around, None)
            if same is None or (group.frozen and not same.frozen):
                return None
            members[same.name] = tuple(m for m in group.members if _within(m.module, gone))
        sizes = {side: n for side, n in side_sizes(swapped).items() if _within(side[0], gone)}
        # What is left had only been seen to go together through the block.
        return None if outside else Inside(members, sizes)


def _outside(group: ChannelGroup, gone: Sequence[str]) -> frozenset[Member]:
    return frozenset(member for member in group.members if not _within(member.module, gone))


def _within(module: str, places: Sequence[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)
