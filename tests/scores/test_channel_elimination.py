import itertools

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.channels import channel_groups
from chipfit.graph.layer_columns import input_columns
from chipfit.scores.channel_elimination import (
    DAMPING,
    eliminate,
    input_moments,
    readers_of,
)


def least_squares_loss(x, weight, kept):
    """Of the outputs that ``weight`` makes from ``x``, what the kept inputs cannot make."""
    x = x - x.mean(1, keepdim=True)
    y = weight @ x
    # As regularised as the elimination is: rows that ask weights to be small.
    ridge = (DAMPING * (x @ x.T / x.shape[1]).diagonal().mean() * x.shape[1]).sqrt()
    x, y = torch.cat([x, ridge * torch.eye(len(x))], 1), torch.cat([y, ridge * weight], 1)
    solved = torch.linalg.lstsq(x[kept].T, y.T).solution.T
    return float(((y - solved @ x[kept]) ** 2).sum() / (y**2).sum())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_what_is_lost_is_what_least_squares_leaves(kind):
    torch.manual_seed(0)
    if kind == "linear":
        net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()
        x = torch.rand(200, 5, dtype=torch.float64)
    else:
        net = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2, padding=1)
        ).double()
        x = torch.rand(12, 2, 9, 9, dtype=torch.float64)
    (group,) = [g for g in channel_groups(net, x[:1]) if g.name == "0"]
    found = eliminate(net, group, input_moments(net, ["2"], [x[: len(x) // 2], x[len(x) // 2 :]]))
    read = input_columns(net[2], torch.relu(net[0](x)).detach())[0]
    weight = net[2].weight.detach().flatten(1)
    area = weight.shape[1] // group.channels

    def loss(kept):
        rows = [c * area + i for c in kept for i in range(area)]
        return least_squares_loss(read, weight, rows)

    assert sorted(found.order) == list(range(group.channels))
    for width in range(1, group.channels + 1):
        assert found.lost_at(width) == pytest.approx(loss(found.kept(width)), rel=1e-6, abs=1e-9)
    # The first to go is the best to go.
    one_less = itertools.combinations(range(group.channels), group.channels - 1)
    assert found.lost[1] == pytest.approx(min(loss(kept) for kept in one_less), rel=1e-6)


def test_a_copy_goes_first_and_costs_nothing():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2)).double()
    with torch.no_grad():
        net[0].weight[4], net[0].bias[4] = 2 * net[0].weight[1], 2 * net[0].bias[1]
    x = torch.rand(300, 6, dtype=torch.float64)
    (group,) = [g for g in channel_groups(net, x[:1]) if g.name == "0"]
    found = eliminate(net, group, input_moments(net, readers_of(net, [group]), [x]))
    assert found.order[0] in (1, 4)
    assert found.lost[1] < 1e-3 < found.lost[2]


def test_without_moments_small_weights_go_first():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        net[1].weight[:] = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    (group,) = [g for g in channel_groups(net, torch.rand(1, 4)) if g.name == "0"]
    found = eliminate(net, group, {})
    assert found.order == (1, 2, 0)
    assert found.lost == pytest.approx((0, 1 / 14, 5 / 14))


def test_moments_need_a_batch_and_leave_the_mode():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(BadInput, match="at least one batch"):
        input_moments(net, ["1"], [])
    input_moments(net, ["1"], [torch.rand(3, 4)])
    assert net.training
