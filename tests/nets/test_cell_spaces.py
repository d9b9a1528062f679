# SPDX-License-Identifier: Apache-2.0
"""Networks of cells and the spaces that they carry."""

import random

import pytest
import torch
from torch import nn

from chipfit.blocks.registry import create_block
from chipfit.blocks.skip import Zero
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.nets import create
from chipfit.nets.darts_cell import FOUND, OPERATIONS, Cell, read_cell
from chipfit.rewrite.replay import replay
from chipfit.space import nas_bench_201 as table
from chipfit.space.blocks import space_of
from chipfit.space.node_rule import NodeRule, node_rule_of
from chipfit.supernet.supernet import Supernet

SMALL = {"size": "small", "channels": 4, "input_shape": (1, 1, 12, 12), "num_classes": 3}
NAMES = ("darts_space", "nas_bench_201_space")


def small(name, **options):
    if name == "darts_space":
        return create(name, **{**SMALL, **options})
    return create(name, cells=1, input_shape=(1, 1, 8, 8), num_classes=3, **options)


def drawn(space, seed):
    return space.search_space.sample(random.Random(seed))


def test_the_cells_found_have_the_published_size():
    net = create("darts_space", cells=20, channels=36)
    # The authors' log of this network without its auxiliary head says 3.349342 MB.
    assert sum(p.numel() for p in net.parameters()) == 3_349_342
    assert node_rule_of(net).holds(current(net))


def current(net):
    """Read the operations back from the modules, independently of the space."""
    found = {}
    for cell in net.cells:
        for edge, module in cell.edges.items():
            kind = "reduce" if cell.reduction else "normal"
            found[f"{kind}.{edge}"] = "none" if isinstance(module, Zero) else type(module).__name__
    return found


def test_the_published_space_has_14_edges_of_8_operations_in_both_cells():
    net = create("darts_space")
    space = space_of(net)
    assert [len(c.operations) for c in space] == [8] * 28
    normal, reduce = [c for c in space if c.name.startswith("normal")], list(space)[14:]
    assert {len(c.places) for c in normal} == {6}
    assert {len(c.places) for c in reduce} == {2}
    assert {c.places[0].split(".")[1] for c in reduce} == {"2"}
    assert [len(own) for own in node_rule_of(net).nodes] == [2, 3, 4, 5] * 2


