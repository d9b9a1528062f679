import copy

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.channels import ChannelGroup, Member, channel_groups
from chipfit.graph.norms_behind import norms_behind
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels
from chipfit.supernet.soft_masks import MODES, SoftMasks, unmaskable
from chipfit.train.randomness import generator, private_global_stream


def own(name, side, channels):
    return Member(name, side, tuple((c,) for c in range(channels)))


class Chain(nn.Module):
    """Two convolutions with a batch norm behind each."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.after = nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.after(self.b(self.norm(self.a(x)).relu())).mean((2, 3))


class Excited(nn.Module):
    """Squeeze and excitation, PReLU, depthwise."""

    def __init__(self):
        super().__init__()
        self.a, self.act = nn.Conv2d(3, 8, 3), nn.PReLU(8)
        self.dw, self.norm = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.b = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.norm(self.dw(self.act(self.a(x))))
        x = x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.b(x).mean((2, 3))


class Joined(nn.Module):
    """Concatenation, read twice, then flattened to a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.c = nn.BatchNorm2d(10), nn.Conv2d(10, 6, 3, padding=1)
        self.d, self.e = nn.Conv2d(16, 4, 1), nn.Linear(4 * 16, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        x = self.norm(torch.cat((self.a(x), self.b(x)), 1)).relu()
        x = self.d(torch.cat((x, self.c(x)), 1))
        return self.head(self.e(x.flatten(1)).relu())


class Upwards(nn.Module):
    """A small U: the path down is read again on the way up."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.c, self.d = nn.Conv2d(14, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

    def forward(self, x):
        a = self.a(x).relu()
        up = nn.functional.interpolate(self.b(a).relu(), scale_factor=2)
        return self.d(self.c(torch.cat((a, up), 1)).relu())


class Tokens(nn.Module):
    """Layer norms on a residual stream, and an MLP."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.norm, self.last = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.head(self.last(x.mean((1, 2))))


class ChannelsFirst(nn.LayerNorm):
    """A layer norm over the first axis after the batch, as ConvNeXts have it."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Normalised(nn.Module):
    """Convolutions with channels-first layer norms."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 2, 2), ChannelsFirst(8)
        self.b, self.last = nn.Conv2d(8, 8, 3, padding=1), ChannelsFirst(8)
        self.c = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.norm(self.a(x))
        return self.c(self.last(x + self.b(x))).mean((2, 3))


ZOO = {
    "tiny_mobilenet_v2": (1, 8, 8), "resnet18": (3, 16, 16), "repvgg_a0": (3, 16, 16),
    "ghostnet": (3, 32, 32), "efficientnet_lite0": (3, 32, 32), "densenet": (3, 16, 16),
    "sesr_m3": (1, 8, 8), "nas_bench_201": (3, 8, 8),
    "ran_e": (3, 32, 32), "tiny_rep_branches": (1, 8, 8),
}  # fmt: skip
SMALL = {
    "chain": (Chain, (2, 6, 6)), "excited": (Excited, (3, 8, 8)), "joined": (Joined, (3, 4, 4)),
    "upwards": (Upwards, (3, 8, 8)), "tokens": (Tokens, (3, 8, 8)),
    "normalised": (Normalised, (3, 8, 8)),
}  # fmt: skip


def prepared(name):
    """Return a network in double precision with statistics, its groups and the norms behind."""
    if name in SMALL:
        kind, shape = SMALL[name]
        with private_global_stream():
            torch.manual_seed(0)
            net = kind().eval()
    else:
        shape = ZOO[name]
        classes = {} if name.startswith("sesr") else {"num_classes": 10}
        net = cf.nets.create(name, input_shape=(1, *shape), **classes).eval()
    for i, module in enumerate(net.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator(1, i))
            module.running_var.uniform_(0.5, 2, generator=generator(2, i))
            module.weight.data.uniform_(0.5, 2, generator=generator(3, i))
    example = torch.zeros(1, *shape)
    groups = channel_groups(net, example)
    groups = [g for g in groups if not g.frozen and not unmaskable(net, g)]
    behind = norms_behind(net, trace(net, example))
    x = torch.randn(2, *shape, generator=generator(5), dtype=torch.float64)
    return net.double(), groups, behind, x


def half(groups, seed):
    return {
        g.name: tuple(sorted(
            torch.randperm(g.channels, generator=generator(seed, i))[: -(-g.channels // 2)].tolist()
        ))
        for i, g in enumerate(groups)
    }  # fmt: skip


@pytest.mark.parametrize("name", [*SMALL, *ZOO])
def test_the_sliced_network_computes_what_the_masked_one_does(name):
    net, groups, behind, x = prepared(name)
    assert groups
    masks = SoftMasks(net, groups, norms=behind)
    with torch.no_grad():
        assert torch.equal(masks.net(x), net(x))  # open masks change nothing
        kept = half(groups, 3)
        masks.keep(kept)
        assert masks.kept == kept
        masked, finished = masks.net(x), masks.finished()
        sliced = slice_channels(finished, edits_for(groups, kept, side_sizes(net)))
        found = sliced(x)
    assert not torch.allclose(masked, net(x), rtol=1e-3)
    assert torch.allclose(found, masked, rtol=1e-9, atol=1e-11 * float(masked.abs().max()))
    assert type(finished) is type(net) and list(finished.state_dict()) == list(net.state_dict())


def chain(**options):
    net, groups, behind, x = prepared("chain")
    (group,) = [g for g in groups if g.name == "a"]
    return SoftMasks(net, [group], norms=behind, **options), x


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_the_masked_weight_passed_straight_or_not(mode):
    masks, x = chain(mode=mode, scaling="none")
    masks.keep({"a": (0, 2)})
    plain = masks.finished()
    masks.net(x).square().sum().backward()
    plain(x).square().sum().backward()
    wanted = plain.b.weight.grad.clone()  # dL/dW_hat
    assert wanted[:, [1, 3]].abs().min() > 0
    if mode != "soft":
        wanted[:, [1, 3]] = 0
    weight = masks.weights()["b", "weight"]
    assert torch.allclose(weight.grad, wanted, rtol=1e-12)
    assert torch.equal(masks.net.a.weight.grad[[1, 3]], torch.zeros(2, 2, 3, 3).double())
    gone = weight.detach()[:, [1, 3]].abs()
    assert bool((gone == 0).all()) if mode == "permanent" else bool((gone > 0).all())


def test_a_step_on_a_scaled_norm_is_a_step_on_what_it_computes_with():
    masks, x = chain()
    masks.keep({"a": (1,)})
    norm = masks.net.after
    gamma = norm.parametrizations.weight.original
    assert torch.equal(norm.weight, 0.25 * gamma)
    plain = masks.finished()
    masks.net(x).square().sum().backward()
    plain(x).square().sum().backward()
    torch.optim.SGD([gamma], 0.01).step()
    torch.optim.SGD([plain.after.weight], 0.01).step()
    assert torch.allclose(norm.weight, plain.after.weight, rtol=1e-12)


def test_norms_are_scaled_by_what_is_kept_in_channels_or_in_importance():
    for scaling, wanted in (("channels", 0.5), ("importance", 0.7), ("none", 1.0)):
        masks, _ = chain(scaling=scaling)
        masks.importance["a"].copy_(torch.tensor([4.0, 2.0, 3.0, 1.0]))
        masks.keep({"a": (0, 2)})
        before = prepared("chain")[0].after.weight
        assert torch.allclose(masks.net.after.weight, wanted * before, rtol=1e-12)
        masks.keep({"a": range(4)})
        assert torch.allclose(masks.net.after.weight, before, rtol=1e-12)


def test_channels_come_back_as_they_went_but_for_permanent_masks():
    for mode in ("soft", "hard"):
        masks, x = chain(mode=mode)
        before = masks.net(x)
        assert masks.keep({"a": (0,)}) == 0
        assert not torch.allclose(masks.net(x), before)
        assert masks.keep({"a": (0, 1, 2, 3)}) == 3
        assert torch.equal(masks.net(x), before)
    masks, _ = chain(mode="permanent")
    masks.keep({"a": (0, 1)})
    with pytest.raises(BadInput, match="gone for good"):
        masks.keep({"a": (0, 2)})


def test_masked_weights_decay_and_others_do_not():
    masks, x = chain()
    masks.keep({"a": (0, 2)})
    masks.net(x).square().sum().backward()
    weight = masks.weights()["b", "weight"]
    before = weight.grad.clone()
    masks.decay_(0.5)
    change = weight.grad - before
    assert torch.equal(change[:, [0, 2]], torch.zeros_like(change[:, [0, 2]]))
    assert torch.allclose(change[:, [1, 3]], 0.5 * weight.detach()[:, [1, 3]], rtol=1e-12)


def test_copies_and_state_dictionaries_hold_the_masks():
    masks, x = chain()
    masks.keep({"a": (0, 2)})
    masks.importance["a"].copy_(torch.tensor([4.0, 2.0, 3.0, 1.0]))
    clone, wanted = copy.deepcopy(masks.net), masks.net(x)
    masks.finished()
    assert torch.equal(clone(x), wanted)
    other, _ = chain()
    other.net.load_state_dict(masks.net.state_dict())
    assert torch.equal(other.net(x), wanted) and other.kept == masks.kept
    assert torch.equal(other.importance["a"], masks.importance["a"])
    masks.keep({"a": (3,)})
    assert torch.equal(clone(x), wanted)


def test_what_no_layer_reads_is_masked_where_it_is_made():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.q(x) @ self.k(x).transpose(-1, -2)

    net = Product().double()
    group = ChannelGroup("q", 3, (own("q", "out", 3), own("k", "out", 3)))
    masks = SoftMasks(net, [group])
    masks.keep({"q": (0, 2)})
    x = torch.randn(5, 4, generator=generator(1), dtype=torch.float64)
    q, k = net.q(x)[:, [0, 2]], net.k(x)[:, [0, 2]]
    assert torch.allclose(masks.net(x), q @ k.transpose(-1, -2), rtol=1e-12)


def test_groups_that_masks_cannot_stand_for_are_refused():
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    group = ChannelGroup("0", 4, (own("0", "out", 4), own("1", "out", 4), own("2", "in", 4)))
    assert "GroupNorm" in unmaskable(net, group)
    with pytest.raises(BadInput, match="GroupNorm"):
        SoftMasks(net, [group])
    with pytest.raises(BadInput, match="luck"):
        SoftMasks(net, [], mode="luck")
