# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from chipfit.blocks.g_ghost_stage import GGhostStage
from chipfit.blocks.ghost_conv import GhostConv
from chipfit.errors import BadInput
from chipfit.flow.timm_zoo import create_timm
from chipfit.graph.capture import trace
from chipfit.nets import create
from chipfit.nets.g_ghost_regnet import REGNET_X


def on_meta(name, **options):
    with torch.device("meta"):
        return create(name, **options)


@pytest.mark.parametrize("name", ["ghostnet", *(f"g_ghost_regnet_{key}" for key in REGNET_X)])
def test_the_graph_understands_all_of_it(name):
    load = trace(on_meta(name), torch.zeros(1, 3, 224, 224, device="meta"))
    assert not any(node.op.kind == "unsupported" for node in load.nodes)
    assert round(load.macs / 1e6) == {
        "ghostnet": 141, "g_ghost_regnet_032": 1802, "g_ghost_regnet_040": 2228,
        "g_ghost_regnet_080": 4150, "g_ghost_regnet_160": 8997,
    }[name]  # fmt: skip


def test_ghostnet_computes_what_timms_computes_with_equal_weights():
    torch.manual_seed(0)
    net, other = create("ghostnet", num_classes=5).eval(), create_timm("ghostnet_100").eval()
    other.reset_classifier(5)
    for norm in other.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0.0, 0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    assert net.load_state_dict(other.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = other(x)
        torch.testing.assert_close(net(x), expected)
    assert expected.std() > 1e-4


def test_ghostnets_width_is_a_multiple_of_four():
    half = on_meta("ghostnet", width=0.5)
    assert half.conv_stem.out_channels == 8
    assert all(m.out_channels % 4 == 0 for m in half.modules() if isinstance(m, GhostConv))
    assert half.conv_head.out_channels == 1280
    with pytest.raises(BadInput, match="width=0.0"):
        create("ghostnet", width=0.0)


@pytest.mark.parametrize("name", REGNET_X)
def test_longer_stages_are_ghost_stages(name):
    net = on_meta(f"g_ghost_regnet_{name}")
    stages = [net.layer1, net.layer2, net.layer3, net.layer4]
    depths, widths, group_width = REGNET_X[name]
    assert [isinstance(s, GGhostStage) for s in stages] == [d > 2 for d in depths]
    for stage, depth, width in zip(stages, depths, widths, strict=True):
        if isinstance(stage, GGhostStage):
            assert len(stage.layers) + 2 == depth
            assert stage.end.conv3.out_channels == width
            assert stage.raw + stage.cheap[0].out_channels == width
            assert 0 <= width / 2 - stage.raw < 0.75 * group_width


def test_a_g_ghost_stage_is_the_papers_sum_of_raw_and_cheap_channels():
    torch.manual_seed(0)
    stage = GGhostStage(8, 16, 2, depth=4, group_width=8).double().eval()
    x = torch.randn(1, 8, 10, 10, dtype=torch.float64)
    first = stage.base(x)
    raw_1 = stage.layers[0](first[:, : stage.raw])
    raw_2 = stage.layers[1](raw_1)
    means = torch.cat([t.mean((2, 3), keepdim=True) for t in (first, raw_1, raw_2)], 1)
    cheap = torch.relu(stage.cheap(first[:, stage.raw :]) + stage.merge[1:](means))
    expected = stage.end(torch.cat([raw_2, cheap], 1))
    torch.testing.assert_close(stage(x), expected)


def test_ghosts_are_depthwise_filters_of_the_intrinsic_channels():
    torch.manual_seed(0)
    block = GhostConv(6, 7, ratio=2, act="none").eval()
    x = torch.randn(1, 6, 5, 5)
    own = block.primary_conv(x)
    assert own.shape[1] == 4
    y = block(x)
    torch.testing.assert_close(y[:, :4], own)
    for channel in range(3):
        weight = block.cheap_operation[0].weight[channel : channel + 1]
        ghost = nn.functional.conv2d(own[:, channel : channel + 1], weight, padding=1)
        norm = block.cheap_operation[1]
        scale = (norm.running_var[channel] + norm.eps).sqrt()
        torch.testing.assert_close(y[:, 4 + channel], ghost[:, 0] / scale)
    plain = GhostConv(6, 7, ratio=1, act="none").eval()
    torch.testing.assert_close(plain(x), plain.primary_conv(x))
    assert sum(isinstance(m, nn.Conv2d) for m in plain.modules()) == 1
