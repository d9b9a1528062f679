# SPDX-License-Identifier: Apache-2.0
"""What the budget adds to the loss of a search: a constraint, or a paper's own penalty.

All of them see expected costs relative to their bounds, so that no change of unit changes their
strength, and nothing becomes NaN below one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.supernet.constraint import AugmentedLagrangian

#: ``expected(probabilities) -> scalar`` in the unit of a cost; differentiable.
Expected = Callable[[Sequence[Tensor]], Tensor]

#: By name, what each does.
KINDS = {
    "constraint": "augmented Lagrangian of E[cost] <= bound",
    "multiplicative": "after FBNet: loss times (E / bound)^beta",
    "additive": "after ProxylessNAS: loss plus lambda (E - bound) / bound",
    "none": "nothing",
}
#: Strength of each that goes with it: the papers' own, and for the constraint one at which logits
#: settle on the bound for task losses from a tenth to three.
STRENGTHS = {"constraint": 10.0, "multiplicative": 0.6, "additive": 0.1, "none": 0.0}
#: Share of a violation by which multipliers move after every step: more makes them swing.
DUAL_SHARE = 0.1


class Pressure(nn.Module):
    """Turns expected costs and a task's loss into the loss of the architecture parameters.

    ``multiplicative`` is our unit-safe variant of FBNet's equation 2 (Wu et al., CVPR 2019,
    arXiv 1812.03443): its factor ``alpha log(LAT)^beta`` is undefined below one unit and depends on
    the unit; here it is ``(E / bound)^beta``. ``additive`` is the term of ProxylessNAS's code (Cai
    et al., ICLR 2019, arXiv 1812.00332).

    Args:
        kind: One of :data:`KINDS`.
        expected: By key of cost.
        bounds: By the same keys; positive.
        strength: ``beta`` of ``multiplicative``, ``lambda`` of ``additive``, the rate of the
            multipliers of ``constraint``; the one in :data:`STRENGTHS` where ``None``.

    Raises:
        BadInput: The kind is unknown, or a bound is not positive.
    """

    def __init__(
        self,
        kind: str,
        expected: Mapping[str, Expected],
        bounds: Mapping[str, float],
        strength: float | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise BadInput(f"unknown penalty {kind!r}", f"known: {', '.join(KINDS)}")
        if set(expected) != set(bounds) or any(not bound > 0 for bound in bounds.values()):
            raise BadInput(f"bounds {dict(bounds)} do not fit the costs {list(expected)}")
        self.kind = kind
        self.strength = STRENGTHS[kind] if strength is None else strength
        self.expected_by, self.bounds = dict(expected), dict(bounds)
        self.constraint = AugmentedLagrangian(len(bounds), self.strength or 1.0)

    def relative(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Return ``E[cost] / bound`` by key, ``(keys,)``, differentiable."""
        found = [f(probabilities) / self.bounds[key] for key, f in self.expected_by.items()]
        return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)

    def forward(self, loss: Tensor, probabilities: Sequence[Tensor]) -> Tensor:
        """Return the loss with what the budget adds."""
        if self.kind == "none" or not self.bounds:
            return loss
        relative = self.relative(probabilities).to(loss.dtype)
        if self.kind == "multiplicative":
            return loss * (relative**self.strength).prod()
        if self.kind == "additive":
            return loss + self.strength * (relative - 1.0).sum()
        return loss + self.constraint(relative - 1.0)

    def update(self, probabilities: Sequence[Tensor]) -> None:
        """Move the multipliers of the constraint after a step of the architecture parameters."""
        if self.kind == "constraint" and self.bounds:
            with torch.no_grad():
                violations = self.relative(probabilities) - 1.0
            self.constraint.update(violations.to(self.constraint.multipliers.dtype), DUAL_SHARE)

    @torch.no_grad()
    def expected(self, probabilities: Sequence[Tensor]) -> dict[str, float]:
        """Return the expected costs by key, each in its unit."""
        return {key: float(f(probabilities)) for key, f in self.expected_by.items()}
