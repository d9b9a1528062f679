import numpy as np
import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph.channels import channel_groups, kept_sides, widths_of_sides
from chipfit.graph.coupling_axes import Axes, merged, reshaped
from chipfit.graph.coupling_labels import Labels
from chipfit.graph.coupling_sides import side_sizes

IMAGE = (1, 3, 8, 8)


def test_a_conjunction_goes_where_one_of_its_parts_goes():
    labels = Labels()
    (a, b, c) = labels.fresh("x", 3)
    labels.equate((c,), (a, b), "")
    assert labels.expand(c) == (a, b)
    labels.freeze([a], "stays")
    assert labels.expand(c) == (b,)
    assert labels.reason(a) == "stays"
    labels.equate((c,), (), "meets nothing")
    assert labels.expand(b) == ()
    assert labels.reason(b)


def test_fresh_labels_return_for_the_same_key():
    labels = Labels()
    assert np.array_equal(labels.fresh("k", 2000), labels.fresh("k", 2000))
    assert not set(labels.fresh("k", 2000)) & set(labels.fresh("other", 3))


@pytest.mark.parametrize("sizes", [(2, 6), (3, 4), (2, 3, 2)])
def test_splitting_and_merging_an_axis_returns_its_labels(sizes):
    labels = Labels()
    vector = labels.fresh("c", 12)
    there = reshaped(labels, "there", Axes((1, 12), [[], [vector]]), (1, *sizes), "")
    back = reshaped(labels, "back", there, (1, 12), "")
    for i in range(12):
        whole = {r for layer in back.layers[1] for r in labels.expand(int(layer[i]))}
        assert whole == set(labels.expand(int(vector[i])))
        assert len(whole) == len(sizes)


def test_a_merge_remembers_which_axis_is_which():
    labels = Labels()
    a, b = labels.fresh("a", 2), labels.fresh("b", 3)
    one, other = merged([[a], [b]], (2, 3))
    assert one.tolist() == [a[0]] * 3 + [a[1]] * 3
    assert other.tolist() == [*b, *b]


def test_reasons_name_the_place():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(self.a(x).sort(1)[0])

    groups = {g.name: g.frozen for g in channel_groups(Sorted(), torch.zeros(IMAGE))}
    assert "relates its entries (sort)" in groups["a"]
    assert "output" in groups["b"]


def test_numbers_that_no_attribute_holds_freeze_the_group():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(self.a(x).reshape(1, 8, 8, 8))

    groups = {g.name: g.frozen for g in channel_groups(Fixed(), torch.zeros(IMAGE))}
    assert "a narrower network fails: shape '[1, 8, 8, 8]'" in groups["a"]


def test_what_depends_on_the_number_of_channels_is_not_called_exact():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.a(x)
            return self.b(y / y.shape[1])

    groups = {g.name: g.frozen for g in channel_groups(Scaled(), torch.zeros(IMAGE))}
    assert "computes something else" in groups["a"]


def test_shared_weights_are_frozen():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    net[2].weight = net[0].weight
    groups = {g.name: g.frozen for g in channel_groups(net, torch.zeros(1, 8))}
    assert "is the same tensor as" in groups["0"]


def test_layers_that_are_not_used_are_frozen():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    net[0].spare = nn.Linear(4, 6)
    groups = {g.name: g.frozen for g in channel_groups(net, torch.zeros(IMAGE))}
    assert groups == {
        "0": "", "0.spare": "0.spare is not seen in use", "1": "1 makes the output of the network",
    }  # fmt: skip


def test_a_network_that_fails_is_refused():
    with pytest.raises(BadInput, match="fails on an input"):
        channel_groups(nn.Conv2d(4, 8, 1), torch.zeros(IMAGE))


def test_networks_on_the_meta_device_are_coupled_by_shapes():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    groups = channel_groups(net, torch.zeros(IMAGE))
    assert [(g.name, g.channels, bool(g.frozen)) for g in groups] == [
        ("0", 8, False), ("2", 4, True),
    ]  # fmt: skip


def test_overlapping_groups_count_what_they_share_once():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = 2
            self.q, self.out = nn.Linear(6, 12), nn.Linear(12, 4)

        def forward(self, x):
            y = self.q(x).reshape(len(x), self.heads, -1).softmax(0)
            return self.out(y.flatten(1))

    net = Heads()
    groups = channel_groups(net, torch.zeros(2, 6))
    widths = {g.name: g.channels - 1 for g in groups if not g.frozen}
    sizes = side_sizes(net)
    kept = kept_sides(groups, {name: range(width) for name, width in widths.items()}, sizes)
    found = widths_of_sides(groups, widths, sizes)
    assert len(widths) == 2
    assert found["q", "out"] == 5
    assert all(len(kept[side]) == size for side, size in found.items())
