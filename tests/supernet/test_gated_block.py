import itertools

import pytest
import torch
from torch import nn

from chipfit.blocks.registry import create_block
from chipfit.errors import BadInput
from chipfit.graph.blocks import find_blocks
from chipfit.supernet import GatedBlock, GatedNetwork, LinearPath
from chipfit.supernet.linear_chain import chain_bias, compose_chain


class One(nn.Module):
    """A network of one block."""

    def __init__(self, block):
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)
        self.block = block

    def forward(self, x):
        return self.block(self.stem(x)).mean((2, 3))


def _randomised(net):
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, low in (
                ("running_var", 0.5),
                ("weight", 0.5),
                ("running_mean", -1.0),
                ("bias", -1.0),
            ):
                value = getattr(module, name).data
                value.copy_(torch.rand(value.shape, generator=draw) * 1.5 + low)
    return net.double().eval()


def _block(name, out=4, stride=1, size=9, **options):
    net = _randomised(One(create_block(name, 4, out, stride, **options)))
    found, _ = find_blocks(net, torch.zeros(1, 4, size, size))
    assert [b.module for b in found] == ["block"]
    return net, found[0]


CASES = [
    ("inverted_residual", 4, 1, 9, {"hidden": 12}),
    ("inverted_residual", 6, 2, 9, {"hidden": 12, "kernel": 5}),
    ("inverted_residual", 6, 2, 8, {"hidden": 12, "kernel": 5, "same_size": (8, 8)}),
    ("inverted_residual", 4, 1, 9, {"hidden": 4}),
    ("basic_residual", 4, 1, 9, {}),
    ("basic_residual", 6, 2, 9, {}),
]


@pytest.mark.parametrize(("name", "out", "stride", "size", "options"), CASES)
def test_a_linear_path_is_its_block_without_activations(name, out, stride, size, options):
    net, block = _block(name, out, stride, size, **options)
    path = LinearPath(block, net, "relu6").eval()
    x = torch.rand(3, 4, size, size, dtype=torch.float64)
    # So wide an assumed input that the activation in front is the identity on all of this one.
    path.fit_input(x.mean((0, 2, 3)), torch.full((4,), 4.0, dtype=torch.float64))
    linear = net.block
    for parent in list(linear.modules()):
        for child, module in list(parent.named_children()):
            if isinstance(module, nn.ReLU | nn.ReLU6):
                setattr(parent, child, nn.Identity())
    wanted, found = linear(x), path(x)
    margin = (block.kernel // 2 + stride - 1) // stride
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    assert wanted[inner].numel()
    assert (found - wanted)[inner].abs().max() < 1e-10


@pytest.mark.parametrize("expanded", [True, False])
@pytest.mark.parametrize("kernel", [None, 3, 1])
@pytest.mark.parametrize(("name", "out", "stride", "size", "options"), CASES)
def test_collapsing_changes_nothing_borders_included(
    name, out, stride, size, options, kernel, expanded
):
    net, block = _block(name, out, stride, size, **options)
    path = LinearPath(block, net, "hardswish", expanded, kernel).eval()
    x = torch.randn(3, 4, size, size, dtype=torch.float64)
    settings = {"kernel": kernel or block.kernel, "act": "hardswish"}
    settings |= {k: v for k, v in options.items() if k == "same_size"}
    collapsed = create_block("pre_activation_conv", 4, out, stride, **settings).double().eval()
    collapsed.load_state_dict(path.collapsed_state())
    assert (collapsed(x) - path(x)).abs().max() < 1e-12
    # A kernel may also be cropped when the path is done.
    whole = LinearPath(block, net, "hardswish", expanded).eval()
    collapsed.load_state_dict(whole.collapsed_state(kernel or block.kernel))
    assert (collapsed(x) - path(x)).abs().max() < 1e-12


def test_random_chains_compose_exactly():
    draw = torch.Generator().manual_seed(1)
    for k1, k2, k3, s1, s2 in itertools.product((1, 3), (1, 3, 5), (1, 3), (1, 2), (1, 2)):
        shapes = [(5, 3, k1, k1), (5, 1, k2, k2), (4, 5, k3, k3)]
        weights = [torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes]
        biases = [torch.randn(s[0], generator=draw, dtype=torch.float64) for s in shapes]
        depthwise = [False, True, False]
        x = torch.randn(2, 3, 25, 25, generator=draw, dtype=torch.float64)
        y = nn.functional.conv2d(x, weights[0], biases[0], stride=s1)
        y = nn.functional.conv2d(y, weights[1], biases[1], stride=s2, groups=5)
        y = nn.functional.conv2d(y, weights[2], biases[2])
        one = compose_chain(weights, [s1, s2, 1], depthwise)
        z = nn.functional.conv2d(x, one, chain_bias(weights, biases, depthwise), stride=s1 * s2)
        assert z.shape == y.shape
        assert (z - y).abs().max() < 1e-11


def test_gates_choose_between_the_ends():
    net, block = _block("inverted_residual", hidden=12)
    gated = GatedBlock(net.block, LinearPath(block, net, "relu6")).eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    assert torch.equal(gated(x), net.block(x))
    gated.gate = 0.0
    assert torch.equal(gated(x), gated.linear(x))
    gate = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    gated.gate = gate
    kept, linear = gated.kept(x), gated.linear(x)
    assert torch.allclose(gated(x), 0.25 * kept + 0.75 * linear, atol=1e-12)
    gated(x).sum().backward()
    assert gate.grad.item() == pytest.approx((kept - linear).sum().item(), rel=1e-9)


def test_a_gated_network_starts_as_the_original_and_counts_its_steps():
    net, block = _block("inverted_residual", hidden=12)
    batches = [torch.randn(4, 4, 9, 9, dtype=torch.float64)]
    costs = [lambda codes: 10.0 - 4.0 * codes.sum(1)]
    gated = GatedNetwork(
        net, [block], {"block": (3, "relu6")}, costs, [8.0], [10.0], steps=10, batches=batches
    ).eval()
    assert torch.equal(gated(batches[0]), net(batches[0]))
    assert gated.expected_costs().item() == pytest.approx(0.8)
    assert gated.penalty() == 0  # still warming up
    gated.train()
    for _ in range(3):
        gated(batches[0])
    assert int(gated.step) == 3
    assert not gated.warming
    with torch.no_grad():
        gated.gates.fill_(1.0)  # nearly always kept: over the bound of 8
    value = gated.penalty()
    assert value > 0
    assert gated.constraint.multipliers.item() == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(BadInput, match="no gate"):
        gated.gated("stem")
