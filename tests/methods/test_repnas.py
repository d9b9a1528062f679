import functools
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.blocks.rep_branches import BRANCHES, RepBranches
from chipfit.blocks.rep_vgg_block import RepVGGBlock
from chipfit.cost.budget import Budget
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph import trace
from chipfit.methods import repnas
from chipfit.methods.repnas import RepNAS
from chipfit.methods.repnas_network import BranchNetwork, merged_network
from chipfit.methods.repnas_places import find_places, with_branches
from chipfit.report.search_journal import read_searches
from chipfit.train.loop import fit_model

QUICK = {"steps": 12, "val_images": 50, "shares": (0.34,)}


def small(*blocks):
    return nn.Sequential(
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )  # fmt: skip


def plain():
    """A network of users' own sequences, one of them with names, and of things that are no place."""
    named = nn.Sequential()
    named.add_module("conv", nn.Conv2d(8, 8, 3, 1, 1))
    named.add_module("norm", nn.BatchNorm2d(8, eps=1e-3))
    return small(
        nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()),
        ConvBNAct(4, 8, 3, act="hardswish"), named,
        ConvBNAct(8, 8, 3, groups=8), ConvBNAct(8, 8, 5),
        ConvBNAct(8, 8, 3, 2, same_size=(4, 4)),
    )  # fmt: skip


def branched():
    return small(RepBranches(1, 8, 2), RepBranches(8, 8, branches=["1x1", "1x3", "3x3"]))


def rep_vgg(deploy=False):
    return small(RepVGGBlock(1, 8, 2, deploy=deploy), RepVGGBlock(8, 8, deploy=deploy))


def shaken(net, seed=0):
    """Give batch norms of a network statistics and weights far from the identity."""
    draw = torch.Generator().manual_seed(seed)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for name, low in (("running_mean", -0.5), ("running_var", 0.3), ("weight", 0.5),
                              ("bias", -0.5)):  # fmt: skip
                value = getattr(norm, name).data
                value.copy_(torch.rand(value.shape, generator=draw) + low)
    return net.double().eval()


def network(make=branched, count=4, **settings):
    torch.manual_seed(0)
    net = make()
    places = find_places(net)
    return net, BranchNetwork(with_branches(net, places, 0), places, count, **settings)


def step(found, seed):
    """Take one step of training without moving the weights; return the gates that were open."""
    found.train()
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 1, 8, 8, generator=draw)
    nn.functional.cross_entropy(found(x), torch.arange(4)).backward()
    return torch.cat([found.block(place).gates for place in found.places]).detach()


@pytest.fixture
def asked(problem):
    """Build a problem around a small network, at a budget that is met by any merged one."""

    def build(make=branched, limit=1.0, target="analytic", seed=0, **options):
        found, run = problem(target, {"macs": 0.9}, seed=seed)
        torch.manual_seed(0)
        net = make().eval()
        cost = found.target.cost(trace(net, found.example)).total
        return replace(
            found, net=net, budget=Budget({"macs": limit * cost["macs"]}),
            original=found.original.with_(cost=dict(cost.values)), options={**QUICK, **options},
        ), run  # fmt: skip

    return build


def decided(candidates, folder):
    return [
        (c.id, c.edits, dict(c.architecture), dict(c.metrics), (folder / c.weights).read_bytes())
        for c in candidates
    ]


def test_places_are_found_whatever_their_class():
    assert [
        (p.module, p.in_channels, p.out_channels, p.stride, p.act) for p in find_places(plain())
    ] == [("0", 1, 4, 2, "relu"), ("1", 4, 8, 1, "hardswish"), ("2", 8, 8, 1, "none")]
    assert [p.module for p in find_places(plain(), keep=("0", "2"))] == ["1"]
    assert [p.branches for p in find_places(branched())] == [BRANCHES, ("1x1", "1x3", "3x3")]
    for deploy in (False, True):
        with torch.device("meta"):
            net = cf.nets.create("repvgg_a0", deploy=deploy)
        assert len(find_places(net)) == 22
    with pytest.raises(BadInput, match="no place for parallel branches outside of features"):
        find_places(cf.nets.create("tiny_mobilenet_v2"), keep=("features",))


