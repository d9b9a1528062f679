import itertools

import pytest
import torch

import chipfit as cf
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.blocks import find_blocks
from chipfit.graph.splice import Piece, splice, trace_piece
from chipfit.rewrite import Swap, replay


def _pieces(net, example, act):
    workload = trace(net, example)
    blocks, _ = find_blocks(net, example)
    old = {
        b.module: Piece(tuple(workload.by_name[n] for n in b.nodes), b.source, b.result)
        for b in blocks
    }
    swaps = {
        b.module: Swap(b.module, "pre_activation_conv", b.in_channels, b.out_channels, b.stride,
                       {"act": act, "same_size": list(b.in_shape[2:])})
        for b in blocks
    }  # fmt: skip
    new = {
        b.module: trace_piece(swaps[b.module].build().eval(), b.in_shape, b.module) for b in blocks
    }
    return workload, old, swaps, new


@pytest.mark.parametrize("act", ["relu6", "hardswish"])
def test_spliced_workloads_are_those_of_the_built_networks(act):
    net, example = cf.nets.create("tiny_mobilenet_v2").eval(), torch.zeros(1, 1, 28, 28)
    workload, old, swaps, new = _pieces(net, example, act)
    for pattern in itertools.product((False, True), repeat=len(old)):
        chosen = [name for name, on in zip(old, pattern, strict=True) if on]
        found = splice(workload, old, {name: new[name] for name in chosen})
        wanted = trace(replay(net, [swaps[name] for name in chosen]), example)
        assert found.key == wanted.key
        assert [n.name for n in found.nodes] == [n.name for n in wanted.nodes]
        assert (found.macs, found.parameter_count) == (wanted.macs, wanted.parameter_count)


def test_a_block_of_another_shape_is_refused():
    net, example = cf.nets.create("tiny_mobilenet_v2").eval(), torch.zeros(1, 1, 28, 28)
    workload, old, _, _ = _pieces(net, example, "relu6")
    wrong = Swap("features.3", "pre_activation_conv", 40, 48).build().eval()
    piece = trace_piece(wrong, (1, 40, 7, 7), "features.3")
    with pytest.raises(BadInput, match="another shape"):
        splice(workload, old, {"features.3": piece})
