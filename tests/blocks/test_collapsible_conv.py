# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from chipfit.blocks.collapsible_conv import CollapsibleConv
from chipfit.blocks.deploy import deploy
from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.errors import BadInput


def pair(**options):
    """Return the same block in both forms."""
    torch.manual_seed(0)
    blocks = [CollapsibleConv(**options, expanded=form).double() for form in (False, True)]
    if blocks[0].bias is not None:
        nn.init.uniform_(blocks[0].bias)
    blocks[1].load_state_dict(blocks[0].state_dict())
    return blocks


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("out", "stride", "kernel"), [(6, 1, 3), (6, 1, 5), (4, 2, 3), (9, 1, 1)])
def test_both_forms_agree_in_values_and_gradients(out, stride, kernel, depthwise):
    options = dict(in_channels=6, out_channels=out, stride=stride, kernel=kernel)
    collapsed, expanded = pair(**options, expansion=20, depthwise=depthwise)
    assert collapsed.residual == (out == 6 and stride == 1)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    results = [block(x) for block in (collapsed, expanded)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-11)
    wanted = torch.randn_like(results[0])
    grads = [
        torch.autograd.grad((y * wanted).square().sum(), list(block.parameters()))
        for y, block in zip(results, (collapsed, expanded), strict=True)
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_kernel_is_the_papers_product_with_a_one_in_the_middle():
    block = CollapsibleConv(5, 5, expansion=12, kernel=3).double()
    product = torch.einsum("op,pikl->oikl", block.project[:, :, 0, 0], block.expand)
    product[range(5), range(5), 1, 1] += 1
    torch.testing.assert_close(block.weight(), product)
    bare = CollapsibleConv(5, 5, expansion=12, residual=False)
    assert (bare.collapsed().weight - bare.weight()).abs().max() == 0
    factors = CollapsibleConv(4, 3, expansion=7, depthwise=True).double()
    product = torch.einsum(
        "op,pkl,pi->oikl", factors.project.flatten(1), factors.depthwise[:, 0],
        factors.expand.flatten(1),
    )  # fmt: skip
    torch.testing.assert_close(factors.weight(), product)


def test_it_executes_one_convolution():
    calls = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.conv2d or func is conv2d:
                calls.append(tuple(args[1].shape))
            return func(*args, **(kwargs or {}))

    x = torch.randn(1, 4, 8, 8)
    for expanded, shapes in ((False, [(4, 4, 3, 3)]), (True, [(32, 4, 3, 3), (4, 32, 1, 1)])):
        calls.clear()
        block = CollapsibleConv(4, 4, expansion=32, expanded=expanded)
        with Watch():
            block(x)
        assert calls == shapes


@pytest.mark.parametrize("bias", [True, False])
def test_it_takes_the_place_of_a_dense_convolution(bias):
    conv = nn.Conv2d(6, 8, 5, 2, (0, 1), bias=bias).double()
    block = CollapsibleConv.like(conv, 16, depthwise=True)
    back = block.collapsed()
    x = torch.randn(1, 6, 11, 12, dtype=torch.float64)
    assert block(x).shape == conv(x).shape == back(x).shape
    torch.testing.assert_close(back(x), block(x), rtol=1e-12, atol=1e-12)
    assert (back.bias is not None) == bias == (block.bias is not None)
    assert (back.padding, back.stride, back.kernel_size) == (
        conv.padding, conv.stride, conv.kernel_size
    )  # fmt: skip


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, (1, 3)),
        nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding_mode="reflect"),
    ],
)  # fmt: skip
def test_other_convolutions_have_no_collapsible_form(conv):
    with pytest.raises(BadInput, match="collapsible"):
        CollapsibleConv.like(conv, 8)


def test_new_factors_keep_the_variance():
    torch.manual_seed(0)
    for depthwise in (False, True):
        block = CollapsibleConv(64, 64, expansion=256, depthwise=depthwise, residual=False)
        y = block(torch.randn(4, 64, 16, 16))[:, :, 2:-2, 2:-2]
        assert 0.7 < y.std().item() < 1.4


def test_deploy_merges_blocks_wherever_they_are():
    net = nn.Sequential(
        CollapsibleConv(3, 4, expansion=8),
        nn.ModuleDict({"inner": RepVGGBlock(4, 4, deploy=False)}),
    )
    net.add_module("shared", net[0])
    merged = deploy(net)
    assert type(merged[0]) is nn.Conv2d
    assert merged.shared is merged[0]
    assert merged[1]["inner"].deploy
    assert not net[1]["inner"].deploy
    assert isinstance(net[0], CollapsibleConv)
