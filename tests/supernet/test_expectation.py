import numpy as np
import pytest
import torch

from chipfit.supernet import all_codes, expected_cost

SIZES = [2, 3, 2, 2]


@pytest.fixture
def cost():
    """Any function of the architecture: neighbours change each other's price."""
    table = np.random.default_rng(0).uniform(1, 5, SIZES)
    return lambda codes: table[tuple(codes.T)]


def _probabilities(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.softmax(torch.randn(s, generator=draw).double(), 0) for s in SIZES]


def test_the_expectation_is_the_weighted_sum_over_all_architectures(cost):
    own = _probabilities()
    total = sum(
        np.prod([own[b][i].item() for b, i in enumerate(row)]) * cost(row[None])[0]
        for row in all_codes(SIZES)
    )
    assert expected_cost(own, cost).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("enumerated", [4096, 0])
def test_at_a_certain_architecture_it_is_the_cost_of_that_one(cost, enumerated):
    for row in all_codes(SIZES):
        own = [torch.eye(s).double()[i] for s, i in zip(SIZES, row, strict=True)]
        found = expected_cost(own, cost, samples=3, enumerated=enumerated).item()
        assert found == pytest.approx(cost(row[None])[0], rel=1e-12)


def test_the_gradient_agrees_with_finite_differences(cost):
    logits = torch.tensor([0.4, -0.3, 0.9, 0.0]).double().requires_grad_()
    binary = np.random.default_rng(1).uniform(1, 5, (2,) * 4)

    def expected(values):
        keep = torch.sigmoid(values)
        return expected_cost(
            [torch.stack([p, 1 - p]) for p in keep], lambda codes: binary[tuple(codes.T)]
        )

    assert torch.autograd.gradcheck(expected, [logits])
    expected(logits).backward()
    keep = torch.sigmoid(logits.detach())
    for b in range(4):  # d/dp_b = E[cost | kept] - E[cost | linear]
        ends = []
        for value in (1.0, 0.0):
            own = keep.clone()
            own[b] = value
            options = [torch.stack([p, 1 - p]) for p in own]
            ends.append(expected_cost(options, lambda c: binary[tuple(c.T)]).item())
        slope = (ends[0] - ends[1]) * (keep[b] * (1 - keep[b])).item()
        assert logits.grad[b].item() == pytest.approx(slope, rel=1e-10)


def test_samples_estimate_value_and_gradient(cost):
    own = [p.requires_grad_() for p in _probabilities(2)]
    exact = torch.autograd.grad(expected_cost(own, cost), own)
    value = expected_cost(own, cost, samples=4000, enumerated=0)
    drawn = torch.autograd.grad(value, own)
    assert value.item() == pytest.approx(expected_cost(own, cost).item(), abs=0.1)
    for found, wanted in zip(drawn, exact, strict=True):
        # Of the gradient only differences within a choice matter: probabilities sum to 1.
        assert (found - found.mean()).tolist() == pytest.approx(
            (wanted - wanted.mean()).tolist(), abs=0.15
        )
