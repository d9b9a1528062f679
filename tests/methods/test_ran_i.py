import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph import trace
from chipfit.methods.ran_i import RanI
from chipfit.methods.scaling_prices import NN_MASS

OPTIONS = {"val_images": 20, "budgets": 2, "step": 8}


def _decisions(candidates):
    return [(c.id, c.edits, dict(c.predicted), dict(c.metrics)) for c in candidates]


def _problem(problem, fraction, **options):
    asked, run = problem("analytic", {"macs": fraction})
    object.__setattr__(asked, "options", {**OPTIONS, **options})
    return asked, run


@pytest.mark.parametrize("rule", ["search", "uniform"])
def test_members_meet_their_budgets_and_get_cheaper(problem, rule):
    asked, run = _problem(problem, 0.7, rule=rule, non_linear_units=0.8)
    family = list(RanI().search(asked, run))
    macs = [c.predicted["macs"] for c in family]
    assert macs[0] > macs[1] and macs[1] <= asked.budget.limits["macs"]
    for candidate in family:
        net = candidate.build(asked.net, run.folder)
        assert trace(net, asked.example).macs == candidate.predicted["macs"]
        assert candidate.fresh
        saved = sum(change["macs_saved"] for change in candidate.changes)
        assert saved == pytest.approx(asked.original_cost["macs"] - candidate.predicted["macs"])
        assert net(asked.example).shape == (1, 10)


def test_the_exact_search_is_no_lighter_than_the_papers_rule(problem):
    masses = {}
    for rule in ("search", "uniform"):
        asked, run = _problem(problem, 0.7, rule=rule, budgets=1, non_linear_units=0.5)
        last = list(RanI().search(asked, run))[-1]
        masses[rule] = [c for c in run.journal if c["event"] == "scaled"][-1]["figures"][NN_MASS]
        assert last.changes[0][f"{NN_MASS}_before"] > 0
    assert masses["search"] >= masses["uniform"] > 0


def test_searching_again_recalls_and_a_tighter_budget_is_another_network(problem):
    asked, run = _problem(problem, 0.8, non_linear_units=0.5)
    first = list(RanI().search(asked, run))
    events = len(run.journal.events)
    assert _decisions(RanI().search(asked, run)) == _decisions(first)
    assert len(run.journal.events) == events
    tighter, _ = _problem(problem, 0.7, non_linear_units=0.5)
    again = list(RanI().search(tighter, run))
    assert not {c.id for c in again} & {c.id for c in first}
    state = first[0].build(asked.net, run.folder).state_dict()
    drawn = first[0].edits[0].apply(asked.net).state_dict()
    assert all(torch.equal(state[k], drawn[k]) for k in state)


def test_what_cannot_be_met_is_explained(problem):
    asked, run = _problem(problem, 0.01)
    for call in (RanI().check, lambda p: next(RanI().search(p, run))):
        with pytest.raises(InfeasibleBudget, match="the least macs"):
            call(asked)
    with pytest.raises(BadInput, match="rule"):
        RanI().check(_problem(problem, 0.7, rule="best")[0])
    asked, _ = _problem(problem, 0.7)
    object.__setattr__(asked, "keep", ("features.1",))
    with pytest.raises(BadInput, match="keep"):
        RanI().check(asked)
    object.__setattr__(asked, "keep", ())
    object.__setattr__(asked, "budget", type(asked.budget)({"latency_ms": 1.0}))
    with pytest.raises(BadInput, match="cannot steer by latency_ms"):
        RanI().check(asked)
    object.__setattr__(asked, "net", torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1)))
    with pytest.raises(BadInput, match="cannot be scaled"):
        RanI().check(asked)
