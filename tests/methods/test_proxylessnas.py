from dataclasses import replace

import numpy as np
import pytest

from chipfit.errors import BadInput
from chipfit.methods.proxylessnas import ProxylessNAS
from chipfit.methods.supernet_search import Opened
from chipfit.supernet.gate_rule import GateRule
from chipfit.supernet.policy_rule import PolicyRule

QUICK = {
    "search_steps": 4, "batch_size": 16, "val_images": 20, "proposals": 1, "warmup": 0.25,
}  # fmt: skip


@pytest.fixture
def asked(problem):
    def build(**options):
        found, run = problem("analytic", {"macs": 0.8})
        return replace(found, options={**QUICK, **options}), run

    return build


@pytest.mark.parametrize(
    "options", [{"update": "reinforce", "samples": 2}, {"update": "gradient", "paths": 0}]
)
def test_every_update_ends_within_the_budget(asked, options):
    problem, run = asked(**options)
    (member,) = ProxylessNAS().search(problem, run)
    assert problem.budget.met(member.predicted)
    events = [e for e in run.journal.events if e.get("event") == "search"]
    assert events[-1]["step"] == events[-1]["steps"] == 4
    assert events[0]["probabilities"] != events[-1]["probabilities"]  # logits have moved


@pytest.mark.parametrize(
    "options",
    [
        {"update": "luck"}, {"paths": 1}, {"paths": -1}, {"samples": 1}, {"exponent": -0.1},
        {"update": "reinforce", "penalty": "multiplicative"},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(asked, options):
    problem, _ = asked(**options)
    with pytest.raises(BadInput):
        ProxylessNAS().check(problem)


def test_logits_have_no_momentum_and_rules_have_their_options(asked):
    problem, _ = asked(update="reinforce", samples=3, exponent=0.5)
    method = ProxylessNAS()
    settings = {**method.defaults, **problem.options}
    assert method.loop_settings(problem, settings).architecture_betas == (0.0, 0.999)

    class Costs:
        def of(self, key):
            return lambda rows: rows.sum(1).astype(float)

    policy = method.make_rule(problem, Opened(settings, None, Costs()))
    assert isinstance(policy, PolicyRule) and policy.samples == 3
    bound = problem.budget.limits["macs"]
    rows = np.array([[bound / 2, bound / 2], [2 * bound, 2 * bound], [0, bound / 4]])
    found = policy.reward(np.log([2.0, 2.0, 4.0]), rows)
    assert np.allclose(found, [0.5, 0.25, 0.5])  # at the budget, four times it, a quarter of it
    gates = method.make_rule(problem, Opened({**settings, "update": "gradient"}, None, None))
    assert isinstance(gates, GateRule) and gates.relaxation.paths == 2
