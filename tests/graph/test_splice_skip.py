# SPDX-License-Identifier: Apache-2.0
"""Pieces without operators, and what is fused over the seams that they leave."""

import itertools

import pytest
import torch
from torch import nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.inverted_residual import InvertedResidual
from chipfit.blocks.skip import Skip
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.splice import Piece, splice, trace_piece
from chipfit.rewrite import Swap, replay

SHAPE = (1, 8, 6, 6)


class Body(nn.Module):
    """Blocks in a row, then what a test wants behind them; the input is added at the end."""

    def __init__(self, *tail):
        super().__init__()
        self.stem = ConvBNAct(8, 8, 3, act="none")
        self.blocks = nn.Sequential(*(InvertedResidual(8, 8, 16) for _ in range(3)))
        self.tail = nn.Sequential(*tail)

    def forward(self, x):
        return x + self.tail(self.blocks(self.stem(x)))


def _old(workload, names):
    found = {}
    for name in names:
        nodes = tuple(n for n in workload.nodes if f"{n.name}.".startswith(f"{name}."))
        found[name] = Piece(nodes, nodes[0].inputs[0], nodes[-1].output)
    return found


def _skips(names):
    return {name: Swap(name, "skip", 8, 8) for name in names}


def test_a_skip_has_no_operator():
    piece = trace_piece(Skip(8, 8), SHAPE, "b")
    assert piece.nodes == ()
    assert piece.source == piece.result


@pytest.mark.parametrize(
    "tail",
    [
        (nn.Conv2d(8, 8, 1),),
        (nn.ReLU(), nn.Conv2d(8, 8, 1)),
        (nn.BatchNorm2d(8), nn.Hardswish()),
        (),
    ],
    ids=["conv", "act", "norm-act", "nothing"],
)
def test_any_blocks_can_be_skipped(tail):
    net = Body(*tail).eval()
    x = torch.zeros(SHAPE)
    workload = trace(net, x)
    names = ["blocks.0", "blocks.1", "blocks.2"]
    old, swaps = _old(workload, names), _skips(names)
    pieces = {n: trace_piece(swaps[n].build().eval(), SHAPE, n) for n in names}
    for chosen in itertools.product((False, True), repeat=3):
        some = [n for n, on in zip(names, chosen, strict=True) if on]
        if "blocks.2" in some and tail and isinstance(tail[0], nn.ReLU):
            # The block's sum carries the ReLU that stands behind it.
            with pytest.raises(BadInput, match="tail.0 runs in the last operator of blocks.2"):
                splice(workload, old, {n: pieces[n] for n in some})
            continue
        found = splice(workload, old, {n: pieces[n] for n in some})
        wanted = trace(replay(net, [swaps[n] for n in some]), x)
        assert found.key == wanted.key
        assert [n.name for n in found.nodes] == [n.name for n in wanted.nodes]
        assert (found.macs, found.parameter_count) == (wanted.macs, wanted.parameter_count)


def test_an_activation_at_the_beginning_of_a_block_joins_what_is_before_it():
    net, x = Body(nn.Conv2d(8, 8, 1)).eval(), torch.zeros(SHAPE)
    workload = trace(net, x)
    new = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)).eval()
    pieces = {n: trace_piece(new, SHAPE, n) for n in ("blocks.0", "blocks.1")}
    found = splice(workload, _old(workload, pieces), pieces)
    for name in pieces:
        net.set_submodule(name, new)
    wanted = trace(net, x)
    assert found.key == wanted.key
    assert [n.op.activation for n in found.nodes] == [n.op.activation for n in wanted.nodes]
    assert found.nodes[0].op.activation == "relu"


def test_the_network_may_read_its_input_again_behind_the_block():
    """A piece's input is often called like the network's."""
    net, x = Body(nn.Conv2d(8, 8, 1)).eval(), torch.zeros(SHAPE)
    workload = trace(net, x)
    piece = trace_piece(InvertedResidual(8, 8, 24).eval(), SHAPE, "blocks.1")
    assert piece.source in workload.inputs
    found = splice(workload, _old(workload, ["blocks.1"]), {"blocks.1": piece})
    assert workload.inputs[0] in found.nodes[-1].inputs


def test_a_skip_cannot_stand_where_the_shape_changes():
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)).eval()
    workload = trace(net, torch.zeros(SHAPE))
    piece = trace_piece(Skip(8, 8), SHAPE, "1")
    with pytest.raises(BadInput, match="another shape"):
        splice(workload, _old(workload, ["1"]), {"1": piece})


def test_nothing_can_be_put_where_nothing_runs():
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Identity()).eval()
    workload = trace(net, torch.zeros(SHAPE))
    old = {"1": Piece((), workload.outputs[0], workload.outputs[0])}
    with pytest.raises(BadInput, match="runs no operator"):
        splice(workload, old, {"1": trace_piece(Skip(8, 8), SHAPE, "1")})
