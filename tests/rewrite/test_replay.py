# SPDX-License-Identifier: Apache-2.0
"""Edits of all kinds, applied in order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chipfit.errors import BadInput, UnknownName
from chipfit.rewrite import Edit, Scale, Swap, remaining, replay, rewrite_from_json


class Stages(nn.Module):
    """The least that can be scaled."""

    def __init__(self, widths=(4, 8), depths=(1, 2)):
        super().__init__()
        self.widths, self.depths = tuple(widths), tuple(depths)
        layers, before = [], 3
        for width, depth in zip(widths, depths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(before, width, 1))
                before = width
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x)

    def scaled(self, widths, depths):
        return Stages(widths, depths)


NARROW = [Edit("body.0", "out", 4, (0, 2)), Edit("body.1", "in", 4, (0, 2))]
SWAP = Swap("body.2", "pre_activation_conv", 8, 8, options={"act": "relu"})


@pytest.mark.parametrize("edit", [NARROW[0], SWAP, Scale((4, 4), (2, 2))], ids=lambda e: type(e))
def test_edits_survive_json(edit):
    assert rewrite_from_json(edit.to_json()) == edit


def test_edits_apply_in_order_and_leave_the_original_alone():
    net = Stages().eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    built = replay(net, [Scale((4, 8), (1, 3)), *NARROW, SWAP])
    assert built(torch.zeros(1, 3, 5, 5)).shape == (1, 8, 5, 5)
    assert len(built.body) == 4
    assert built.body[0].out_channels == 2
    assert type(built.body[2]).__name__ == "PreActivationConv"
    assert not built.training
    assert not any(m.training for m in built.modules())
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())


def test_a_swap_takes_over_the_type():
    net = Stages().double()
    assert replay(net, [SWAP]).body[2].conv[0][0].weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ([SWAP], [SWAP], []),
        ([], [SWAP], [SWAP]),
        ([*NARROW, SWAP], [*NARROW, SWAP], []),
        ([SWAP, NARROW[0]], [SWAP, *NARROW], [NARROW[1]]),
        ([NARROW[0]], [Edit("body.0", "out", 4, (2,))], [Edit("body.0", "out", 2, (1,))]),
    ],
)
def test_what_remains_to_be_done(before, after, left):
    assert remaining(before, after) == left


def test_a_swap_cannot_be_undone():
    with pytest.raises(BadInput, match="undone"):
        remaining([SWAP], NARROW)


@pytest.mark.parametrize(
    "data",
    [
        {"rewrite": "melt"},
        [],
        {"rewrite": "swap", "module": "a"},
        {"rewrite": "scale", "widths": ["x"], "depths": [1]},
    ],
)
def test_broken_edits_are_refused(data):
    with pytest.raises(BadInput):
        rewrite_from_json(data)


def test_edits_that_do_not_fit_are_refused():
    with pytest.raises(BadInput, match="no such module"):
        replay(Stages(), [Swap("head", "pre_activation_conv", 8, 8)])
    with pytest.raises(UnknownName):
        replay(Stages(), [Swap("body.2", "melted", 8, 8)])
    with pytest.raises(BadInput, match="no option"):
        replay(Stages(), [Swap("body.2", "pre_activation_conv", 8, 8, options={"x": 1})])
    with pytest.raises(BadInput, match="cannot be scaled"):
        replay(nn.Linear(2, 2), [Scale((4,), (1,))])
    with pytest.raises(BadInput, match="stages"):
        replay(Stages(), [Scale((4,), (1,))])
