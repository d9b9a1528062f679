# SPDX-License-Identifier: Apache-2.0
"""When SMCP rewires, and how tight the budget is then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from chipfit.errors import BadInput

#: ``exponential``: ``(1 - e^{-k t}) / (1 - e^{-k T})`` of the way from one budget to the next;
#: ``force``: by the same factor at every step (de Jorge et al., FORCE, ICLR 2021, arXiv
#: 2006.09081); ``linear``.
KINDS = ("exponential", "force", "linear")
#: ``k T`` of the exponential: 0.05 per epoch, 55 epochs long.
STEEPNESS = 0.05 * 55


@dataclass(frozen=True)
class PruningSchedule:
    """Warm-up without pruning, ramp, cool-down with fixed masks (SMCP, section 4).

    Args:
        steps: Optimizer steps in all.
        every: Steps from one rewiring to the next.
        warmup: Share of the steps before the first rewiring.
        cooldown: Share of the steps after the last one.
        kind: One of :data:`KINDS`.

    Raises:
        BadInput: A setting is out of range.
    """

    steps: int
    every: int = 20
    warmup: float = 10 / 90
    cooldown: float = 25 / 90
    kind: str = "exponential"

    def __post_init__(self) -> None:
        good = (
            self.steps >= 1 and self.every >= 1 and self.kind in KINDS
            and self.warmup >= 0 and self.cooldown >= 0 and self.warmup + self.cooldown < 1
        )  # fmt: skip
        if not good:
            raise BadInput(
                f"no such pruning schedule: {self}",
                f"steps and every from 1, warmup + cooldown below 1, kind {', '.join(KINDS)}",
            )

    @property
    def first(self) -> int:
        """Step of the first rewiring, from 0."""
        return min(math.floor(self.warmup * self.steps), self.last)

    @property
    def last(self) -> int:
        """Step of the last rewiring, which asks for the whole budget; masks stay after it."""
        return min(math.floor((1.0 - self.cooldown) * self.steps), self.steps - 1)

    def rewires(self, step: int) -> bool:
        """Return whether masks are chosen anew at a step."""
        return step == self.last or (
            self.first <= step < self.last and (step - self.first) % self.every == 0
        )

    def limits(
        self, step: int, start: Mapping[str, float], end: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the budget of a rewiring.

        Args:
            step: One at which :meth:`rewires`.
            start: Costs before the schedule, by key.
            end: Bounds at its end.

        Returns:
            Bounds that fall from step to step and are ``end`` at the last one.
        """
        if step >= self.last:
            return dict(end)
        # The first rewiring is not at 0 already: it is a step of the way.
        done = (step - self.first + self.every) / (self.last - self.first + self.every)
        return {key: self._between(start[key], bound, done) for key, bound in end.items()}

    def _between(self, start: float, end: float, done: float) -> float:
        if start <= end:
            return end
        if self.kind == "force" and end > 0:
            return max(end, start * (end / start) ** done)
        way = done
        if self.kind == "exponential":
            way = math.expm1(-STEEPNESS * done) / math.expm1(-STEEPNESS)
        return max(end, start + (end - start) * way)
