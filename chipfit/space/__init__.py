# SPDX-License-Identifier: Apache-2.0
"""What can be chosen: choices, search spaces, architectures, and spaces taken from networks."""

from chipfit.rewrite.swap import Swap
from chipfit.space import nas_bench_201
from chipfit.space.architecture import Architecture
from chipfit.space.blocks import BlockChoice, BlockSpace, Operation, space_of
from chipfit.space.choice import Choice, SearchSpace
from chipfit.space.from_network import blocks_space
from chipfit.space.group_budget import GroupBudget
from chipfit.space.multi_hot import MultiHotChoice
from chipfit.space.widths import width_options, width_space

__all__ = [
    "Architecture",
    "BlockChoice",
    "BlockSpace",
    "Choice",
    "GroupBudget",
    "MultiHotChoice",
    "Operation",
    "SearchSpace",
    "Swap",
    "blocks_space",
    "nas_bench_201",
    "space_of",
    "width_options",
    "width_space",
]
