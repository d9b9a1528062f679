import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from chipfit.cost.predict import predict
from chipfit.cost.table import CostTable
from chipfit.cost.vectorised import VectorisedCost
from chipfit.graph import trace
from chipfit.methods.space_costs import LayerSums, SpaceCosts, costs_of
from chipfit.rewrite.replay import replay
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation, space_of
from chipfit.train.randomness import generator


@pytest.fixture
def costs(problem, toy_net):
    def build(target, key):
        found, _ = problem(target, {key: 0.9})
        net = toy_net(input_shape=found.task.input_shape).eval()
        return SpaceCosts(replace(found, net=net), space_of(net)), found, net

    return build


@pytest.mark.parametrize(("target", "key"), [("analytic", "macs"), ("ethos-u55-128", "cycles")])
def test_expected_cost_is_the_sum_over_all_architectures(costs, target, key):
    found, problem, net = costs(target, key)
    assert found.workload.spliced
    sizes = [len(c.options) for c in found.space]
    codes = np.array(list(itertools.product(*map(range, sizes))))
    prices = found.of(key)(codes)
    expectation = found.expectation(key)
    if target != "analytic":
        assert isinstance(expectation, LayerSums)
    for seed in range(3):
        logits = [
            torch.randn(s, generator=generator(seed, i), dtype=torch.float64)
            for i, s in enumerate(sizes)
        ]
        logits = [v.requires_grad_() for v in logits]
        p = [torch.softmax(v, 0) for v in logits]
        weight = torch.stack([torch.stack([q[i] for q, i in zip(p, row)]).prod() for row in codes])
        want = (weight * torch.as_tensor(prices, dtype=torch.float64)).sum()
        got = expectation(p)
        assert got.item() == pytest.approx(want.item(), rel=1e-9)
        for a, b in zip(
            torch.autograd.grad(got, logits, retain_graph=True),
            torch.autograd.grad(want, logits),
            strict=True,
        ):
            assert torch.allclose(a, b, rtol=1e-7, atol=1e-9 * want.item())
    for row, price in zip(codes, prices):
        one_hot = [torch.eye(s, dtype=torch.float64)[i] for s, i in zip(sizes, row)]
        assert float(expectation(one_hot)) == pytest.approx(float(price), rel=1e-9)
    drawn = np.random.default_rng(0).integers(0, sizes, (20000, len(sizes)))
    even = [torch.full((s,), 1.0 / s, dtype=torch.float64) for s in sizes]
    assert found.of(key)(drawn).mean() == pytest.approx(float(expectation(even)), rel=0.01)
    row = codes[-2]
    built = replay(net, found.block_space.edits(found.names(row))).eval()
    workload = trace(built, problem.example)
    assert [n.op for n in workload.nodes] == [n.op for n in found.workload(found.names(row)).nodes]
    whole = predict(workload, problem.target, problem.table).total
    assert whole[key] == pytest.approx(prices[-2], rel=1e-9)


def test_keeping_all_is_the_network_itself(costs):
    found, problem, net = costs("analytic", "macs")
    kept = found.predicted([{c.name: KEEP for c in found.block_space}])[0]
    assert kept["macs"] == trace(net, problem.example).macs


def test_a_place_that_is_no_separate_part_is_built_and_traced(problem, toy_net):
    """A convolution whose batch norm stands outside of the place cannot be cut out."""
    found, _ = problem("analytic", {"macs": 0.9})
    net = toy_net(input_shape=found.task.input_shape).eval()
    place = next(n for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d))
    blocks = BlockSpace((BlockChoice("stem", (place,), (Operation(KEEP),)), *space_of(net).choices))
    costs = SpaceCosts(replace(found, net=net), blocks)
    assert not costs.workload.spliced
    row = [0] * len(costs.space)
    assert costs.networks([row])[0]["macs"] == trace(net, found.example).macs


def test_prices_are_asked_for_until_none_is_missing(costs, monkeypatch, tmp_path):
    """What pricing some architectures teaches may leave others without a price."""
    _, problem, net = costs("ethos-u55-128", "cycles")
    with CostTable(tmp_path / "new.sqlite") as table:
        problem = replace(problem, net=net, table=table)
        _asked_in_halves(SpaceCosts(problem, space_of(net)), monkeypatch)


def _asked_in_halves(found, monkeypatch):
    codes = np.array(list(itertools.product(*(range(len(c.options)) for c in found.space))))
    fill, asked = VectorisedCost.fill, []

    def half(self, rows, *rest, **named):
        asked.append(len(rows))
        return fill(self, rows[: max(1, len(rows) // 2)], *rest, **named)

    monkeypatch.setattr(VectorisedCost, "fill", half)
    prices = found.of("cycles")(codes)
    assert len(asked) > 1
    assert np.isfinite(prices).all()


def test_copies_of_a_problem_share_costs_but_not_across_calibrations(costs):
    found, problem, net = costs("ethos-u55-128", "cycles")
    problem, blocks = replace(problem, net=net), found.block_space
    shared = costs_of(problem, blocks)
    assert costs_of(replace(problem, seed=9, options={"a": 1}), space_of(net)) is shared
    assert costs_of(replace(problem, calibration=2.0), blocks) is not shared
    some = BlockSpace(blocks.choices[:1])
    assert len(costs_of(problem, some).space) == 1
