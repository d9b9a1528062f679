# SPDX-License-Identifier: Apache-2.0
"""``Window``: the two widths of a grid between which a search decides, ever closer together.

Our variant of how the two instances of PruNet's block approach each other (Kierat et al.,
arXiv 2209.11785).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Two positions on a grid, which approach each other.

    The winner stays, the loser goes to the middle, and the winner's side may be passed by ``step``,
    which halves with every move: after ``O(log size)`` moves both are one.

    Args:
        lo: Position of the narrower width.
        hi: Position of the wider; the same where the window is settled.
        step: How far the next move may pass the winner.
        size: Of the grid.
    """

    lo: int
    hi: int
    step: int
    size: int

    @classmethod
    def whole(cls, size: int) -> Window:
        """Return the window of a search's start."""
        return cls(0, size - 1, size // 4, size)

    @property
    def settled(self) -> bool:
        """Whether one width is left."""
        return self.lo == self.hi

    @property
    def sides(self) -> tuple[int, ...]:
        """The positions on the grid that run, one or two."""
        return (self.lo,) if self.settled else (self.lo, self.hi)

    def moved(self, up: bool) -> Window:
        """Return the window after the wider (``up``) or the narrower side has won."""
        half, rest = divmod(self.lo + self.hi, 2)
        if up:
            lo, hi = half + rest, min(self.hi + self.step, self.size - 1)
        else:
            lo, hi = max(self.lo - self.step, 0), half
        return Window(lo, hi, self.step // 2, self.size)
