import json
import random

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.resize import Unresizable, resize
from chipfit.nets import create
from chipfit.rewrite import Edit, edits_for, mask_channels, relative, side_sizes, slice_channels


class Dense(nn.Module):
    """Concatenations, and a flatten behind which every channel owns several inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)
        self.norm, self.c = nn.BatchNorm2d(40), nn.Conv2d(40, 16, 1)
        self.gain = nn.Parameter(torch.rand(1, 16, 1, 1))
        self.head = nn.Linear(16 * 16, 10)

    def forward(self, x):
        y = torch.relu(self.a(x))
        y = torch.cat([y, self.b(y)], 1)
        y = self.c(torch.relu(self.norm(y))) * self.gain
        return self.head(torch.nn.functional.max_pool2d(y, 2).flatten(1))


NETWORKS = {
    "tiny_mobilenet_v2": lambda: create("tiny_mobilenet_v2", input_shape=(1, 3, 16, 16)),
    "resnet18": lambda: create("resnet18", input_shape=(1, 3, 32, 32), num_classes=10),
    "efficientnet_lite0": lambda: create("efficientnet_lite0", input_shape=(1, 3, 64, 64)),
    "dense": Dense,
}


def _case(name, seed):
    torch.manual_seed(seed)
    net = NETWORKS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    shape = getattr(net, "input_shape", (1, 3, 8, 8))
    groups = channel_groups(net, torch.zeros(shape))
    draw = random.Random(seed)
    kept = {
        g.name: sorted(draw.sample(range(g.channels), draw.randint(1, g.channels)))
        for g in groups
        if not g.frozen
    }
    assert kept
    return net, shape, groups, kept


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NETWORKS)
def test_sliced_equals_masked(name, seed):
    net, shape, groups, kept = _case(name, seed)
    net = net.double()
    edits = edits_for(groups, kept, side_sizes(net))
    sliced, masked = slice_channels(net, edits), mask_channels(net, edits)
    x = torch.randn(2, *shape[1:], dtype=torch.float64)
    with torch.no_grad():
        expected = masked(x)
        assert expected.abs().max() > 0
        torch.testing.assert_close(sliced(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_resized_workload_equals_the_trace_of_the_sliced_network(name):
    net, shape, groups, kept = _case(name, 3)
    sizes = side_sizes(net)
    sliced = slice_channels(net, edits_for(groups, kept, sizes))
    removed = {}
    for group in groups:
        for member in group.members:
            if member.side != "in" and group.name in kept:
                gone = (group.channels - len(kept[group.name])) * len(member.index[0])
                key = (member.module, member.side)
                removed[key] = removed.get(key, 0) + gone
    widths = {module: sizes[module, side] - gone for (module, side), gone in removed.items()}
    x = torch.zeros(shape)
    assert resize(trace(net, x), widths) == trace(sliced, x)


def test_resizing_refuses_what_it_cannot_follow():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x):
            y = self.a(x)
            y = y.view(1, 2, 8, 4, 4).transpose(1, 2).reshape(1, 16, 4, 4)
            return self.b(y)

    workload = trace(Shuffled(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(Unresizable, match="reshape"):
        resize(workload, {"a": 8})


def test_edits_replay_on_a_fresh_network_and_load_the_weights():
    net, shape, groups, kept = _case("tiny_mobilenet_v2", 5)
    edits = edits_for(groups, kept, side_sizes(net))
    sliced = slice_channels(net, edits)
    text = json.dumps([edit.to_json() for edit in edits])
    again = slice_channels(
        NETWORKS["tiny_mobilenet_v2"](), [Edit.from_json(e) for e in json.loads(text)]
    )
    again.load_state_dict(sliced.state_dict())
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), sliced(x))


def test_two_narrowings_equal_one():
    net, shape, groups, kept = _case("resnet18", 7)
    sizes = side_sizes(net)
    first = {n: sorted({*k, *range(g.channels // 2)}) for g in groups for n, k in kept.items()
             if n == g.name}  # fmt: skip
    before, after = edits_for(groups, first, sizes), edits_for(groups, kept, sizes)
    stepwise = slice_channels(slice_channels(net, before), relative(before, after))
    direct = slice_channels(net, after)
    for (name, a), b in zip(
        stepwise.state_dict().items(), direct.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_output_layer_is_frozen_and_every_group_of_a_convolution_keeps_as_many():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 16, 1), nn.ReLU(),
        nn.Conv2d(16, 4, 1),
    )  # fmt: skip
    groups = {g.name: g for g in channel_groups(net, torch.zeros(1, 3, 8, 8))}
    assert "output" in groups["4"].frozen
    assert groups["0"].channels == 4
    assert groups["0"].members[0].index == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert groups["1"].channels == 4
    assert not groups["0"].frozen and not groups["1"].frozen
    assert groups["2"].frozen == ""
    kept = {g.name: g for g in channel_groups(net, torch.zeros(1, 3, 8, 8), keep=["2"])}
    assert "kept" in kept["2"].frozen


def test_bad_edits_are_refused():
    net, _, groups, _ = _case("dense", 0)
    sizes = side_sizes(net)
    with pytest.raises(BadInput, match="no channel group"):
        edits_for(groups, {"nothing": [0]}, sizes)
    with pytest.raises(BadInput, match="frozen"):
        edits_for(groups, {"head": [0]}, sizes)
    with pytest.raises(BadInput, match="cannot keep"):
        edits_for(groups, {"a": []}, sizes)
    with pytest.raises(BadInput, match="no such module"):
        slice_channels(net, [Edit("gone", "out", 4, (0,))])
    with pytest.raises(BadInput, match="is for 99"):
        slice_channels(net, [Edit("a", "out", 99, (0,))])
    narrow = edits_for(groups, {"a": [0, 1]}, sizes)
    with pytest.raises(BadInput, match="lost"):
        relative(narrow, edits_for(groups, {"a": [0, 2]}, sizes))
    assert side_sizes(net) == sizes  # nothing was done to it
