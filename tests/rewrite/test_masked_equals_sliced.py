import random

import pytest
import torch
from narrowable import NETWORKS, ViT
from torch import nn

from chipfit.graph.channels import channel_groups
from chipfit.rewrite import edits_for, mask_channels, side_sizes, slice_channels

#: The layer that makes the output, where it is not called "head"; nothing else is frozen.
LAST = {
    "upscaler": "d", "tiny_mobilenet_v2": "classifier.1", "resnet18": "fc",
    "ghostnet": "classifier", "sesr_m5": "last",
}  # fmt: skip
#: Large networks, of which a few groups are narrowed alone.
LARGE = {"resnet18": 2, "ghostnet": 4, "convnext_tiny": 1}


def _built(name):
    torch.manual_seed(0)
    return _stirred(NETWORKS[name]().eval())


def _stirred(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    for name_, parameter in net.named_parameters():
        if "gamma" in name_ or "scale" in name_:
            parameter.data.uniform_(0.5, 1.5)
    return net.double(), torch.randn(net.shape, dtype=torch.float64)


def _same(net, x, groups, kept):
    edits = edits_for(groups, kept, side_sizes(net))
    sliced, masked = slice_channels(net, edits), mask_channels(net, edits)
    with torch.no_grad():
        expected = masked(x)
        torch.testing.assert_close(sliced(x), expected, rtol=1e-9, atol=1e-9)
        return expected, sliced


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_equals_sliced(name):
    net, x = _built(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    groups = channel_groups(net, x)
    free = [group for group in groups if not group.frozen]
    assert {g.name for g in groups if g.frozen} == {LAST.get(name, "head")}
    draw = random.Random(name)
    kept = {
        g.name: sorted(draw.sample(range(g.channels), draw.randint(1, g.channels - 1)))
        for g in free
    }
    with torch.no_grad():
        original = net(x)
    for group in draw.sample(free, min(len(free), LARGE.get(name, 99))):
        narrowed, _ = _same(net, x, groups, {group.name: kept[group.name]})
        assert (narrowed - original).abs().max() > 1e-12, group.name
    _, sliced = _same(net, x, groups, kept)
    count = sum(p.numel() for p in sliced.parameters())
    assert count < 0.8 * sum(p.numel() for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_heads_and_head_dimensions_are_groups():
    net, x = _built("vit_packed")
    groups = {g.name: g for g in channel_groups(net, x)}
    assert {name: g.channels for name, g in groups.items()} == {
        "patch": 16, "attn.qkv": 4, "attn.qkv#2": 4, "mlp.0": 24, "head": 5,
    }  # fmt: skip
    heads, dims = groups["attn.qkv"], groups["attn.qkv#2"]
    assert {a.side for a in heads.attributes} == {"attr:heads"}
    assert {a.side for a in dims.attributes} == {"attr:head_dim"}
    sliced = slice_channels(
        net,
        edits_for([heads, dims], {"attn.qkv": [0, 2], "attn.qkv#2": [1, 2, 3]}, side_sizes(net)),
    )
    assert (sliced.attn.heads, sliced.attn.head_dim, sliced.attn.scale) == (2, 3, net.attn.scale)
    assert sliced.attn.qkv.out_features == 18 and sliced.attn.proj.in_features == 6


def test_queries_and_keys_are_narrowed_together_and_values_alone():
    net, x = _built("vit_separate")
    members = {
        g.name: ({m.module for m in g.members}, g.channels) for g in channel_groups(net, x)
    }  # fmt: skip
    everything = {"attn.q", "attn.k", "attn.v", "attn.out"}
    found = [value for name, value in members.items() if name.startswith("attn")]
    assert sorted(found, key=lambda v: (len(v[0]), v[1])) == [
        ({"attn.q", "attn.k"}, 2), ({"attn.v", "attn.out"}, 4), (everything, 4),
    ]  # fmt: skip


def test_heads_with_one_number_for_all_are_narrowed_alike():
    net, x = _built("cascaded_heads")
    groups = {g.name: g for g in channel_groups(net, x)}
    assert {name: g.channels for name, g in groups.items()} == {
        "stem": 6, "projections.0": 4, "head": 5,
    }  # fmt: skip
    keys = groups["projections.0"]
    assert keys.layers == [f"projections.{i}" for i in range(4)]
    assert {a.side for a in keys.attributes} == {"attr:key_dim"}
    assert {a.side for a in groups["stem"].attributes} == {"attr:value_dim"}
    edits = edits_for([keys], {"projections.0": [0, 3, 2]}, side_sizes(net))
    sliced = slice_channels(net, edits)
    assert sliced.key_dim == 3
    assert all(layer.out_channels == 2 * 3 + 6 for layer in sliced.projections)


def test_a_part_that_is_given_as_the_rest_follows_the_whole():
    net, x = _built("partial")
    groups = {g.name: g for g in channel_groups(net, x)}
    one, two = groups["stem"], groups["stem#2"]
    assert [(g.channels, {a.side for a in g.attributes}) for g in (one, two)] == [
        (5, {"attr:part", "attr:dim"}), (7, {"attr:dim"}),
    ]  # fmt: skip
    kept = {"stem": [0, 4], "stem#2": [1, 2, 3, 5]}
    sliced = slice_channels(net, edits_for([one, two], kept, side_sizes(net)))
    assert (sliced.dim, sliced.part, sliced.work.in_channels) == (6, 2, 2)


@pytest.mark.parametrize("style", ["classic", "classic_fused"])
def test_heads_as_wide_as_the_network_lose_dimensions_with_it(style):
    net, x = _stirred(ViT(style).eval())
    groups = {g.name: g for g in channel_groups(net, x)}
    assert {name: (g.channels, bool(g.frozen)) for name, g in groups.items()} == {
        "patch": (8, False), "attn.q": (2, True), "mlp.0": (24, False), "head": (5, True),
    }  # fmt: skip
    whole = groups["patch"]
    assert {"patch", "attn.q", "attn.kv", "attn.proj", "mlp.2"} <= set(whole.layers)
    assert ("off:fused_attn" in {a.side for a in whole.attributes}) == (style == "classic_fused")
    _, sliced = _same(net, x, [*groups.values()], {"patch": [0, 1, 3], "mlp.0": [5, 6, 7, 20]})
    assert (sliced.patch.out_channels, sliced.attn.head_dim) == (2 * 3, 3)
    assert sliced.attn.fused_attn is False
