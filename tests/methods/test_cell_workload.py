# SPDX-License-Identifier: Apache-2.0
"""Costs of networks of cells, whose edges may be absent."""

import random

import numpy as np
import pytest
import torch

from chipfit.graph import trace
from chipfit.methods.cell_decode import rule_rows, rule_within, strongest
from chipfit.methods.layer_figures import LayerFigures
from chipfit.methods.space_workload import SpaceWorkload
from chipfit.nets import create
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP, space_of
from chipfit.space.choice import Choice, SearchSpace
from chipfit.space.node_rule import NodeRule, node_rule_of


@pytest.fixture(scope="module")
def cells():
    net = create("darts_space", size="small", nodes=2, input_shape=(1, 1, 12, 12),
                 operations="none+max_pool_3x3+skip_connect+sep_conv_3x3").eval()  # fmt: skip
    return net, SpaceWorkload(net, torch.zeros(net.input_shape), space_of(net))


def random_cells(space, seed, none=0):
    rng = random.Random(seed)
    return {c.name: rng.choice(c.operations + (c["none"],) * none).name for c in space}


@pytest.fixture(scope="module")
def bench():
    net = create("nas_bench_201_space", cells=1, input_shape=(1, 1, 8, 8)).eval()
    return net, SpaceWorkload(net, torch.zeros(net.input_shape), space_of(net))


@pytest.mark.parametrize("which", ["cells", "bench"])
@pytest.mark.parametrize("seed", range(6))
def test_put_together_it_is_what_building_and_tracing_gives(request, which, seed):
    net, workload = request.getfixturevalue(which)
    space = space_of(net)
    assert workload.spliced
    given = random_cells(space, seed, none=seed % 3 * 4)  # down to nodes without edges
    found = workload(given)
    built = trace(replay(net, space.edits(given)).eval(), torch.zeros(net.input_shape))
    assert [node.op for node in found.nodes] == [node.op for node in built.nodes]
    assert found.macs == built.macs


def test_kept_places_are_the_network_itself(cells):
    net, workload = cells
    found = workload({c.name: KEEP for c in space_of(net)})
    built = trace(net, torch.zeros(net.input_shape))
    assert [node.op for node in found.nodes] == [node.op for node in built.nodes]


def test_counts_of_layers_are_those_of_networks_and_their_sum_is_local(cells):
    net, workload = cells
    space = space_of(net)
    names = [[o.name for o in c.operations] for c in space]

    def of(row):
        return workload({c.name: own[i] for c, own, i in zip(space, names, row, strict=True)})

    sizes = [len(own) for own in names]
    layers = LayerFigures(sizes, of, lambda op: float(op.macs))
    codes = np.random.default_rng(3).integers(0, sizes, (40, len(sizes)))
    assert layers.cost(codes).tolist() == [float(of(row).macs) for row in codes]
    assert max(len(slot.choices) for slot in layers.slots) <= 5


RULE = NodeRule((("a", "b"), ("c", "d", "e")))
SPACE = SearchSpace(tuple(Choice(n, ("none", "skip", "conv")) for n in "abcde"))
P = [np.array(p) for p in ([0.9, 0.06, 0.04], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4],
                           [0.05, 0.5, 0.45])]  # fmt: skip


def test_the_strongest_edges_stay_whatever_none_says():
    found = strongest(SPACE, P, RULE)
    assert found == {"a": "skip", "b": "skip", "c": "conv", "d": "none", "e": "skip"}
    assert RULE.holds(found)


class Figures:
    """Convolutions cost 10, skips 1."""

    space = SPACE

    def of(self, key):
        return lambda codes: np.array([0.0, 1.0, 10.0])[codes].sum(1)

    def row(self, architecture):
        return tuple(c.options.index(architecture[c.name]) for c in self.space)


def test_without_pressure_the_papers_choice_comes_first():
    rows = rule_rows(Figures(), P, {"macs": 100.0}, RULE, 3, 0.0)
    assert rows[0] == Figures().row(strongest(SPACE, P, RULE))
    assert len(rows) == 3
    names = [dict(zip("abcde", [SPACE["a"].options[i] for i in row], strict=True)) for row in rows]
    assert all(RULE.holds(one) for one in names)


def test_a_budget_leaves_the_most_probable_cells_that_keep_the_rule():
    rows = rule_rows(Figures(), P, {"macs": 12.0}, RULE, 1, 0.0)
    assert rows == [(1, 1, 0, 1, 1)]  # the convolution goes, and its edge for the next one
    rows = rule_rows(Figures(), P, {"macs": 32.0}, RULE, 1, 0.95)
    (row,) = rows
    assert 30.4 <= Figures().of("macs")(np.array([row]))[0] <= 32


def test_a_rule_shrinks_with_its_space():
    fewer = SearchSpace(SPACE.choices[:4])
    assert rule_within(fewer, RULE).nodes == (("a", "b"),)
    assert rule_within(SearchSpace(SPACE.choices[:1]), RULE) is None
    assert rule_within(SPACE, None) is None


def test_darts_keeps_two_edges_of_every_node_within_the_budget(problem):
    from dataclasses import replace

    from chipfit.methods.base import METHODS

    found, run = problem("analytic", {"macs": 0.8}, net_name="darts_space:size=small,channels=4,"
                         "nodes=2,operations=none+skip_connect+sep_conv_3x3+dil_conv_3x3")  # fmt: skip
    options = {"search_steps": 3, "batch_size": 8, "val_images": 20, "proposals": 2}
    method = METHODS.get("darts").value()
    (member,) = method.search(replace(found, options=options), run)
    assert node_rule_of(found.net).holds(member.architecture)
    limit = found.budget.limits["macs"]
    assert 0.95 * limit <= member.predicted["macs"] <= limit
    net = member.build(found.net, run.folder)
    assert trace(net, found.example).macs == member.predicted["macs"]
