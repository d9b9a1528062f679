import copy

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph.channels import ChannelGroup, Member, channel_groups
from chipfit.scores.channel_importance import (
    keep_most_important,
    magnitude_importance,
    taylor_importance,
)
from chipfit.train.randomness import generator


def own(name, side, channels, each=1):
    index = tuple(tuple(range(c * each, (c + 1) * each)) for c in range(channels))
    return Member(name, side, index)


def squared(net, batch):
    return net(batch).pow(2).mean()


def batches(count, *shape):
    return [torch.randn(shape, generator=generator(7, i), dtype=torch.float64)
            for i in range(count)]  # fmt: skip


def test_importance_is_what_a_hand_count_says():
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    net[0].weight.data[:] = torch.tensor([[2.0], [3.0]])
    net[1].weight.data[:] = torch.tensor([[5.0, -7.0]])
    group = ChannelGroup("0", 2, (own("0", "out", 2), own("1", "in", 2)))
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    # y = (10 - 21) x; loss = mean y^2; dL/dw_j = mean 2 y h_j, so w_j dL/dw_j = mean 2 y w_j h_j.
    found = taylor_importance(net, [group], [x, x], squared)
    y, mean = -11.0, 2.5  # mean of x^2
    assert found["0"].tolist() == pytest.approx([abs(2 * y * 10 * mean), abs(2 * y * -21 * mean)])
    assert magnitude_importance(net, [group])["0"].tolist() == [5.0, 7.0]


def test_importance_is_the_slope_of_the_loss_where_a_channel_fades():
    shape = (1, 8, 8)
    net = cf.nets.create("tiny_mobilenet_v2", num_classes=10, input_shape=(1, *shape))
    net = net.double().eval()
    example = torch.zeros(1, *shape)
    groups = [g for g in channel_groups(copy.deepcopy(net).float(), example) if not g.frozen]
    data = batches(2, 2, *shape)
    found = taylor_importance(net, groups, data, squared)
    group = groups[1]
    channel = int(found[group.name].argmax())
    step, slopes = 1e-5, []
    for x in data:
        losses = []
        for sign in (1, -1):
            faded = copy.deepcopy(net)
            for member in group.members:
                module = faded.get_submodule(member.module)
                if member.side == "in" and getattr(module, "groups", 1) == 1:
                    at = list(member.index[channel])
                    module.weight.data[:, at] *= 1 + sign * step
            losses.append(squared(faded, x).item())
        slopes.append(abs((losses[0] - losses[1]) / (2 * step)))
    assert float(found[group.name][channel]) == pytest.approx(sum(slopes) / 2, rel=1e-5)


def test_several_readers_and_wide_channels_add_up():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)
            self.next = nn.Conv2d(3, 2, 1)
            self.flat = nn.Linear(3 * 4, 2)

        def forward(self, x):
            x = self.conv(x).relu()
            return self.next(x).mean((2, 3)) + self.flat(x.flatten(1))

    net = Two().double()
    group = ChannelGroup(
        "conv", 3, (own("conv", "out", 3), own("next", "in", 3), own("flat", "in", 3, 4))
    )
    x = batches(1, 5, 1, 4, 4)
    found = taylor_importance(net, [group], x, squared)["conv"]
    squared(net, x[0]).backward()
    a = -(net.next.weight * net.next.weight.grad).sum((0, 2, 3))
    b = -(net.flat.weight * net.flat.weight.grad).sum(0).reshape(3, 4).sum(1)
    assert torch.allclose(found, (a + b).abs().detach(), rtol=1e-12)
    assert torch.allclose(
        magnitude_importance(net, [group])["conv"],
        net.next.weight.abs().sum((0, 2, 3)) + net.flat.weight.abs().sum(0).reshape(3, 4).sum(1),
    )


def test_channels_that_no_dense_layer_reads_are_judged_where_they_are_made():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.q(x) @ self.k(x).transpose(-1, -2)

    net = Product().double()
    group = ChannelGroup("q", 3, (own("q", "out", 3), own("k", "out", 3)))
    x = batches(1, 5, 4)[0]
    found = taylor_importance(net, [group], [x], squared)["q"]
    q, k = net.q(x), net.k(x)
    slope = torch.autograd.grad(squared(net, x), net.q.weight)[0]
    assert found.min() > 0 and slope.abs().max() > 0
    scores = (q @ k.transpose(-1, -2)).detach().requires_grad_()
    above = torch.autograd.grad(scores.pow(2).mean(), scores)[0]
    for channel in range(3):
        part = torch.outer(q[:, channel], k[:, channel])  # what this channel adds to the scores
        assert float(found[channel]) == pytest.approx(2 * abs((above * part).sum().item()))


def test_the_network_is_left_as_it_was():
    net = cf.nets.create("tiny_mobilenet_v2", num_classes=10, input_shape=(1, 1, 8, 8)).train()
    groups = [g for g in channel_groups(net, torch.zeros(1, 1, 8, 8)) if not g.frozen]
    frozen = next(net.parameters()).requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    data = [x.float() for x in batches(2, 2, 1, 8, 8)]
    first = taylor_importance(net, groups, data, squared)
    again = taylor_importance(net, groups, data, squared)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert net.training and not frozen.requires_grad
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(BadInput, match="batch"):
        taylor_importance(net, groups, [], squared)


def test_the_most_important_stay_and_ties_keep_the_lower_index():
    values = torch.tensor([1.0, 3.0, 2.0, 3.0, 1.0])
    assert keep_most_important(values, 1) == (1,)
    assert keep_most_important(values, 2) == (1, 3)
    assert keep_most_important(values, 4) == (0, 1, 2, 3)
    assert keep_most_important(values, 2, among=(0, 2, 4)) == (0, 2)
    for width in (0, 6):
        with pytest.raises(BadInput):
            keep_most_important(values, width)
