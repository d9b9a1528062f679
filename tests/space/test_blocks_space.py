# SPDX-License-Identifier: Apache-2.0
"""The space that is derived from a network."""

import pytest
import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.fused_inverted_residual import FusedInvertedResidual
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.nets import create
from chipfit.rewrite import replay
from chipfit.space import blocks_space


class Mine(nn.Module):
    """An inverted residual of a user's own class."""

    def __init__(self, channels, act):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(channels, 20, 1), nn.BatchNorm2d(20), act())
        self.b = nn.Sequential(nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.BatchNorm2d(20))
        self.c, self.act = nn.Conv2d(20, channels, 1), act()

    def forward(self, x):
        return x + self.c(self.act(self.b(self.a(x))))


def test_tiny_mobilenet():
    net = create("tiny_mobilenet_v2").eval()
    x = torch.zeros(net.input_shape)
    space = blocks_space(net, x, kernels=(3, 5), expansions=(2, 3, 4), keep=("features.4",))
    assert [c.name for c in space] == ["features.1", "features.2", "features.3", "features.5"]
    names = [[o.name for o in c.operations] for c in space]
    # 16 -> 16, expansion 1: keeps its shape.
    assert names[0] == ["keep", "k3_h32", "k3_h48", "k3_h64", "k5_h16", "k5_h32", "k5_h48",
                        "k5_h64", "skip"]  # fmt: skip
    # 16 -> 40, stride 2, expansion 4: 64 hidden channels are kept, and it cannot be dropped.
    assert names[1] == ["keep", "k3_h32", "k3_h48", "k5_h32", "k5_h48", "k5_h64"]
    assert names[2][-1] == "skip"
    assert {o.swaps[0].options["act"] for c in space for o in c.operations[1:-1]} == {"relu6"}
    # What pads SAME goes on doing so.
    assert all(
        o.swaps[0].options["same_size"] == [14, 14] for o in space["features.2"].operations[1:]
    )
    before = trace(net, x)
    for choice in space:
        for operation in choice.operations:
            with torch.no_grad():
                assert replay(net, operation.swaps)(x).shape == (1, 10)
    kept = replay(net, space.edits({c.name: "keep" for c in space}))
    assert trace(kept, x).key == before.key


def test_blocks_of_ones_own_class_and_fused_ones_are_found():
    net = nn.Sequential(
        ConvBNAct(3, 16, 3, 2), Mine(16, nn.ReLU), FusedInvertedResidual(16, 24, 32, act="silu")
    ).eval()
    space = blocks_space(net, torch.zeros(1, 3, 16, 16), expansions=(1.5, 2), alignment=16)
    assert [(c.name, [o.name for o in c.operations]) for c in space] == [
        ("1", ["keep", "k3_h32", "k5_h20", "k5_h32", "skip"]),
        ("2", ["keep", "k5_h32"]),
    ]  # fmt: skip
    assert space["1"]["k5_h32"].swaps[0].block == "inverted_residual"
    fused = space["2"]["k5_h32"].swaps[0]
    assert (fused.block, fused.options["act"]) == ("fused_inverted_residual", "silu")
    less = blocks_space(net, torch.zeros(1, 3, 16, 16), skip=False)
    assert all(o.name != "skip" for c in less for o in c.operations)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "no inverted residual"),
        (create("resnet18", input_shape=(1, 3, 32, 32)), "layer1.0: it is a chain"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), InvertedResidual(8, 16, 24), nn.ReLU()),
            "1: relu stands behind it",
        ),
    ],
)
def test_where_nothing_is_found_the_message_says_why(net, message):
    with pytest.raises(BadInput, match=message) as error:
        blocks_space(net.eval(), torch.zeros(1, 3, 32, 32))
    assert "BlockChoice" in error.value.hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (4,)}, "must be odd"),
        ({"expansions": (0,)}, "must be positive"),
        ({"kernels": (3,), "expansions": (2,), "skip": False, "alignment": 0}, "alignment 0"),
    ],
)
def test_values_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        blocks_space(create("tiny_mobilenet_v2"), torch.zeros(1, 1, 28, 28), **options)
