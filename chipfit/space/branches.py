# SPDX-License-Identifier: Apache-2.0
"""Which parallel branches stand at which places: RepNAS's space, by layers and by branches.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508:
every layer has a subset of its branches, and all layers together have at most K. As every subset
merges into one 3x3 convolution, all networks of the space cost the same once deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import BlockChoice, BlockSpace, Operation
from chipfit.space.choice import SearchSpace
from chipfit.space.group_budget import GroupBudget
from chipfit.space.multi_hot import MultiHotChoice


@dataclass(frozen=True)
class BranchPlace:
    """A place where a ``rep_branches`` block stands or may stand.

    Args:
        module: Its dotted name.
        in_channels: Of the block.
        out_channels: Of the block.
        stride: Of the block.
        branches: Those to choose from.
        act: Activation of the block.
    """

    module: str
    in_channels: int
    out_channels: int
    stride: int
    branches: tuple[str, ...]
    act: str

    def swap(self, branches: Sequence[str]) -> Swap:
        """Return what puts a block of some branches here, merged, with a batch norm behind it."""
        options = {"branches": list(branches), "act": self.act, "deploy": True, "norm": True}
        return Swap(
            self.module, "rep_branches", self.in_channels, self.out_channels, self.stride, options
        )


def subset_name(branches: Sequence[str]) -> str:
    """Return a subset as text.

    >>> subset_name(("1x1", "3x3"))
    '1x1+3x3'
    """
    return "+".join(branches)


def branch_space(places: Sequence[BranchPlace]) -> BlockSpace:
    """Return the space with one choice per place: every subset of its branches, merged.

    How many branches all places have together is no matter of one choice; see
    :func:`branch_subsets`.
    """
    choices = []
    for place in places:
        sizes = range(1, len(place.branches) + 1)
        subsets = [names for size in sizes for names in combinations(place.branches, size)]
        operations = tuple(Operation(subset_name(own), (place.swap(own),)) for own in subsets)
        choices.append(BlockChoice(place.module, (place.module,), operations))
    return BlockSpace(tuple(choices))


def branch_subsets(places: Sequence[BranchPlace], most: int, least: int = 0) -> SearchSpace:
    """Return the space of subsets by place, with at least one branch each.

    Args:
        places: Where there is a choice.
        most: Branches of all places together, at most.
        least: Branches of all places together, at least; ``most`` for exactly so many.

    Raises:
        BadInput: There are fewer branches than that, or more places.
    """
    choices = tuple(MultiHotChoice(place.module, place.branches, 1) for place in places)
    budget = GroupBudget(tuple(place.module for place in places), most, least)
    return SearchSpace(choices, (budget,))
