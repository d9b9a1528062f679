# SPDX-License-Identifier: Apache-2.0
"""Keep probabilities and their implicit gradient, masks, and the network that carries them."""

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph.channels import channel_groups
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.supernet.keep_ratio import keep_probabilities, straight_through, top_mask
from chipfit.supernet.keep_ratio_network import KeepRatios
from chipfit.supernet.keep_ratio_rule import KeepRatioSchedule


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("ratio", [0.03, 0.4, 0.9, 0.993])
@pytest.mark.parametrize("steepness", [1.0, 16.0])
def test_probabilities_have_the_mean_that_was_asked_for_and_follow_the_formula(ratio, steepness):
    salience = torch.rand(12, generator=torch.Generator().manual_seed(1)).double() + 0.1
    p = keep_probabilities(scalar(ratio), salience, steepness)
    assert float(p.mean()) == pytest.approx(ratio, abs=1e-12)
    assert (p[salience.argsort()].diff() >= 0).all()
    beta2 = steepness / salience.log().std(correction=0)
    i = int((p - 0.5).abs().argmin())
    beta1 = salience[i] * (1 / p[i] - 1) ** (1 / beta2)
    assert torch.allclose(p, 1 / (1 + (salience / beta1) ** -beta2), atol=1e-9)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("steepness", [2.0, 16.0])
def test_the_implicit_gradient_is_that_of_finite_differences(ratio, steepness):
    salience = torch.rand(9, generator=torch.Generator().manual_seed(2)).double() + 0.05
    step = 1e-6
    high = keep_probabilities(scalar(ratio + step), salience, steepness)
    low = keep_probabilities(scalar(ratio - step), salience, steepness)
    numeric = (high - low) / (2 * step)
    for i in range(len(salience)):
        at = scalar(ratio).requires_grad_()
        keep_probabilities(at, salience, steepness)[i].backward()
        assert float(at.grad) == pytest.approx(float(numeric[i]), rel=1e-6, abs=1e-6)
    p = keep_probabilities(scalar(ratio), salience, steepness)
    slope = p * (1 - p)
    assert torch.allclose(numeric, len(p) * slope / slope.sum(), rtol=1e-6, atol=1e-6)


def test_equal_saliences_share_the_ratio():
    at = scalar(0.25).requires_grad_()
    p = keep_probabilities(at, torch.full((4,), 3.0), 8.0)
    assert torch.allclose(p, torch.full((4,), 0.25, dtype=torch.float64))
    p.sum().backward()
    assert float(at.grad) == pytest.approx(4.0)
    zeros = keep_probabilities(scalar(0.5), torch.zeros(4), 8.0)
    assert torch.allclose(zeros, torch.full((4,), 0.5, dtype=torch.float64))


def test_masks_are_hard_and_pass_their_gradient_on():
    mask = top_mask(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2)
    assert mask.tolist() == [0, 1, 1, 0]
    assert top_mask(torch.ones(4), 2).tolist() == [1, 1, 0, 0]
    p = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
    weights = torch.arange(4.0, dtype=torch.float64)
    out = straight_through(mask, p)
    assert torch.equal(out.detach(), mask)
    (out * weights).sum().backward()
    assert torch.equal(p.grad, weights)


