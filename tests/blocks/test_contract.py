# SPDX-License-Identifier: Apache-2.0
"""What every block of the registry keeps, whatever it computes."""

import json

import pytest
import torch
from torch import nn

from chipfit.blocks.collapsible_conv import CollapsibleConv
from chipfit.blocks.deploy import deploy
from chipfit.blocks.registry import BLOCKS, create_block
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.rewrite.swap import Swap

SIZE = (9, 8)
CASES = [
    ("activated", {}),
    ("activated", {"block": "conv_bn_act", "act": "relu6",
                   "options": {"kernel": 3, "act": "none"}}),
    ("basic_residual", {}),
    ("bottleneck", {}),
    ("bottleneck", {"hidden": 12, "kernel": 5, "groups": 4, "act": "silu", "same_size": SIZE}),
    ("collapsible_conv", {"expansion": 24}),
    ("collapsible_conv", {"expansion": 24, "kernel": 5, "residual": False, "bias": False}),
    ("collapsible_conv", {"expansion": 24, "depthwise": True}),
    ("collapsible_conv", {"expansion": 24, "expanded": True}),
    ("conv_bn_act", {}),
    ("conv_bn_act", {"kernel": 3, "groups": 4, "act": "none", "same_size": SIZE}),
    ("convnext_block", {}),
    ("convnext_block", {"kernel": 5, "expansion": 2, "drop_path": 0.5}),
    ("dbb", {}),
    ("dbb", {"kernel": 5, "branches": ["kxk", "1x1-avg"], "act": "hardswish"}),
    ("dbb", {"deploy": True, "act": "none"}),
    ("dil_conv", {}),
    ("dil_conv", {"kernel": 5, "dilation": 1}),
    ("factorised_reduce", {}),
    ("fused_inverted_residual", {}),
    ("fused_inverted_residual", {"hidden": 20, "kernel": 5, "same_size": SIZE, "act": "silu"}),
    ("fused_inverted_residual", {"expansion": 2, "squeeze_excite": 0.25, "gate": "sigmoid"}),
    ("g_ghost_stage", {}),
    ("g_ghost_stage", {"depth": 5, "group_width": 4, "cheap_ratio": 0.25}),
    ("ghost_bottleneck", {}),
    ("ghost_bottleneck", {"hidden": 21, "kernel": 5, "squeeze_excite": 0.25, "act": "hardswish"}),
    ("ghost_conv", {}),
    ("ghost_conv", {"kernel": 3, "ratio": 3, "cheap_kernel": 5, "act": "none"}),
    ("ghost_conv", {"ratio": 1}),
    ("grouped_inverted_residual", {}),
    ("grouped_inverted_residual", {"groups": 4, "expansion": 3, "kernel": 5, "same_size": SIZE}),
    ("grouped_inverted_residual", {"groups": 1, "hidden": 20, "act": "hardswish"}),
    ("inverted_residual", {}),
    ("inverted_residual", {"expansion": 1.5, "kernel": 7, "squeeze_excite": 0.25, "act": "relu"}),
    ("inverted_residual", {"hidden": 16, "same_size": SIZE, "squeeze_excite": 0.5,
                           "gate": "sigmoid", "act": "hardswish"}),
    ("low_rank_conv", {}),
    ("low_rank_conv", {"kernel": 5, "rank": 3, "act": "hardswish", "same_size": SIZE}),
    ("none", {}),
    ("pool", {}),
    ("pool", {"kind": "max", "kernel": 5}),
    ("pre_activation_conv", {}),
    ("pre_activation_conv", {"hidden": 8, "act": "relu6", "same_size": SIZE}),
    ("pre_activation_conv", {"collapsible": 20, "kernel": 5, "same_size": SIZE}),
    ("pre_activation_conv", {"collapsible": 20, "hidden": 8}),
    ("regnet_x_block", {"group_width": 8}),
    ("relu_conv_bn", {}),
    ("relu_conv_bn", {"kernel": 3}),
    ("rep_branches", {}),
    ("rep_branches", {"branches": ["1x1-3x3", "3x1"], "act": "hardswish"}),
    ("rep_branches", {"deploy": True, "act": "none"}),
    ("rep_branches", {"deploy": True, "norm": True}),
    ("rep_vgg_block", {}),
    ("rep_vgg_block", {"deploy": False}),
    ("sep_conv", {}),
    ("sep_conv", {"kernel": 5}),
    ("skip", {}),
]  # fmt: skip
SHAPES = [(16, 16, 1), (16, 16, 2), (16, 24, 1)]
#: Shapes that blocks refuse to make.
REFUSED = {"convnext_block": SHAPES[1:], "pool": SHAPES[2:], "skip": SHAPES[1:]}


