import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph import trace
from chipfit.graph.blocks import find_blocks
from chipfit.methods.base import METHODS
from chipfit.methods.ran_e import RanE, _gates
from chipfit.methods.ran_e_inherit import edits_of, inherit
from chipfit.methods.ran_e_options import block_options, describe
from chipfit.methods.ran_e_plan import make_plan
from chipfit.rewrite import rewrite_from_json
from chipfit.supernet import GatedNetwork

QUICK = {"search_steps": 3, "steps": 2, "proposals": 1, "expansions": [0.5]}
#: Two blocks are enough where only the order of events is at stake.
KEEP = ("features.1", "features.2", "features.5")
SETTINGS = {**RanE.defaults, **QUICK}


def _decisions(candidates):
    return [(c.id, dict(c.architecture), dict(c.predicted), dict(c.metrics)) for c in candidates]


@pytest.fixture(scope="module")
def shaken():
    """A network whose batch norms are not trivial, in double precision, with one odd kernel."""
    net = cf.nets.create("tiny_mobilenet_v2", input_shape=(1, 1, 12, 12))
    draw = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for name, low in (("running_var", 0.5), ("weight", 0.5), ("running_mean", -0.5)):
                value = getattr(module, name).data
                value.copy_(torch.rand(value.shape, generator=draw) + low)
    return net.double().eval()


@pytest.mark.parametrize(("target", "bound"), [
    ("analytic", {"macs": 0.7}),
    ("ethos-u55-128", {"latency_ms": 0.8, "params": 0.95}),
    ("cortex-m4", {"latency_ms": 0.75}),
])  # fmt: skip
def test_members_are_within_their_budgets_and_replay(problem, target, bound):
    asked, run = problem(target, bound, **QUICK)
    family = list(METHODS.get("ran-e").value().search(asked, run))
    assert family
    for key, limit in asked.budget.limits.items():
        assert family[-1].predicted[key] <= limit
    key = asked.budget.keys[0]
    steps = [e for e in run.journal if e["event"] == "step"]
    assert len(steps) == len(family)
    for candidate, event in zip(family, steps, strict=True):
        assert candidate.predicted[key] <= event["constraint"][key]
        net = candidate.build(asked.net, run.folder)
        again = [rewrite_from_json(edit.to_json()) for edit in candidate.edits]
        assert tuple(again) == candidate.edits
        workload = trace(net, asked.example)
        known = {**asked.target.static_cost(workload), **asked.target.cost(workload).total.values}
        assert candidate.predicted[key] == pytest.approx(known[key], rel=0.03)
        saved = sum(change[f"{key}_saved"] for change in candidate.changes)
        start = asked.target.cost(trace(asked.net, asked.example)).total[key]
        assert start - saved == pytest.approx(candidate.predicted[key], rel=0.03)
        assert [c["group"] for c in candidate.changes] == [
            block for block, option in candidate.architecture.items() if option != "keep"
        ]
        found = asked.task.evaluate(net, "val", limit=50)
        assert found["accuracy"] == candidate.metrics["val_accuracy"]


def test_searching_again_recalls_and_an_interrupted_search_goes_on(problem):
    bound, quick = {"macs": 0.8}, {**QUICK, "keep": KEEP, "steps": 1}
    calm_asked, calm_run = problem("analytic", bound, **quick)
    calm = list(RanE().search(calm_asked, calm_run))
    events = len(calm_run.journal.events)
    assert _decisions(RanE().search(calm_asked, calm_run)) == _decisions(calm)
    assert len(calm_run.journal.events) == events

    class Stop(Exception):
        pass

    asked, run = problem("analytic", bound, **quick)
    for word in ("training the gates", "judged the options", "proposal 1 of", "step 1:"):

        def say(line, word=word):
            if word in line:
                raise Stop

        object.__setattr__(asked, "progress", say)
        with pytest.raises(Stop):
            list(RanE().search(asked, run))
    object.__setattr__(asked, "progress", lambda line: None)
    family = list(RanE().search(asked, run))
    assert _decisions(family) == _decisions(calm)
    for one, other in zip(family, calm, strict=True):
        state = other.build(asked.net, calm_run.folder).state_dict()
        mine = one.build(asked.net, run.folder).state_dict()
        assert all(torch.equal(mine[k], state[k]) for k in state)


def test_results_do_not_depend_on_the_number_of_workers(problem):
    found = []
    for workers in (1, 2):
        asked, run = problem("analytic", {"macs": 0.85}, workers=workers, keep=KEEP, **QUICK)
        found.append(_decisions(RanE().search(asked, run)))
    assert found[0] == found[1]


def test_a_tighter_budget_continues_where_the_search_ended(problem):
    asked, run = problem("analytic", {"macs": 0.85}, keep=KEEP, **QUICK)
    first = list(RanE().search(asked, run))
    tighter, _ = problem("analytic", {"macs": 0.7}, keep=KEEP, **QUICK)
    longer = list(RanE().search(tighter, run))
    assert _decisions(longer)[: len(first)] == _decisions(first)
    assert longer[-1].predicted["macs"] <= tighter.budget.limits["macs"]


