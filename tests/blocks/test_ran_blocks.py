import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, hardswish

from chipfit.blocks.convnext_block import ChannelNorm, ConvNeXtBlock
from chipfit.blocks.drop_path import DropPath
from chipfit.blocks.pre_activation_conv import PreActivationConv
from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.blocks.shortcut import Shortcut
from chipfit.errors import BadInput
from chipfit.graph.capture import capture


def random_norms(module, seed=0):
    """Give every batch norm statistics and an affine map that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.5, 0.5), (norm.running_var, 0.3, 2.0),
                (norm.weight.data, 0.5, 1.5), (norm.bias.data, -0.5, 0.5),
            ):  # fmt: skip
                tensor.uniform_(low, high, generator=generator)
    return module.eval()


@pytest.mark.parametrize(("into", "out", "stride"), [(5, 5, 1), (5, 5, 2), (5, 7, 1), (4, 6, 2)])
def test_merged_branches_equal_the_branches(into, out, stride):
    block = random_norms(RepVGGBlock(into, out, stride, deploy=False)).double()
    assert (block.rbr_identity is not None) == (stride == 1 and into == out)
    merged = block.deployed()
    x = torch.randn(2, into, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(merged(x), block(x), rtol=1e-12, atol=1e-12)
    convs = [m for m in merged.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convs] == [(3, 3)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in merged.modules())
    assert not merged.training
    assert merged.deployed() is merged


def test_the_branches_come_before_the_relu():
    block = random_norms(RepVGGBlock(3, 3, deploy=False))
    x = torch.randn(1, 3, 6, 6)
    total = block.rbr_dense(x) + block.rbr_1x1(x) + block.rbr_identity(x)
    torch.testing.assert_close(block(x), total.clamp(min=0))


@pytest.mark.parametrize(("into", "out", "stride"), [(6, 6, 1), (6, 8, 1), (6, 6, 2)])
def test_pre_activation_conv_is_norm_activation_convolution_norm(into, out, stride):
    block = random_norms(PreActivationConv(into, out, 3, stride))
    x = torch.randn(2, into, 10, 10)
    conv, norm = block.conv[0][0], block.conv[0][1]
    y = norm(conv2d(hardswish(block.norm(x)), conv.weight, None, stride, 1))
    expected = x + y if stride == 1 and into == out else y
    torch.testing.assert_close(block(x), expected)
    assert block.residual == (stride == 1 and into == out)


def test_a_narrowing_block_has_two_convolutions_and_an_activation_between():
    block = PreActivationConv(8, 8, hidden=4, act="relu6").eval()
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(8, 4), (4, 8)]
    assert sum(isinstance(m, nn.ReLU6) for m in block.modules()) == 2
    assert isinstance(list(block.conv.modules())[-1], nn.BatchNorm2d)
    strided = PreActivationConv(8, 8, 3, 2, hidden=4, same_size=(9, 8)).eval()
    assert strided(torch.zeros(1, 8, 9, 8)).shape == (1, 8, 5, 4)


def test_the_norm_stays_where_a_shortcut_reads_its_input_too():
    def norms(out):
        net = nn.Sequential(nn.Conv2d(3, 8, 1), PreActivationConv(8, out), nn.Conv2d(out, 4, 1))
        return [n.op.kind for n in capture(net, torch.zeros(1, 3, 8, 8)).workload.nodes]

    assert norms(8).count("batch_norm") == 1
    assert norms(12).count("batch_norm") == 0


def test_convnext_block_is_the_papers_formula():
    torch.manual_seed(0)
    block = ConvNeXtBlock(6).eval().double()
    block.gamma.data.uniform_(0.5, 1.5)
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    y = conv2d(x, block.dwconv.weight, block.dwconv.bias, padding=3, groups=6)
    centred = y - y.mean(1, keepdim=True)
    y = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    y = conv2d(y, block.pwconv1.weight[:, :, None, None], block.pwconv1.bias)
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    y = conv2d(y, block.pwconv2.weight[:, :, None, None], block.pwconv2.bias)
    expected = x + block.gamma[:, None, None] * y
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)
    assert sum(p.numel() for p in block.parameters()) == 6 * 50 + 12 + 24 * 7 + 6 * 25 + 6


def test_a_new_convnext_block_is_almost_the_identity():
    block, x = ConvNeXtBlock(6).eval(), torch.randn(1, 6, 9, 9)
    assert 0 < (block(x) - x).abs().max() < 1e-4


def test_channel_norm_normalises_every_pixel():
    norm = ChannelNorm(16, eps=1e-6)
    y = norm(3 + 2 * torch.randn(2, 16, 5, 4))
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 5, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(2, 5, 4), atol=1e-4, rtol=0)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = drop(x)
    flat = y.flatten(1)
    assert torch.equal(flat.amin(1), flat.amax(1))
    values, counts = flat[:, 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.75]))
    assert abs(counts[0].item() / 4000 - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert drop.eval()(x) is x
    assert DropPath(0.0).train()(x) is x
    with pytest.raises(BadInput, match="drop_path"):
        DropPath(1.0)


def test_shortcut_adds_its_input():
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(Shortcut(nn.ReLU(), nn.Tanh())(x), x + x.relu().tanh())
