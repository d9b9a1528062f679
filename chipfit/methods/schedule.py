# SPDX-License-Identifier: Apache-2.0
"""NetAdapt's decaying reduction schedule and its finite reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from chipfit.errors import BadInput


@dataclass(frozen=True)
class ReductionSchedule:
    """``dR_i = dR_0 * decay^(i-1)``, as fractions of the original's resource (NetAdapt, Alg. 1).

    Args:
        initial: ``dR_0`` as a fraction of the original.
        decay: Factor from one step to the next, above 0 and at most 1.
        steps: Most steps taken.
    """

    initial: float
    decay: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.initial < 1 or not 0 < self.decay <= 1 or self.steps < 1:
            raise BadInput(
                f"no such reduction schedule: initial {self.initial}, decay {self.decay}, "
                f"{self.steps} steps",
                "0 < initial < 1, 0 < decay <= 1, steps >= 1",
            )

    def reduction(self, step: int) -> float:
        """Return ``dR`` of step 1, 2, ... as a fraction of the original."""
        return self.initial * self.decay ** (step - 1)

    def reach(self) -> float:
        """Return the lowest fraction that all steps together are sure to reach.

        Widths are discrete, so real steps overshoot and usually get lower.
        """
        if self.decay == 1:
            return 1 - self.initial * self.steps
        return 1 - self.initial * (1 - self.decay**self.steps) / (1 - self.decay)

    def check(self, fraction: float) -> None:
        """Raise ``BadInput`` where the schedule cannot reach ``fraction`` of the original."""
        if self.reach() > fraction + 1e-9:
            raise BadInput(
                f"the schedule reaches {self.reach():.1%} of the original in {self.steps} steps, "
                f"not {fraction:.1%}",
                f"set initial_reduction to {spanning(fraction, self.decay, self.steps).initial:.4f}"
                " or more, or raise decay or steps",
            )


def spanning(fraction: float, decay: float, steps: int) -> ReductionSchedule:
    """Return the schedule that reaches ``fraction`` of the original in exactly ``steps`` steps."""
    total = 1 - fraction
    weight = steps if decay == 1 else (1 - decay**steps) / (1 - decay)
    # Rounding may not leave the reach a hair short of what was asked for.
    return ReductionSchedule(math.nextafter(total / weight, 1.0), decay, steps)
