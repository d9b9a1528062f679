import pytest
import torch

from chipfit.supernet import AugmentedLagrangian


def test_the_multiplier_finds_itself():
    # minimise |x - 1|^2 with sum(x) <= 1: x = 1/2 each, multiplier 1; a second bound is slack.
    x = torch.zeros(2, requires_grad=True)
    constraint = AugmentedLagrangian(2, rate=1.0)
    optimiser = torch.optim.SGD([x], lr=0.1)
    for _ in range(400):
        violations = torch.stack([x.sum() - 1.0, x.sum() - 7.0])
        loss = ((x - 1) ** 2).sum() + constraint(violations)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        constraint.update(violations, 0.2)
    assert x.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert constraint.multipliers.tolist() == pytest.approx([1.0, 0.0], abs=1e-2)
