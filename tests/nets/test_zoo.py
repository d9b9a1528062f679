# SPDX-License-Identifier: Apache-2.0
import inspect

import pytest
import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ConvBNAct, same_padding
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.errors import BadInput, UnknownName
from chipfit.nets import NETS, create


def macs_of(net: nn.Module) -> int:
    """Count by hooks, independently of chipfit.graph."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += output.numel() * module.in_channels // module.groups * kernel
        else:
            total += output.numel() * module.in_features

    handles = [
        m.register_forward_hook(count) for m in net.modules() if type(m) in (nn.Conv2d, nn.Linear)
    ]
    with torch.no_grad():
        net.eval()(torch.zeros(net.input_shape))
    for handle in handles:
        handle.remove()
    return total


def test_mobilenet_v2_has_torchvisions_keys():
    state = create("mobilenet_v2").state_dict()
    assert len(state) == 314
    expected = {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_var": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.2.conv.3.num_batches_tracked": (),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.18.0.weight": (1280, 320, 1, 1),
        "features.18.1.weight": (1280,),
        "classifier.1.weight": (1000, 1280),
        "classifier.1.bias": (1000,),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected


def test_resnet18_has_torchvisions_keys():
    state = create("resnet18").state_dict()
    assert len(state) == 122
    assert tuple(state["layer2.0.downsample.0.weight"].shape) == (128, 64, 1, 1)
    assert tuple(state["conv1.weight"].shape) == (64, 3, 7, 7)


def test_tiny_is_tiny_and_has_many_widths_to_choose():
    net = create("tiny_mobilenet_v2")
    blocks = [m for m in net.modules() if isinstance(m, InvertedResidual)]
    assert any(block.residual for block in blocks)
    # Groups of channels: stem, head, every expansion, and every stage width, tied by residuals.
    expansions = [b for b in blocks if len(b.conv) == 4]
    assert 2 + len(expansions) + len({b.conv[-1].num_features for b in blocks}) >= 8
    assert 20_000 < sum(p.numel() for p in net.parameters()) < 120_000
    assert 1e6 < macs_of(net) < 4e6


@pytest.mark.parametrize("entry", list(NETS), ids=lambda entry: entry.name)
def test_every_net_takes_classes_channels_and_size(entry):
    assert entry.summary
    assert entry.source
    if "num_classes" not in inspect.signature(entry.value).parameters:
        net = create(entry.name, input_shape=(1, 1, 31, 32)).eval()
        assert net.input_shape == (1, 1, 31, 32)
        with torch.no_grad():
            assert net(torch.zeros(2, 1, 31, 32)).shape == (2, 1, 62, 64)
        with pytest.raises(BadInput, match="no classes"):
            create(entry.name, num_classes=7)
        return
    net = create(entry.name, num_classes=7, input_shape=(1, 2, 32, 32)).eval()
    assert net.input_shape == (1, 2, 32, 32)
    with torch.no_grad():
        assert net(torch.zeros(2, 2, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("size", [8, 9, 28, 31, 32])
def test_tiny_takes_sizes_of_8_to_32(size):
    net = create("tiny_mobilenet_v2", in_channels=3, input_shape=(1, 3, size, size)).eval()
    assert net(torch.zeros(1, 3, size, size)).shape == (1, 10)


def test_weights_depend_on_the_seed_alone_and_leave_the_global_stream():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (create("tiny_mobilenet_v2", seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_gives_ceil_of_size_over_stride(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert after - before in (0, 1)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    block = ConvBNAct(3, 4, kernel, stride, same_size=(size, size + 1)).eval()
    expected = (1, 4, -(-size // stride), -(-(size + 1) // stride))
    assert block(torch.zeros(1, 3, size, size + 1)).shape == expected


def test_wrong_options_are_refused_with_the_right_ones():
    with pytest.raises(UnknownName, match="mobilenet_v2"):
        create("mobilnet_v2")
    with pytest.raises(BadInput, match="widht"):
        create("mobilenet_v2", widht=0.5)
    with pytest.raises(BadInput, match="8 to 64"):
        create("tiny_mobilenet_v2", input_shape=(1, 1, 7, 28))
    with pytest.raises(BadInput, match="in_channels"):
        create("mobilenet_v2", in_channels=1, input_shape=(1, 3, 224, 224))
    with pytest.raises(BadInput, match="width"):
        create("tiny_mobilenet_v2", width=0.0)


def test_width_scales_to_multiples_of_eight():
    half = create("mobilenet_v2", width=0.5)
    widths = {m.out_channels for m in half.modules() if isinstance(m, nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths)
    assert sum(p.numel() for p in half.parameters()) == 1_968_680