def test_weights_of_plain_and_repvgg_networks_are_inherited():
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for make, open_branches in ((plain, {"3x3"}), (rep_vgg, {"3x3", "1x1"})):
        torch.manual_seed(0)
        net = shaken(make())
        places = find_places(net)
        made = with_branches(net, places, 0)
        for place in places:
            block = made.get_submodule(place.module)
            block.gates = torch.tensor([float(name in open_branches) for name in BRANCHES])
            if make is plain:
                block.identity = None  # a plain network has none to give
        with torch.no_grad():
            assert (made(x) - net(x)).abs().max() < 1e-10
    net = rep_vgg(deploy=True)
    made = with_branches(net, find_places(net), 0)
    assert torch.equal(made[1].branches["3x3"][0].weight, net[1].rbr_reparam.weight)


def test_what_is_drawn_depends_on_the_seed_and_the_place_alone():
    net = plain()
    places = find_places(net)
    states = []
    for n, seed in enumerate((0, 0, 1)):
        torch.manual_seed(n)
        states.append(with_branches(net, places, seed).state_dict())
    key = "1.branches.1x3.0.weight"
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0][key], states[2][key])


@pytest.mark.parametrize("make", [branched, plain, rep_vgg])
@pytest.mark.parametrize("count", [1, 5, 9])
def test_the_merged_network_equals_the_trained_one_borders_included(make, count):
    net, found = network(make, count)
    shaken(found)
    found.logits.copy_(torch.randn(len(found.logits), generator=torch.Generator().manual_seed(3)))
    x = 1 + 2 * torch.randn(3, 1, 8, 8, dtype=torch.float64)
    merged = merged_network(net.double(), found, [x[:2], x[1:]]).eval()
    with torch.no_grad():
        assert (merged(x) - found.eval()(x)).abs().max() < 1e-10
        norm = merged.get_submodule(found.places[-1].module).norm
        reads = []
        norm.register_forward_pre_hook(lambda m, inputs: reads.append(inputs[0]))
        merged(x[:2])
        merged(x[1:])
    mean = torch.stack([r.mean((0, 2, 3)) for r in reads]).mean(0)
    assert (norm.running_mean - mean).abs().max() < 1e-6
    assert sum(isinstance(m, nn.Conv2d) for m in merged.modules()) == sum(
        isinstance(m, nn.Conv2d) for m in plain().modules()
    ) * (make is plain) + 2 * (make is not plain)


def test_logits_move_in_the_search_phase_only():
    _, found = network(steps=20, random_share=0.3, search_share=0.4, rate=0.1)
    phases, moved = [], []
    for number in range(20):
        phases.append(found.phase)
        before = found.logits.clone()
        gates = step(found, number)
        assert set(gates.tolist()) <= {0.0, 1.0}
        assert 4 <= gates.sum() <= 6
        moved.append(not torch.equal(before, found.logits))
    assert phases == ["random"] * 6 + ["search"] * 8 + ["fixed"] * 6
    assert moved == [phase == "search" for phase in phases]
    kept = {p.module: found.chosen()[p.module] for p in found.places}
    expected = [float(b in kept[p.module]) for p in found.places for b in p.branches]
    assert gates.tolist() == expected


def test_batch_norms_forget_once_when_the_fixed_phase_begins():
    _, found = network(steps=10, random_share=0.2, search_share=0.3, rate=0.1)
    norm = found.block(found.places[1]).identity
    seen = []
    for number in range(10):
        step(found, number)
        seen.append(int(norm.num_batches_tracked))
    assert seen == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]


def test_logits_take_the_steps_of_adam():
    _, found = network(steps=10, random_share=0.2, search_share=0.5, rate=0.03, decay=0.02)
    twin = torch.zeros_like(found.logits).requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.03, betas=(0.5, 0.999))
    draw = torch.Generator().manual_seed(0)
    for number in range(5):
        grad = torch.randn(len(twin), generator=draw)
        decay = 0.02 * 0.5 * (1 + math.cos(math.pi * number / 5))
        twin.grad = grad + decay * twin.detach()
        adam.step()
        leaf = found.logits.clone().requires_grad_()
        leaf.grad = grad
        found.step.fill_(3 + number)  # the forward pass has counted this step
        found._move(leaf)
    torch.testing.assert_close(found.logits, twin.detach(), rtol=1e-5, atol=1e-7)


def test_useful_branches_are_found():
    """The 1x3 branch of one block is all that a horizontal difference needs."""
    torch.manual_seed(0)
    net = nn.Sequential(RepBranches(1, 2, branches=["3x1", "1x3", "1x1"], act="none"))
    net[0].identity = None
    x = torch.randn(64, 1, 8, 8)
    wanted = torch.cat([x - x.roll(1, 3), x.roll(-1, 3)], 1)[..., 1:-1]
    found = BranchNetwork(net, find_places(net), 1, steps=300, random_share=0.3, rate=0.05,
                          search_share=0.6)  # fmt: skip
    weights = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for _ in range(290):
        weights.zero_grad()
        (found(x)[..., 1:-1] - wanted).pow(2).mean().backward()
        weights.step()
    assert found.chosen() == {"0": ("1x3",)}


