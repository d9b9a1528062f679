"""Dense convolutions as depthwise and pointwise ones."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.norms_behind import norms_behind
from chipfit.methods.auto_blocks import solved_norms, solved_places
from chipfit.nets import create
from chipfit.rewrite import replay, rewrite_from_json
from chipfit.rewrite.reconstruct import reconstruct
from chipfit.rewrite.separate import SeparableConv, Separate, separated


@pytest.fixture
def net():
    torch.manual_seed(0)
    return create("resnet18", input_shape=(1, 3, 32, 32), num_classes=10).eval()


def product(down, across):
    return across * down.transpose(0, 1)


def test_a_convolution_that_is_separable_is_met_exactly():
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 12, (3, 5), 2, (1, 2), dilation=(1, 2), padding_mode="reflect")
    with torch.no_grad():
        dense.weight.copy_(product(torch.randn(8, 1, 3, 5), torch.randn(12, 8, 1, 1)))
    x = torch.randn(2, 8, 12, 13)
    assert torch.allclose(SeparableConv(dense)(x), dense(x), atol=1e-5)


def test_no_other_separable_convolution_is_nearer():
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3)
    down, across = separated(weight)
    least = float((product(down, across) - weight).square().sum())
    # What is left is all singular values but the first of each input channel.
    values = np.linalg.svd(weight.numpy().transpose(1, 0, 2, 3).reshape(4, 6, 9), compute_uv=False)
    assert least == pytest.approx(float((values[:, 1:] ** 2).sum()), rel=1e-5)
    for _ in range(20):
        near = product(down + 0.03 * torch.randn(down.shape), across)
        assert float((near - weight).square().sum()) > least
    assert (down.flatten(1).sum(1) >= 0).all()
    assert down.flatten(1).norm(dim=1) == pytest.approx(torch.ones(4), abs=1e-6)


def test_only_dense_convolutions_of_a_module_go(net):
    edit = Separate.of("layer2.0", net.layer2[0])
    assert edit.convs == ("conv1", "conv2")  # not the 1x1 one of the shortcut
    made = replay(net, [edit])
    x = torch.randn(2, 3, 32, 32)
    assert made(x).shape == net(x).shape
    assert type(net.layer2[0].conv1) is nn.Conv2d
    old, new = trace(net, x[:1]), trace(made, x[:1])
    size = old.shapes[next(n.output for n in old.nodes if n.module == "layer2.0.conv1")]
    pixels = size[2] * size[3]
    dense = 9 * (64 * 128 + 128 * 128) * pixels
    apart = (9 * (64 + 128) + 64 * 128 + 128 * 128) * pixels
    assert old.macs - new.macs == dense - apart
    assert edit.pointwise() == {
        f"layer2.0.{name}.pointwise": f"layer2.0.{name}" for name in ("conv1", "conv2")
    }


def test_equal_edits_make_equal_networks_also_from_json(net):
    edit = Separate.of("layer1.0", net.layer1[0])
    again = rewrite_from_json(edit.to_json())
    assert again == edit
    one, two = replay(net, [edit]).state_dict(), replay(net, [again]).state_dict()
    assert all(torch.equal(a, b) for a, b in itertools.zip_longest(one.values(), two.values()))


def test_a_convolution_by_itself_keeps_mode_type_and_bias():
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU()).double().train()
    made = replay(net, [Separate.of("0", net[0])])
    assert isinstance(made[0], SeparableConv)
    assert made[0].training and made[0].pointwise.weight.dtype == torch.float64
    assert torch.equal(made[0].pointwise.bias, net[0].bias)
    assert Separate("0", "separate", 0, 0, 1, {}, ("",)).pointwise() == {"0.pointwise": "0"}


@pytest.mark.parametrize(
    "module",
    [nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(1, 8, 3), nn.Linear(4, 4)],
    ids=["pointwise", "depthwise", "one-channel", "linear"],
)
def test_there_is_nothing_to_separate(module):
    assert Separate.of("block", nn.Sequential(module, nn.ReLU())) is None


def test_solved_pointwise_convolutions_are_nearer_than_they_start(net):
    images = torch.rand(96, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    edit = Separate.of("layer2.0", net.layer2[0])
    made = replay(net, [edit]).eval()
    norms = norms_behind(net, trace(net, images[:1]))
    wanted = net.layer2[0]

    def missed():
        box = []
        hooks = [m.layer2[0].register_forward_hook(lambda m, i, o: box.append(o))
                 for m in (net, made)]  # fmt: skip
        with torch.no_grad():
            net(images[64:]), made(images[64:])
        for hook in hooks:
            hook.remove()
        return float((box[0] - box[1]).square().mean() / box[0].var())

    start, before = missed(), [p.clone() for p in wanted.parameters()]
    places = solved_places(made, [edit])
    assert solved_norms(places, made, norms) == {
        f"layer2.0.conv{i}.pointwise": f"layer2.0.bn{i}" for i in (1, 2)
    }
    solved = reconstruct(
        made, net, [], images[:64], places=places, norms=solved_norms(places, made, norms),
        layers=places,
    )  # fmt: skip
    assert solved == list(places)
    assert missed() < 0.8 * start
    assert all(torch.equal(a, b) for a, b in zip(before, wanted.parameters(), strict=True))


@pytest.mark.parametrize("convs", [["conv9"], ["bn1"], ["downsample.0"]])
def test_what_does_not_fit_is_refused(net, convs):
    edit = rewrite_from_json({"rewrite": "separate", "module": "layer2.0", "convs": convs})
    with pytest.raises(BadInput, match=r"layer2\.0"):
        replay(net, [edit])
    with pytest.raises(BadInput, match="not a separation"):
        rewrite_from_json({"rewrite": "separate", "module": "layer2.0"})