class Joined(nn.Module):
    """Two branches that are concatenated, and a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.left = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.right = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.join, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8 * 16, 4)

    def forward(self, x):
        x = self.stem(x)
        joined = self.join(torch.cat([self.left(x), self.right(x)], 1)) + x
        return self.head(torch.relu(joined).flatten(1))


def mobile():
    return cf.nets.create("tiny_mobilenet_v2", num_classes=4, input_shape=(1, 1, 8, 8))


@pytest.mark.parametrize(("make", "side"), [(mobile, 8), (Joined, 4)])
def test_the_masked_network_computes_what_the_sliced_one_does(make, side):
    torch.manual_seed(0)
    shape, net = (1, 1, side, side), make().double().eval()
    groups = channel_groups(net, torch.zeros(shape).double())
    free = [g for g in groups if not g.frozen]
    masked = KeepRatios(net, free, [1] * len(free)).eval()
    x = torch.rand(2, *shape[1:], generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(masked(x), net(x))
    kept = {
        g.name: tuple(sorted(torch.randperm(g.channels, generator=torch.Generator().manual_seed(i))
                             .tolist()[: max(1, g.channels * 3 // 5)]))
        for i, g in enumerate(free)
    }  # fmt: skip
    masked.freeze([kept[g.name] for g in free])
    sliced = slice_channels(net, edits_for(groups, kept, side_sizes(net)))
    assert torch.allclose(masked(x), sliced(x), rtol=1e-10, atol=1e-10)
    again = masked.plain(net)
    assert torch.equal(again(x), net(x))


@pytest.fixture
def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                        nn.Linear(6 * 36, 3))  # fmt: skip
    groups = [g for g in channel_groups(net, torch.zeros(1, 1, 8, 8)) if not g.frozen]
    return KeepRatios(net, groups, [2])


def test_a_ratio_gets_the_gradient_of_the_channels_at_its_threshold(small):
    assert float(small.widths().detach()) == pytest.approx(2 + 4 * torch.sigmoid(torch.tensor(5.0)))
    salience = [torch.tensor([3.0, 1.0, 6.0, 2.0, 5.0, 4.0])]
    with torch.no_grad():
        small.logits.fill_(0.0)  # 4 of 6 channels
    small.mask(salience, 4.0)
    assert small.mask0.tolist() == [1, 0, 1, 0, 1, 1]
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    small(x).square().mean().backward()
    gradient = float(small.logits.grad)
    # By hand: the loss's slope in every mask, then the implicit one, then the sigmoid's.
    free = torch.ones(6, requires_grad=True)
    with torch.no_grad():
        hidden = small.net[2](small.net[1](small.net[0](x)))
    mask = small.mask0 + free - free.detach()
    read = (hidden * mask.reshape(1, -1, 1, 1)).flatten(1)
    out = nn.functional.linear(read, small.net[4].weight, small.net[4].bias)
    out.square().mean().backward()
    p = keep_probabilities(scalar(4 / 6), salience[0], 4.0)
    slope = p * (1 - p)
    by_hand = (free.grad.double() * 6 * slope / slope.sum()).sum() * 4 / 6 * 0.25
    assert gradient == pytest.approx(float(by_hand), rel=1e-4)


def test_frozen_masks_stay_and_come_back_with_the_state(small):
    small.freeze([(1, 4, 5)])
    small.mask([torch.arange(6.0)], 4.0)
    assert small.mask0.tolist() == [0, 1, 0, 0, 1, 1]
    other = KeepRatios(small.net, small.groups, [2])
    other.restructure(small.structure())
    other.load_state_dict(small.state_dict())
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(other.eval()(x), small.eval()(x))
    assert other.frozen == ((1, 4, 5),)


def test_bounds_fall_geometrically_to_the_budget():
    schedule = KeepRatioSchedule({"macs": 400.0, "params": 5.0}, {"macs": 100.0, "params": 9.0},
                                 tighten=0.5, freeze=0.8, steepness=(1.0, 16.0))  # fmt: skip
    assert schedule.bounds_at(0.0) == {"macs": 400.0, "params": 9.0}
    assert schedule.bounds_at(0.25)["macs"] == pytest.approx(200.0)
    assert schedule.bounds_at(0.6) == {"macs": 100.0, "params": 9.0}
    assert schedule.steepness_at(0.4) == pytest.approx(4.0)
    assert schedule.steepness_at(1.0) == 16.0
    with pytest.raises(BadInput):
        KeepRatioSchedule({}, {}, tighten=0.9, freeze=0.8)
