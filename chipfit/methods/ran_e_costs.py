# SPDX-License-Identifier: Apache-2.0
"""Predicted cost of any combination of block options, for millions of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chipfit.graph.blocks import ActivatedBlock
from chipfit.methods.base import Problem
from chipfit.methods.ran_e_options import BlockOption
from chipfit.methods.space_costs import SpaceCosts
from chipfit.space.blocks import BlockChoice, BlockSpace, Operation


class PatternCosts(SpaceCosts):
    """Costs of patterns: one option index per block.

    Args:
        problem: Gives network, target, table and budget.
        blocks: The blocks.
        options: Of each block.
    """

    def __init__(
        self,
        problem: Problem,
        blocks: Sequence[ActivatedBlock],
        options: Mapping[str, Sequence[BlockOption]],
    ) -> None:
        self.blocks = tuple(blocks)
        self.options = {b.module: tuple(options[b.module]) for b in blocks}
        super().__init__(
            problem,
            BlockSpace(
                tuple(
                    BlockChoice(
                        name, (name,),
                        tuple(Operation(o.name, (o.swap,) if o.swap else ()) for o in own),
                    )
                    for name, own in self.options.items()
                )
            ),
        )  # fmt: skip
