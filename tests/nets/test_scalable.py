# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from chipfit.errors import BadInput
from chipfit.nets import create
from chipfit.rewrite.scale import Scalable, Scale

NAMES = [
    "convnext_tiny", "convnext_small", "convnext_base", "ran_i_tiny", "ran_i_small:width_multiple=8",
    "ran_i_base", "resnet18", "resnet18:small_stem=true", "mobilenet_v2:width=0.5",
    "tiny_mobilenet_v2", "efficientnet_lite0:activation=hardswish", "efficientnet_lite1",
    "efficientnet_lite2", "densenet",
]  # fmt: skip


def on_meta(name, **options):
    with torch.device("meta"):
        return create(name, **options)


def shapes(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_scaling_to_its_own_numbers_keeps_every_shape(name):
    net = on_meta(name, num_classes=7, in_channels=2)
    assert isinstance(net, Scalable)
    with torch.device("meta"):
        again = net.scaled(net.widths, net.depths)
    assert shapes(again) == shapes(net)
    assert [type(m) for m in again.modules()] == [type(m) for m in net.modules()]
    assert again.input_shape == net.input_shape


@pytest.mark.parametrize("name", NAMES)
def test_stages_get_the_widths_and_depths_asked_for(name):
    net = on_meta(name, num_classes=7)
    widths = [w + 8 * i for i, w in enumerate(net.widths)]
    depths = [d + (i == 1) for i, d in enumerate(net.depths)]
    with torch.device("meta"):
        other = net.scaled(widths, depths)
        back = other.scaled(net.widths, net.depths)
    assert (list(other.widths), list(other.depths)) == (widths, depths)
    assert shapes(back) == shapes(net)
    x = torch.zeros(1, *net.input_shape[1:], device="meta")
    assert other.eval()(x).shape == (1, 7)
    assert len(list(other.parameters())) > len(list(net.parameters()))


def test_scale_of_the_published_networks_is_the_published_network():
    tiny = on_meta("convnext_tiny")
    ran_i = on_meta("ran_i_small")
    with torch.device("meta"):
        assert shapes(Scale(ran_i.widths, ran_i.depths).apply(tiny)) == shapes(ran_i)
    lite0, lite2 = on_meta("efficientnet_lite0"), on_meta("efficientnet_lite2")
    with torch.device("meta"):
        assert shapes(lite0.scaled(lite2.widths, lite2.depths)) == shapes(lite2)


@pytest.mark.parametrize("name", ["convnext_tiny", "resnet18", "tiny_mobilenet_v2"])
def test_numbers_that_do_not_fit_are_refused(name):
    net = on_meta(name)
    with pytest.raises(BadInput, match="stages"):
        net.scaled(net.widths[:-1], net.depths)
    with pytest.raises(BadInput, match="stages"):
        net.scaled(net.widths, (*net.depths, 1))
    with pytest.raises(BadInput, match="positive"):
        net.scaled(net.widths, (0, *net.depths[1:]))
