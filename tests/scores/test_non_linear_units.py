# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.graph import trace
from chipfit.scores.non_linear_units import non_linear_units


@pytest.mark.parametrize(
    ("name", "millions"),
    [("ran_e_gt", 2.55), ("ran_e_c", 3.77), ("ran_i_base", 18.2), ("convnext_base", 18.7)],
)
def test_published_networks(name, millions):
    with torch.device("meta"):
        net = cf.nets.create(name)
    units = non_linear_units(trace(net, torch.zeros(1, 3, 224, 224)))
    digits = len(str(millions).partition(".")[2])
    assert round(units / 1e6, digits) == millions


def test_fused_and_free_standing_activations_count_alike():
    net = nn.Sequential(
        nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.MaxPool2d(2),
        nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(18, 5), nn.Sigmoid(),
    )  # fmt: skip
    assert non_linear_units(trace(net, torch.zeros(1, 3, 8, 8))) == 3 * 64 + 4 * 36 + 5


@pytest.mark.parametrize(
    "function",
    [lambda x: x.clamp(-1, 1), lambda x: torch.maximum(x, 2 * x), lambda x: x.relu() - x],
)
def test_activations_written_by_hand_count(function):
    class Net(nn.Module):
        def forward(self, x):
            return function(x)

    assert non_linear_units(trace(Net(), torch.zeros(1, 3, 4, 4))) == 48


def test_a_linear_network_has_none():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten())
    assert non_linear_units(trace(net, torch.zeros(1, 3, 8, 8))) == 0
