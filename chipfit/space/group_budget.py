# SPDX-License-Identifier: Apache-2.0
"""``GroupBudget``: at most so many members in several multi-hot choices together.

Zhang et al., "RepNAS: Searching for Efficient Re-parameterizing Blocks", 2021, arXiv 2109.03508,
keep the K best branches of a whole network; how many a layer gets is left open.
"""

from __future__ import annotations

from dataclasses import dataclass

from chipfit.errors import BadInput


@dataclass(frozen=True)
class GroupBudget:
    """A bound on how many members are taken in several choices together.

    Args:
        names: Of the choices. A choice that is not multi-hot counts as one member.
        most: At most so many members.
        least: At least so many; equal to ``most`` for exactly so many.

    Raises:
        BadInput: There is no name, or the bounds exclude each other.
    """

    names: tuple[str, ...]
    most: int
    least: int = 0

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise BadInput("a budget needs the names of choices, each once")
        if not 0 <= self.least <= self.most:
            raise BadInput(f"a budget of {self.least} to {self.most} members cannot be kept")