def test_an_impossible_budget_names_the_cheapest_network(problem):
    asked, run = problem("analytic", {"macs": 0.01}, **QUICK)
    plan_of = problem("analytic", {"macs": 0.9}, **QUICK)[0]
    cheapest = make_plan(plan_of, SETTINGS).cheapest("macs")
    for call in (RanE().check, lambda p: next(RanE().search(p, run))):
        with pytest.raises(InfeasibleBudget, match=re.escape(f"macs={cheapest['macs']:.4g}")):
            call(asked)


def test_wrong_options_and_networks_without_blocks_are_explained(problem):
    with pytest.raises(BadInput, match="steps=0"):
        RanE().check(problem("analytic", {"macs": 0.7}, steps=0)[0])
    asked, _ = problem("analytic", {"macs": 0.7}, **QUICK)
    object.__setattr__(asked, "budget", type(asked.budget)({"latency_ms": 1.0}))
    with pytest.raises(BadInput, match="cannot steer by latency_ms"):
        RanE().check(asked)
    asked, _ = problem("analytic", {"macs": 0.7}, keep=("features",), **QUICK)
    with pytest.raises(BadInput, match="it is to be kept"):
        RanE().check(asked)


def test_predicted_costs_of_all_patterns_are_those_of_the_networks(problem):
    asked, _ = problem("ethos-u55-128", {"latency_ms": 0.8}, **QUICK)
    plan = make_plan(asked, SETTINGS)
    cost = plan.costs.of("latency_ms")
    rng = np.random.default_rng(0)
    sizes = [len(c.options) for c in plan.costs.space]
    rows = rng.integers(0, sizes, (12, len(sizes)))
    found = plan.costs.networks(rows.tolist())
    assert cost(rows).tolist() == [c["latency_ms"] for c in found]
    codes = np.array(list(itertools.product((0, 1), repeat=len(plan.gates))))
    gated = plan.gated_cost("latency_ms", codes)
    assert gated[0] == cost(np.zeros((1, len(sizes)), int))[0]
    assert (plan.gated_cost("latency_ms", np.eye(len(plan.gates), dtype=int)) < gated[0]).all()


def test_derived_networks_equal_the_gated_one_with_its_gates_fixed(shaken):
    example = torch.randn(3, 1, 12, 12, dtype=torch.float64)
    blocks, _ = find_blocks(shaken, example[:1])
    linear = {b.module: (b.kernel, "relu6") for b in blocks}
    gated = GatedNetwork(shaken, blocks, linear, batches=[example]).eval()
    with torch.no_grad():
        for parameter in gated.parameters():
            parameter.mul_(1.0 + 0.01 * torch.rand_like(parameter))
    options = {b.module: block_options(b, 8, {**SETTINGS, "refine": False}) for b in blocks}
    for pattern in itertools.product((0, 1), repeat=len(blocks)):
        chosen = {b.module: options[b.module][i] for b, i in zip(blocks, pattern, strict=True)}
        net = inherit(shaken, gated, blocks, chosen).eval()
        gated.fix({name: not option.linear for name, option in chosen.items()})
        assert (net(example) - gated(example)).abs().max() < 1e-10


def test_smaller_blocks_inherit_what_matters(shaken):
    example = torch.randn(3, 1, 12, 12, dtype=torch.float64)
    blocks, _ = find_blocks(shaken, example[:1])
    block = blocks[2]
    gated = GatedNetwork(shaken, [], {}).eval()
    options = {o.name: o for o in block_options(block, 8, SETTINGS)}
    assert list(options)[:3] == ["keep", "linear k3 relu6", "linear k1 relu6"]
    assert describe(block) == "inverted_residual k3 h120 relu6"
    small = options["keep k3 h64 relu6"]
    # Channels whose filters are zero are those that go, and nothing changes.
    silent = torch.arange(0, 120, 2)[:56]
    expand = gated.net.get_submodule(block.convs[0].module)
    norm = gated.net.get_submodule(block.convs[0].norm)
    after = gated.net.get_submodule(block.convs[1].norm)
    with torch.no_grad():
        expand.weight[silent] = 0
        for module in (norm, after):
            module.bias[silent] = 0
            module.running_mean[silent] = 0
    chosen = {b.module: options["keep"] for b in blocks} | {block.module: small}
    net = inherit(shaken, gated, blocks, chosen).eval()
    assert net.get_submodule(block.module).conv[0][0].out_channels == 64
    assert (net(example) - gated.net(example)).abs().max() < 1e-10
    assert edits_of(chosen) == (small.swap,)


def test_gates_close_until_the_expected_cost_is_within_the_budget(problem):
    found = {}
    for share in (0.5, 0.99):
        asked, run = problem("analytic", {"macs": share}, **QUICK)
        settings = {**SETTINGS, "search_steps": 30, "warmup": 0.0, "learning_rate": 0.02}
        _, log_odds = _gates(asked, run, settings, make_plan(asked, settings))
        found[share] = run.recall("ran-e/gates")["expected"]["macs"], log_odds
    start = trace(asked.net, asked.example).macs
    assert found[0.5][0] < 0.55 * start < found[0.99][0]
    assert sum(found[0.5][1].values()) < sum(found[0.99][1].values())
