# SPDX-License-Identifier: Apache-2.0
"""``WindowedOperation``: a mixed operation in which widths of one block share a candidate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from chipfit.blocks.skip import is_absent
from chipfit.errors import ChipfitError
from chipfit.supernet.bi_path import BiPath
from chipfit.supernet.mixed_operation import MixedOperation


class WindowedOperation(MixedOperation):
    """Candidates of which some are a :class:`~chipfit.supernet.bi_path.BiPath`.

    A mixture counts sides: a candidate with an open window has two of them, all others one.

    Args:
        candidates: Each maps ``(N, C_in, H, W)`` to the same output shape.
    """

    def __init__(self, candidates: Sequence[nn.Module]) -> None:
        super().__init__(candidates)

    def sides(self) -> list[tuple[int, int]]:
        """Return by position in a mixture the candidate and its side."""
        return [
            (i, side)
            for i, c in enumerate(self.candidates)
            for side in range(len(c.window.sides) if isinstance(c, BiPath) else 1)
        ]

    @property
    def absent(self) -> bool:
        """Whether nothing but ``none`` can run: cells then leave the edge out."""
        mixture = self.mixture
        if mixture is None or (mixture.weights is not None and len(mixture.weights) > 1):
            return False
        return is_absent(self.candidates[self.sides()[mixture.active[0]][0]])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C_in, H, W)`` to the mixture of the active candidates' outputs.

        Raises:
            ChipfitError: No mixture was drawn, or one that compares gates.
        """
        mixture = self.mixture
        if mixture is None:
            raise ChipfitError("a supernet runs after draw() or fix() only")
        if mixture.compared:
            raise ChipfitError("widths in a window are mixed; binary gates cannot compare them")
        sides = self.sides()
        if mixture.weights is None or len(sides) == 1:
            return self._alone(x, *sides[mixture.active[0]])
        total: Tensor | None = None
        at = {position: i for i, position in enumerate(mixture.active)}
        for i, candidate in enumerate(self.candidates):
            own = [p for p, (c, _) in enumerate(sides) if c == i and p in at]
            if not own:
                continue
            weights = mixture.weights[[at[p] for p in own]]
            if isinstance(candidate, BiPath) and len(own) == 2:
                term = candidate(x, weights)
            else:
                term = weights[0].to(x.dtype) * self._alone(x, *sides[own[0]])
            total = term if total is None else total + term
        assert total is not None  # a mixture has an active candidate
        return total

    def _alone(self, x: Tensor, candidate: int, side: int) -> Tensor:
        module = self.candidates[candidate]
        return module(x, side=side) if isinstance(module, BiPath) else module(x)
