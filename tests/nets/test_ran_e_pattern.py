import pytest
import torch
from torch import nn

from chipfit.blocks.fused_inverted_residual import FusedInvertedResidual
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.blocks.pre_activation_conv import PreActivationConv
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.nets import create
from chipfit.nets.ran_e import LITE0, RAN_E_C, RAN_E_GT, SKELETONS
from chipfit.nets.ran_e_pattern import BlockKind, Pattern


def shapes(name, **options):
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in create(name, **options).state_dict().items()}


@pytest.mark.parametrize(
    "text", [RAN_E_GT, RAN_E_C, LITE0, "3c.h_i5x6.r6_f3x2.r_head.r6", "c5_c7.h_12i3x1", "f7x4"]
)
def test_patterns_are_written_as_they_are_read(text):
    pattern = Pattern.parse(text)
    assert str(pattern) == text
    assert Pattern.of(map(str, pattern.blocks)).blocks == pattern.blocks


def test_a_pattern_names_its_blocks():
    pattern = Pattern.parse("2c_i5x6.r6_f3x2_head.h")
    assert pattern.blocks == (
        BlockKind("c"), BlockKind("c"), BlockKind("i", 5, 6, "relu6"), BlockKind("f", 3, 2)
    )  # fmt: skip
    assert pattern.head == "hardswish"


@pytest.mark.parametrize(
    "text",
    ["", "c_", "0c", "i5", "i4x6", "x3", "i5x0", "c.s", "head.h", "head.h_c", "c_head", "ci3x2"],
)
def test_what_cannot_be_read_is_named(text):
    with pytest.raises(BadInput, match="cannot read"):
        Pattern.parse(text)


@pytest.mark.parametrize(("name", "text"), [("ran_e_gt", RAN_E_GT), ("ran_e_c", RAN_E_C)])
def test_published_networks_are_patterns(name, text):
    assert shapes(f"ran_e:pattern={text}") == shapes(name)


def test_the_lite0_skeleton_is_efficientnet_lite0():
    with torch.device("meta"):
        ours = create("ran_e", pattern=LITE0, skeleton="lite0", activation="relu6")
        theirs = create("efficientnet_lite0")

    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(ours) == count(theirs) == 4_652_008
    example = torch.zeros(1, 3, 64, 64)
    options = {"input_shape": (1, 3, 64, 64)}
    ours = create("ran_e", pattern=LITE0, skeleton="lite0", activation="relu6", **options)
    assert [n.op for n in trace(ours.eval(), example).nodes] == [
        n.op for n in trace(create("efficientnet_lite0", **options).eval(), example).nodes
    ]


def test_blocks_are_what_the_pattern_says():
    net = create("ran_e:pattern=c.r_i5x2_f3x4.r6_3c_head.h,skeleton=six_28,activation=relu6")
    kinds = [type(block) for block in net.blocks]
    assert kinds == [PreActivationConv, InvertedResidual, FusedInvertedResidual] + (
        [PreActivationConv] * 3
    )
    assert isinstance(net.blocks[0].act, nn.ReLU)
    assert isinstance(net.blocks[3].act, nn.ReLU6)
    depthwise = next(m for m in net.blocks[1].modules() if getattr(m, "groups", 1) > 1)
    assert (depthwise.kernel_size, depthwise.out_channels) == ((5, 5), 16)
    assert isinstance(net.head[0][2], nn.Hardswish)
    assert any(isinstance(m, nn.ReLU6) for m in net.stem)


def test_a_residual_block_of_128_channels_narrows_inside():
    for part in ("c", "i3x6"):
        pattern = f"9c_{part}_6c"
        block = shapes(f"ran_e:pattern={pattern}")
        halves = {k: s for k, s in block.items() if k.startswith("blocks.9.")}
        assert (128, 64, 3, 3) in halves.values() or (64, 768, 1, 1) in halves.values()
    fused = shapes("ran_e:pattern=9c_f3x1_6c")
    assert (128, 128, 3, 3) in [s for k, s in fused.items() if k.startswith("blocks.9.")]


def test_widths_are_multiplied_to_multiples_of_8():
    net = create("ran_e", skeleton="ran_e_32", width=0.5, input_shape=(1, 3, 32, 32))
    widths = {m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)}
    assert all(width % 8 == 0 for width in widths)
    assert net.classifier[1].in_features == SKELETONS["ran_e_32"].scaled(0.5).head
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ran_e:pattern=15c", "15 blocks"),
        ("ran_e:skeleton=bones", "bones"),
        ("ran_e:width=0.0", "width"),
        ("ran_e:pattern=16q", "16q"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(name, message):
    with pytest.raises(BadInput, match=message):
        create(name)