def test_a_search_keeps_its_word(asked):
    problem, run = asked(shares=(0.34, 1.0))
    (candidate,) = RepNAS().search(problem, run)
    net = candidate.build(problem.net, run.folder)
    assert trace(net, problem.example).macs == candidate.predicted["macs"]
    assert not candidate.fresh
    value = problem.task.evaluate(net, "val", limit=50)["accuracy"]
    assert value == candidate.metrics["val_accuracy"]
    proposals = [e for e in run.journal if e["event"] == "proposal"]
    assert [e["group"] for e in proposals] == ["share-0.34", "share-1"]
    assert value == max(e["val_accuracy"] for e in proposals)
    assert "dropped" in candidate.changes[1]["to"]
    saved = problem.original_cost["macs"] - candidate.predicted["macs"]
    assert candidate.changes[0]["macs_saved"] == saved > 0


def test_the_journal_tells_how_gates_went(asked):
    problem, run = asked(steps=30, logits_rate=0.5)
    (candidate,) = RepNAS().search(problem, run)
    (search,) = read_searches(run.journal.events)
    assert search.name == "repnas/3 of 9" and search.method == "repnas"
    assert [s.step for s in search.steps] == list(range(1, 31))
    assert search.steps[0].entropy == pytest.approx(1.0)
    assert search.steps[-1].entropy == 0.0
    for record in search.steps:
        assert record.loss > 0
        assert all(sum(p.values()) == pytest.approx(1) for p in record.probabilities.values())
    assert search.covers(candidate.architecture)
    last = search.steps[-1].probabilities
    assert {n: last[n][o] for n, o in candidate.architecture.items()} == dict.fromkeys(last, 1.0)


def test_a_killed_search_ends_the_same(asked, monkeypatch):
    monkeypatch.setattr(repnas, "fit_model", functools.partial(fit_model, checkpoint_steps=5))
    calm, calm_run = asked(steps=24, shares=(0.34, 1.0))
    wanted = decided(RepNAS().search(calm, calm_run), calm_run.folder)
    problem, run = asked(steps=24, shares=(0.34, 1.0))

    class Stop(Exception):
        pass

    for word in ("step 1/", "step 8/", "step 17/", "of 9 branches: validation", "kept"):

        def say(line, word=word):
            if word in line:
                raise Stop

        with pytest.raises(Stop):
            list(RepNAS().search(replace(problem, progress=say), run))
    assert decided(RepNAS().search(problem, run), run.folder) == wanted


def test_other_seeds_search_differently(asked):
    found = []
    for seed in (0, 1):
        problem, run = asked(seed=seed)
        found.append(next(RepNAS().search(problem, run)).architecture)
    assert found[0] != found[1]


def test_a_budget_that_the_merged_network_is_over_is_refused(asked):
    problem, run = asked(limit=0.2)
    places = find_places(problem.net)
    merged = cf.rewrite.replay(problem.net, [p.swap(p.branches) for p in places])
    macs = trace(merged.eval(), problem.example).macs
    for call in (RepNAS().check, lambda p: next(RepNAS().search(p, run))):
        with pytest.raises(InfeasibleBudget, match=re.escape(f"macs={macs:.4g}")):
            call(problem)
    unknown = replace(problem, budget=Budget({"latency_ms": 1.0}))
    with pytest.raises(BadInput, match="cannot steer by latency_ms"):
        RepNAS().check(unknown)


def test_a_plain_network_may_cost_what_it_did(asked):
    problem, run = asked(make=plain)
    (candidate,) = RepNAS().search(problem, run)
    assert candidate.predicted["macs"] == problem.original_cost["macs"]
    assert {e.module for e in candidate.edits} == {"0", "1", "2"}


@pytest.mark.parametrize("option", [
    {"shares": ()}, {"shares": (0.5, 1.2)}, {"random_share": 0.5, "search_share": 0.5},
    {"epochs": -1.0}, {"logits_betas": (0.5,)}, {"logits_rate": 0.0},
])  # fmt: skip
def test_options_out_of_range_are_refused(asked, option):
    with pytest.raises(BadInput, match=next(iter(option))):
        RepNAS().check(asked(**option)[0])