@pytest.mark.parametrize("name", NAMES)
def test_every_edit_makes_what_the_operation_says(name):
    net = small(name)
    space = space_of(net)
    x = torch.randn(2, *net.input_shape[1:])
    for seed in range(4):
        derived = replay(net, space.edits(drawn(space, seed))).eval()
        with torch.no_grad():
            assert derived(x).shape == (2, 3)
        assert trace(derived, x[:1]).macs >= 0


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_the_architecture_that_its_text_says(name):
    net = small(name)
    space = space_of(net)
    if name == "darts_space":
        edges = {kind: read_cell("+".join(["|sep_conv_3x3~0|sep_conv_3x3~1|"] * 3), 3)
                 for kind in ("normal", "reduce")}  # fmt: skip
        own = {c.name: edges[c.name.split(".")[0]].get(c.name.split(".")[1], "none")
               for c in space}  # fmt: skip
    else:
        cell = table.cell_space().smallest()
        net = small(name, cell=table.cell_text(cell))
        own = dict(cell)
    derived = replay(net, space.edits(own))
    derived.load_state_dict(net.state_dict())
    x = torch.randn(2, *net.input_shape[1:])
    assert torch.equal(derived.eval()(x), net.eval()(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_a_supernet_fixed_to_an_architecture_computes_what_is_derived(name, seed):
    net = small(name)
    space = space_of(net)
    supernet = Supernet(net, space, seed=seed).double()
    for norm in supernet.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.bias)  # what stands behind an absent edge would show
    architecture = drawn(space, seed)
    if seed == 0:  # a node without edges
        last = {"normal.0-3", "normal.1-3", "normal.2-3"} & set(architecture)
        architecture = architecture.with_options(dict.fromkeys(last or {"0-1"}, "none"))
    derived = supernet.derive(net.double(), architecture)
    supernet.fix(architecture)
    x = torch.randn(2, *net.input_shape[1:], dtype=torch.float64)
    torch.testing.assert_close(derived.train()(x), supernet.train()(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(derived.eval()(x), supernet.eval()(x), rtol=1e-10, atol=1e-10)


def test_a_node_without_edges_is_zero_and_halves_where_its_cell_does():
    for reduction in (False, True):
        cell = Cell({"0-3": "sep_conv_3x3"}, 2, (4, 4), 4, reduction, False).eval()
        y = cell(torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6))
        assert y.shape == (1, 8, 3 if reduction else 6, 3 if reduction else 6)
        assert not y[:, :4].any() and y[:, 4:].any()


def test_absent_edges_cost_nothing_and_their_additions_neither():
    net = small("darts_space")
    space = space_of(net)
    every = {c.name: "skip_connect" for c in space}
    x = torch.zeros(net.input_shape)
    names = [n.name for n in trace(replay(net, space.edits(every)), x).nodes]
    fewer = replay(net, space.edits({**every, "normal.0-4": "none", "normal.3-4": "none"}))
    left = [n.name for n in trace(fewer, x).nodes]
    assert len(names) - len(left) == 2  # an addition each; a skip is no operator
    elsewhere = [[n for n in own if "cells.0.sums.4" not in n] for own in (names, left)]
    assert elsewhere[0] == elsewhere[1]


def test_images_of_odd_size_and_other_numbers():
    net = small("darts_space", input_shape=(1, 1, 11, 9), cells=4, nodes=2,
                operations="none+avg_pool_3x3+sep_conv_5x5")  # fmt: skip
    assert net.eval()(torch.zeros(2, 1, 11, 9)).shape == (2, 3)
    assert [len(c.operations) for c in space_of(net)] == [3] * 10


def test_the_space_of_nas_bench_201_is_that_of_its_table():
    net = create("nas_bench_201_space")
    space = space_of(net).search_space
    assert [(c.name, c.options) for c in space] == [(c.name, c.options) for c in table.cell_space()]
    assert {len(c.places) for c in space_of(net)} == {15}
    for seed in range(3):
        cell = drawn(space_of(net), seed)
        derived = replay(net, space_of(net).edits(cell))
        plain = create("nas_bench_201", cell=table.cell_text(cell))
        assert {k: v.shape for k, v in derived.state_dict().items()} == {
            k: v.shape for k, v in plain.state_dict().items()
        }


@pytest.mark.parametrize(
    "text", ["", "|sep_conv_3x3~0|", FOUND["normal"][:-1], FOUND["normal"].replace("~1", "~2", 1),
             FOUND["normal"].replace("sep", "sap"), FOUND["normal"].replace("~1", "~0", 1),
             FOUND["normal"] + "+|none~0|"],
)  # fmt: skip
def test_other_cells_are_refused(text):
    with pytest.raises(BadInput, match="cell"):
        read_cell(text, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": "large"}, "large"), ({"cells": 2}, "2 cells"), ({"channels": 5}, "5 channels"),
     ({"operations": "sep_conv_3x3+skip_connect"}, "none and others"),
     ({"operations": "none+none"}, "none and others"), ({"normal": "|none~0|"}, "1 nodes")],
)  # fmt: skip
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        create("darts_space", **options)


def test_a_rule_counts_edges_and_refuses_nonsense():
    rule = NodeRule((("a", "b"), ("c", "d", "e")))
    assert rule.holds(dict(a="x", b="x", c="x", d="none", e="y"))
    assert not rule.holds(dict(a="x", b="x", c="x", d="z", e="y"))
    assert not rule.holds(dict(a="x", b="none", c="x", d="none", e="y"))
    with pytest.raises(BadInput):
        NodeRule(())
    net = nn.Identity()
    assert node_rule_of(net) is None
    net.decode_nodes = 2
    with pytest.raises(BadInput, match="NodeRule"):
        node_rule_of(net)


def test_a_reduction_needs_channels_that_can_be_halved():
    with pytest.raises(BadInput, match="even number"):
        create_block("factorised_reduce", 4, 5, 2)
    assert set(OPERATIONS) > {"none", "skip_connect"}