def label(case):
    return "-".join([case[0], *case[1]])


def fitting(name):
    return [shape for shape in SHAPES if shape not in REFUSED.get(name, [])]


BUILT = [
    pytest.param(name, options, *shape, id=f"{label((name, options))}-{'x'.join(map(str, shape))}")
    for name, options in CASES
    for shape in fitting(name)
]


def block_of(name, options, into, out, stride, seed=0):
    """Return the block in evaluation mode; no batch norm is the identity."""
    torch.manual_seed(seed)
    block = create_block(name, into, out, stride, **options).eval()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return block


def collapses(block):
    return any(isinstance(m, CollapsibleConv) and not m.expanded for m in block.modules())


def counted_macs(net, x):
    """Count by hooks, independently of chipfit.graph."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, CollapsibleConv):
            inner = output.numel() // len(module.project) * len(module.expand)
            total += inner * module.expand[0].numel() + output.numel() * module.project.shape[1]

    for module in net.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        net(x)
    return total


def test_every_block_has_a_case():
    assert {name for name, _ in CASES} == {entry.name for entry in BLOCKS}
    assert all(entry.summary and entry.source for entry in BLOCKS)


@pytest.mark.parametrize(("name", "options", "into", "out", "stride"), BUILT)
def test_shapes_are_halved_upwards_and_evaluation_repeats(name, options, into, out, stride):
    block = block_of(name, options, into, out, stride)
    sizes = [SIZE] if "same_size" in options else [SIZE, (8, 8), (5, 7)]
    for height, width in sizes:
        x = torch.randn(2, into, height, width)
        with torch.no_grad():
            y = block(x)
            assert y.shape == (2, out, -(-height // stride), -(-width // stride))
            assert torch.isfinite(y).all()
            assert torch.equal(block(x), y)
            assert torch.allclose(block(x[:1]), y[:1], atol=1e-5), "images do not mix"


@pytest.mark.parametrize(("name", "options", "into", "out", "stride"), BUILT)
def test_gradients_reach_every_parameter(name, options, into, out, stride):
    block = block_of(name, options, into, out, stride).double()
    x = torch.randn(3, into, *SIZE, dtype=torch.float64, requires_grad=True)
    y = block(x)
    (y * torch.randn_like(y)).sum().backward()
    for key, parameter in block.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 1e-9, key


@pytest.mark.parametrize(("name", "options", "into", "out", "stride"), BUILT)
def test_the_graph_sees_its_convolutions(name, options, into, out, stride):
    block = block_of(name, options, into, out, stride)
    x = torch.randn(1, into, *SIZE)
    workload = trace(block, x)
    assert not any(node.op.kind == "unsupported" for node in workload.nodes)
    assert workload.macs == counted_macs(deploy(block) if collapses(block) else block, x)


@pytest.mark.parametrize(("name", "options", "into", "out", "stride"), BUILT)
def test_a_swap_of_it_survives_json_and_draws_equal_weights(name, options, into, out, stride):
    swap = Swap("1", name, into, out, stride, options)
    again = Swap.from_json(json.loads(json.dumps(swap.to_json())))
    nets = [s.apply(nn.Sequential(nn.Conv2d(3, into, 1), nn.ReLU())) for s in (swap, again)]
    states = [net[1].state_dict() for net in nets]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert [type(m) for m in nets[0][1].modules()] == [type(m) for m in nets[1][1].modules()]


@pytest.mark.parametrize(("name", "options", "into", "out", "stride"), BUILT)
def test_deployed_it_computes_the_same_borders_included(name, options, into, out, stride):
    block = block_of(name, options, into, out, stride).double()
    before = {key: value.clone() for key, value in block.state_dict().items()}
    x = 1 + 2 * torch.randn(2, into, *SIZE, dtype=torch.float64)
    merged = deploy(block)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), block(x), rtol=1e-10, atol=1e-10)
    state = block.state_dict()
    assert all(torch.equal(before[key], state[key]) for key in before), "the block itself changed"
    shared = {id(p) for p in block.parameters()} & {id(p) for p in merged.parameters()}
    assert not shared
    assert not any(isinstance(m, CollapsibleConv) for m in merged.modules())
    if hasattr(block, "deployed"):
        assert sum(isinstance(m, nn.Conv2d) for m in merged.modules()) == 1
        assert not any(isinstance(m, nn.BatchNorm2d) for m in merged.modules())
    assert not merged.training
    assert deploy(block.train()).training


@pytest.mark.parametrize("entry", list(BLOCKS), ids=lambda entry: entry.name)
def test_options_that_it_does_not_have_are_refused(entry):
    with pytest.raises(BadInput, match="no option swish"):
        create_block(entry.name, 16, 16, swish=3)


@pytest.mark.parametrize(
    ("name", "into", "out", "stride"), [(name, *s) for name in REFUSED for s in REFUSED[name]]
)
def test_shapes_that_it_cannot_make_are_refused(name, into, out, stride):
    with pytest.raises(BadInput, match="keeps? (its|the) (shape|channels)"):
        create_block(name, into, out, stride)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("activated", {"act": "swosh"}, "swosh"),
        ("activated", {"options": {"hidden": 0}}, "hidden"),
        ("bottleneck", {"groups": 3}, "3 groups"),
        ("bottleneck", {"hidden": 0}, "0 channels"),
        ("collapsible_conv", {"expansion": 0}, "expansion=0"),
        ("conv_bn_act", {"groups": 3}, "groups"),
        ("collapsible_conv", {"residual": True, "padding": 0}, "shortcut"),
        ("convnext_block", {"kernel": 4}, "kernel=4"),
        ("dbb", {"kernel": 4}, "kernel=4"),
        ("dbb", {"branches": []}, "branches"),
        ("dbb", {"branches": ["kxk", "kxk"]}, "branches"),
        ("dbb", {"branches": ["1x3"]}, "1x3"),
        ("dbb", {"act": "swosh"}, "swosh"),
        ("dil_conv", {"kernel": 2}, "kernel=2"),
        ("dil_conv", {"dilation": 0}, "dilation=0"),
        ("fused_inverted_residual", {"hidden": 8, "expansion": 2}, "twice"),
        ("g_ghost_stage", {"depth": 2}, "at least 3"),
        ("g_ghost_stage", {"group_width": 64}, "leaves 0 channels"),
        ("g_ghost_stage", {"cheap_ratio": 0.0, "group_width": 6}, "cheap_ratio"),
        ("ghost_conv", {"ratio": 0}, "ratio=0"),
        ("grouped_inverted_residual", {"groups": 3}, "groups=3"),
        ("grouped_inverted_residual", {"hidden": 8, "expansion": 2}, "twice"),
        ("inverted_residual", {"hidden": 0}, "hidden"),
        ("inverted_residual", {"expansion": -1}, "hidden"),
        ("inverted_residual", {"squeeze_excite": 2.0}, "squeeze_excite"),
        ("inverted_residual", {"squeeze_excite": 0.25, "gate": "tanh"}, "tanh"),
        ("low_rank_conv", {"rank": 0}, "rank=0"),
        ("low_rank_conv", {"kernel": 4}, "kernel=4"),
        ("pool", {"kind": "median"}, "median"),
        ("pool", {"kernel": 2}, "kernel=2"),
        ("regnet_x_block", {"group_width": 5}, "divide"),
        ("rep_branches", {"branches": []}, "branches"),
        ("rep_branches", {"branches": ["3x3", "3x3"]}, "branches"),
        ("rep_branches", {"branches": ["5x5"]}, "5x5"),
        ("rep_branches", {"act": "swosh"}, "swosh"),
        ("rep_branches", {"norm": True}, "norm"),
        ("relu_conv_bn", {"kernel": 4}, "kernel=4"),
        ("sep_conv", {"kernel": 6}, "kernel=6"),
    ],
)
def test_values_that_it_cannot_take_are_refused(name, options, message):
    with pytest.raises(BadInput, match=message):
        create_block(name, 16, 16, **options)
