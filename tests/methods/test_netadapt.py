import itertools

import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph import trace
from chipfit.graph.channels import channel_groups
from chipfit.methods.netadapt import NetAdapt, _constraint, _proposals
from chipfit.methods.widths import WidthPricer, filter_norms, keep_largest
from chipfit.rewrite import slice_channels
from chipfit.space.widths import width_space

TARGETS = ["analytic", "ethos-u55-128"]
BUDGETS = {"analytic": {"macs": 0.6}, "ethos-u55-128": {"latency_ms": 0.75}}


def _decisions(candidates):
    return [(c.id, dict(c.architecture), dict(c.predicted), dict(c.metrics)) for c in candidates]


@pytest.mark.parametrize("target", TARGETS)
def test_each_member_meets_its_constraint_and_the_last_the_budget(problem, target):
    asked, run = problem(target, BUDGETS[target], steps=3)
    family = list(NetAdapt().search(asked, run))
    key = asked.budget.keys[0]
    costs = [asked.original_cost[key], *(c.predicted[key] for c in family)]
    assert all(after < before for before, after in itertools.pairwise(costs))
    assert costs[-1] <= asked.budget.limits[key] < costs[-2]
    schedule = [e for e in run.journal if e["event"] == "step"]
    assert len(schedule) == len(family) <= 3
    for candidate in family:
        net = candidate.build(asked.net, run.folder)
        widths = {g.name: g.channels for g in channel_groups(net, asked.example) if not g.frozen}
        assert {k: widths[k] for k in candidate.architecture} == dict(candidate.architecture)
        truth = asked.target.cost(trace(net, asked.example)).total
        known = {**asked.target.static_cost(trace(net, asked.example)), **truth.values}
        assert candidate.predicted[key] == pytest.approx(known[key], rel=0.03)


def test_proposals_are_the_largest_widths_that_meet_the_constraint(problem):
    asked, _ = problem("ethos-u55-128", {"latency_ms": 0.75})
    groups = channel_groups(asked.net, asked.example)
    pricer = WidthPricer(asked, groups)
    space = width_space(groups, asked.target.alignment)
    widths = dict(space.largest())
    start = pricer.price([widths])[0]
    limits = {"latency_ms": 0.93 * start["latency_ms"]}
    offers = {
        name: (width, cost) for name, width, cost in _proposals(pricer, space, widths, limits)
    }
    assert offers
    for choice in space:
        variants = [{**widths, choice.name: w} for w in choice.options[:-1]]
        fits = [
            w for w, cost in zip(choice.options[:-1], pricer.price(variants), strict=True)
            if cost["latency_ms"] <= limits["latency_ms"]
        ]  # fmt: skip
        assert (max(fits) if fits else None) == offers.get(choice.name, (None,))[0]


def test_several_budgets_are_met_together(problem):
    asked, run = problem("ethos-u55-128", {"latency_ms": 0.8, "params": 0.7}, steps=3)
    last = list(NetAdapt().search(asked, run))[-1]
    assert all(last.predicted[k] <= limit for k, limit in asked.budget.limits.items())
    start = asked.original_cost
    limits = _constraint(asked.budget, start, start, 0.1)
    assert limits["params"] == pytest.approx(0.9 * start["params"])


def test_results_do_not_depend_on_the_number_of_workers(problem):
    found = []
    for workers in (1, 3):
        asked, run = problem("analytic", {"macs": 0.7}, workers=workers, steps=2)
        family = list(NetAdapt().search(asked, run))
        states = [c.build(asked.net, run.folder).state_dict() for c in family]
        found.append((_decisions(family), states))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)


def test_searching_again_recalls_instead_of_repeating(problem):
    asked, run = problem("analytic", {"macs": 0.7}, steps=2)
    first = list(NetAdapt().search(asked, run))
    events = len(run.journal.events)
    assert _decisions(NetAdapt().search(asked, run)) == _decisions(first)
    assert len(run.journal.events) == events


def test_a_tighter_budget_continues_where_the_search_ended(problem):
    asked, run = problem("analytic", {"macs": 0.8}, steps=2)
    first = list(NetAdapt().search(asked, run))
    tighter, _ = problem("analytic", {"macs": 0.6}, steps=2)
    longer = list(NetAdapt().search(tighter, run))
    assert _decisions(longer)[: len(first)] == _decisions(first)
    assert longer[-1].predicted["macs"] <= tighter.budget.limits["macs"]


def test_an_impossible_budget_names_the_cheapest_network(problem):
    asked, run = problem("analytic", {"macs": 0.001})
    groups = channel_groups(asked.net, asked.example)
    space = width_space(groups, asked.target.alignment)
    cheapest = WidthPricer(asked, groups).price([dict(space.smallest())])[0]
    for call in (NetAdapt().check, lambda p: next(NetAdapt().search(p, run))):
        with pytest.raises(InfeasibleBudget, match=f"macs={cheapest['macs']:.4g}"):
            call(asked)


def test_wrong_options_are_explained(problem):
    with pytest.raises(BadInput, match="reaches"):
        NetAdapt().check(problem("analytic", {"macs": 0.3}, initial_reduction=0.01)[0])
    with pytest.raises(BadInput, match="selection"):
        NetAdapt().check(problem("analytic", {"macs": 0.7}, selection="best")[0])
    with pytest.raises(BadInput, match="cannot steer by latency_ms"):
        asked, _ = problem("analytic", {"macs": 0.7})
        object.__setattr__(asked, "budget", type(asked.budget)({"latency_ms": 1.0}))
        NetAdapt().check(asked)


def test_kept_layers_stay(problem):
    asked, run = problem("analytic", {"macs": 0.8}, steps=2, keep=("features.2",))
    for candidate in NetAdapt().search(asked, run):
        assert not [n for n in candidate.architecture if n.startswith("features.2")]
        assert not [e for e in candidate.edits if e.module.startswith("features.2.") and e.side == "out"
                    and e.module.endswith("conv.0.0")]  # fmt: skip


def test_the_ratio_rule_of_the_released_code_may_choose_differently(problem):
    asked, run = problem("analytic", {"macs": 0.8}, steps=2, selection="ratio")
    first = next(NetAdapt().search(asked, run))
    events = [e for e in run.journal if e["event"] == "proposal" and e["step"] == 1]
    before, cost = asked.original.metrics["val_accuracy"], asked.original_cost["macs"]
    ratios = {
        e["group"]: (before - e["val_accuracy"] + 1e-6) / (cost - e["predicted"]["macs"] + 1e-5)
        for e in events
    }
    assert ratios[first.changes[-1]["group"]] == min(ratios.values())


def test_filters_of_largest_magnitude_stay():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 1))
    group = next(g for g in channel_groups(net, torch.zeros(1, 3, 4, 4)) if g.name == "0")
    with torch.no_grad():
        for i in range(16):
            net[0].weight[i] = float((7 * i) % 16)
    present = tuple(range(16))
    norms = filter_norms(net, group, present)
    assert norms.tolist() == pytest.approx([((7 * i) % 16) * 3**0.5 for i in range(16)])
    kept = keep_largest(net, group, present, 8)
    assert kept == tuple(i for i in range(16) if (7 * i) % 16 >= 8)
    # On the narrowed network, indices are still those of the original.
    from chipfit.rewrite import edits_for, side_sizes

    narrow = slice_channels(net, edits_for([group], {"0": kept}, side_sizes(net)))
    again = keep_largest(narrow, group, kept, 4)
    assert again == tuple(i for i in range(16) if (7 * i) % 16 >= 12)
