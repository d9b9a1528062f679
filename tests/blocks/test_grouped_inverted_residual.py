# SPDX-License-Identifier: Apache-2.0
"""FBNet's block: the shuffle lets every output see every group."""

import torch
from torch import nn

from chipfit.blocks.grouped_inverted_residual import ChannelShuffle, GroupedInvertedResidual
from chipfit.blocks.inverted_residual import InvertedResidual


def test_the_shuffle_interleaves_groups_and_undoes_itself():
    x = torch.arange(12.0).reshape(1, 6, 2, 1)
    y = ChannelShuffle(2)(x)
    assert y[0, :, 0, 0].tolist() == [0, 6, 2, 8, 4, 10]
    assert y[0, :, 1, 0].tolist() == [1, 7, 3, 9, 5, 11]
    assert torch.equal(ChannelShuffle(3)(y), x)


def test_every_output_depends_on_both_groups():
    torch.manual_seed(0)
    block = GroupedInvertedResidual(8, 12, groups=2, expansion=2, act="hardswish").double().eval()
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    for channel in range(12):
        (grad,) = torch.autograd.grad(block(x)[0, channel].sum(), x)
        assert (grad.abs().sum((0, 2, 3)) > 0).view(2, 4).any(1).all()


def test_one_group_is_the_inverted_residual_and_keeps_its_expansion_at_1():
    torch.manual_seed(0)
    ours = GroupedInvertedResidual(8, 8, groups=1, expansion=3, act="relu").double().eval()
    theirs = InvertedResidual(8, 8, expansion=3, act="relu").double().eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    single = GroupedInvertedResidual(8, 8, groups=1)
    assert sum(isinstance(m, nn.Conv2d) for m in single.modules()) == 3
