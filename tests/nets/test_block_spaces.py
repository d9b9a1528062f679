# SPDX-License-Identifier: Apache-2.0
"""The published search spaces: their sizes, tables and candidates, and that all of it is usable."""

import functools

import pytest
import torch

from chipfit.cost.predict import predict_many
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.splice import trace_piece
from chipfit.methods.space_workload import SpaceWorkload
from chipfit.nets import create
from chipfit.rewrite import replay
from chipfit.space import space_of
from chipfit.targets import create as create_target

SPACES = ("fbnet_space", "gpunet_space", "padnas_basic_space", "padnas_large_space",
          "proxylessnas_space")  # fmt: skip
FBNET = ["k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6"]
BASIC = ["k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6"]
LARGE = [f"k{k}_e{e}" for k in (3, 5, 7) for e in range(1, 7)]
TAIL = [(40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)]
#: Size, candidates but skip, stem, stages (channels, layers, stride), head.
PUBLISHED = {
    "fbnet_space": (
        8**6 * 9**16, FBNET, 16,
        [(16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)],
        1984,
    ),
    "proxylessnas_space": (6**6 * 7**15, BASIC, 32, [(16, 1, 1), (24, 4, 2), *TAIL], 1280),
    "padnas_basic_space": (3 * 6**6 * 7**15, BASIC, 32, [(16, 1, 1), (32, 4, 2), *TAIL], 1280),
    "padnas_large_space": (3 * 18**6 * 19**15, LARGE, 16, [(16, 1, 1), (24, 4, 2), *TAIL], 1280),
}  # fmt: skip


@pytest.fixture(scope="module", params=SPACES)
def small(request):
    return create(request.param, input_shape=(1, 1, 28, 28)).eval()


@pytest.fixture(scope="module")
def spliced(small):
    return SpaceWorkload(small, torch.zeros(small.input_shape), small.block_space)


@functools.cache
def published(name):
    with torch.device("meta"):
        return create(f"{name}:size=imagenet", num_classes=1000, input_shape=(1, 3, 224, 224))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_spaces_have_the_published_numbers(name):
    size, candidates, stem, stages, head = PUBLISHED[name]
    net = published(name)
    space = net.block_space
    assert space.search_space.size == size
    assert getattr(net.stem[0], "0").out_channels == stem
    assert getattr(net.head, "0").out_channels == head
    assert net.classifier[1].out_features == 1000
    channels, rows = stem, []
    for out, repeats, stride in stages:
        for index in range(repeats):
            rows.append((channels, out, stride if index == 0 else 1))
            channels = out
    assert len(net.blocks) == len(rows)
    for choice in space:
        place = int(choice.places[0].removeprefix("blocks."))
        assert choice.name == f"b{place:02d}"
        into, out, stride = rows[place]
        names = [o.name for o in choice.operations]
        first = out == 16 and name != "fbnet_space"
        fits = (into, stride) == (out, 1) and not first
        kernels = ["k3_e1", "k5_e1", "k7_e1"]
        assert names == (kernels if first else candidates) + ["skip"] * fits
        assert {(o.swaps[0].in_channels, o.swaps[0].out_channels, o.swaps[0].stride)
                for o in choice.operations} == {(into, out, stride)}  # fmt: skip


def test_published_sizes_read_as_published():
    assert f"{PUBLISHED['padnas_basic_space'][0]:.2e}" in ("6.64e+17", "6.65e+17")
    assert f"{PUBLISHED['padnas_large_space'][0]:.2e}" == "1.55e+27"
    assert f"{9**22:.0e}" == "1e+21"  # FBNet's count, with skip everywhere
    assert [len(published(n).block_space) for n in PUBLISHED] == [22, 21, 22, 22]


def test_gpunets_skeleton_is_that_of_gpunet_0():
    net = published("gpunet_space")
    assert [b.conv[-1][-1].num_features if hasattr(b.conv[-1], "0") else b.conv[-1].num_features
            for b in net.blocks] == [32] * 2 + [64] * 3 + [256] * 3 + [704] * 2  # fmt: skip
    assert [choice.operations[0].name.split("_")[0] for choice in net.block_space] == (
        ["fused"] * 5 + ["irb"] * 5
    )
    names = [o.name for o in net.block_space["b09"].operations]
    assert len(names) == 2 * 3 * 2 * 2 + 1
    assert {"irb_k5_e2_silu", "irb_k3_e5_relu_se", "skip"} <= set(names)


def test_small_skeletons_are_small(small):
    workload = trace(small, torch.zeros(small.input_shape))
    assert 1e6 < workload.macs < 3.2e6
    assert 6 <= len(space_of(small)) <= 8
    assert len(small.default) == len(small.block_space)


def test_the_skeleton_is_the_architecture_that_it_names(small):
    x = torch.zeros(small.input_shape)
    derived = replay(small, small.block_space.edits(small.default))
    assert trace(derived, x).key == trace(small, x).key
    with torch.no_grad():
        assert derived(x).shape == (1, 10)


def test_every_operation_builds_keeps_the_shape_and_has_a_price(small, spliced):
    """Layers of equal shape have equal operations; each is looked at once."""
    target, table = create_target("cortex-m4"), CostTable()
    assert spliced.spliced
    shapes = _shapes(small)
    seen, workloads = set(), []
    for choice in small.block_space:
        into, out = shapes[choice.places[0]]
        for operation in choice.operations:
            (swap,) = operation.swaps
            key = (into, out, operation.name)
            if key in seen:
                continue
            seen.add(key)
            block = swap.build().eval()
            with torch.no_grad():
                assert block(torch.zeros(into)).shape == out
            piece = trace_piece(block, into, swap.module)
            assert (piece.nodes == ()) == (operation.name == "skip")
            assert not any(n.op.kind == "unsupported" for n in piece.nodes)
            workloads.append(spliced({**small.default, choice.name: operation.name}))
    costs = [found.total for found in predict_many(workloads, target, table)]
    assert all(cost["latency_ms"] > 0 for cost in costs)
    assert [cost["macs"] for cost in costs] == [w.macs for w in workloads]
    assert len({cost["latency_ms"] for cost in costs}) > len(costs) / 2


def test_everything_that_can_be_skipped_can_be_skipped_at_once(small, spliced):
    x = torch.zeros(small.input_shape)
    space = small.block_space
    skipped = {
        c.name: "skip" if "skip" in [o.name for o in c.operations] else small.default[c.name]
        for c in space
    }
    built = trace(replay(small, space.edits(skipped)), x)
    assert [n.op for n in spliced(skipped).nodes] == [n.op for n in built.nodes]
    assert len(built.nodes) < len(trace(small, x).nodes)


def _shapes(net):
    found = {}

    def keep(name):
        def hook(module, inputs, output):
            found[name] = (tuple(inputs[0].shape), tuple(output.shape))

        return hook

    hooks = [m.register_forward_hook(keep(n)) for n, m in net.named_modules() if n]
    with torch.no_grad():
        net(torch.zeros(net.input_shape))
    for hook in hooks:
        hook.remove()
    return found


def test_sizes_that_there_are_not_and_images_that_vanish_are_refused():
    with pytest.raises(BadInput, match="size='tiny'"):
        create("fbnet_space:size=tiny")
    with pytest.raises(BadInput, match="five halvings"):
        create("proxylessnas_space:size=imagenet", input_shape=(1, 3, 32, 32))
