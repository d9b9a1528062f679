# SPDX-License-Identifier: Apache-2.0
"""What every registered method promises, whatever its paper."""

from dataclasses import replace

import pytest
import torch

from chipfit.cost.budget import Budget
from chipfit.errors import ChipfitError, InfeasibleBudget
from chipfit.graph import trace
from chipfit.methods.base import METHODS
from chipfit.rewrite import rewrite_from_json

#: Smallest settings of each method.
QUICK = {
    "auto": {
        "widths": 3, "images": 64, "rounds": 1, "tries": 2, "val_images": 50,
    },
    "mcu": {"search_steps": 4, "batch_size": 16, "val_images": 50},
    "netadapt": {"steps": 2, "short_steps": 2, "val_images": 50},
    "ran-e": {
        "search_steps": 2, "steps": 1, "proposals": 1, "short_steps": 2, "val_images": 50,
    },
    "ran-i": {"budgets": 1, "val_images": 20, "step": 8, "non_linear_units": 0.5},
    "repnas": {"steps": 4, "val_images": 50},
    "darts": {
        "search_steps": 4, "batch_size": 16, "val_images": 50, "proposals": 2, "order": 2,
    },
    "fbnet": {"search_steps": 4, "batch_size": 16, "val_images": 50, "proposals": 2},
    "lana": {
        "kinds": ("skip", "conv", "separable"), "kernels": (3,), "distil_steps": 2,
        "batch_size": 16, "together": 2, "score_images": 32, "levels": 1, "solutions": 2,
        "short_steps": 2, "val_images": 50,
    },
    "padnas": {
        "search_steps": 4, "batch_size": 16, "val_images": 20, "proposals": 2, "population": 4,
        "generations": 2, "evolution_images": 20, "phases": (1.0, 1.0),
    },
    "proxylessnas": {"search_steps": 4, "batch_size": 16, "val_images": 50, "proposals": 2},
    "prunet": {
        "search_steps": 5, "batch_size": 16, "val_images": 50, "proposals": 2, "warmup": 0.0,
        "architecture_rate": 0.5, "expansions": (2.0, 3.0, 6.0),
    },
    "rarts": {"search_steps": 4, "batch_size": 16, "val_images": 50, "proposals": 2},
    "smcp": {"search_steps": 4, "every": 2, "widths": 3, "val_images": 50},
}  # fmt: skip
#: Networks that a method needs, where the usual one holds nothing that it could decide.
NETS = {"repnas": "tiny_rep_branches"}
#: A value of an option that each method refuses.
WRONG = {
    "auto": {"first": ("luck",)},
    "mcu": {"tighten": 0.9},
    "netadapt": {"selection": "luck"},
    "ran-e": {"steps": 0},
    "ran-i": {"rule": "luck"},
    "repnas": {"shares": (0.0,)},
    "darts": {"order": 3},
    "fbnet": {"levels": 0},
    "lana": {"overlap": 1.5},
    "padnas": {"phases": (1.0, 0.0)},
    "proxylessnas": {"update": "luck"},
    "prunet": {"move_start": 0.4},
    "rarts": {"coupling": 0.0},
    "smcp": {"mode": "luck"},
}
NAMES = [entry.name for entry in METHODS]


@pytest.fixture
def asked(problem):
    """Build the same small problem for any method."""

    def build(name, fraction=0.8, seed=0, **options):
        net = NETS.get(name, "tiny_mobilenet_v2")
        found, run = problem("analytic", {"macs": fraction}, seed=seed, net_name=net)
        return replace(found, options={**QUICK[name], **options}), run

    return build


def decided(candidates, folder):
    return [
        (c.id, c.edits, dict(c.predicted), dict(c.metrics), (folder / c.weights).read_bytes())
        for c in candidates
    ]


def test_every_method_is_tested_here():
    assert set(NAMES) == set(QUICK) == set(WRONG)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_member_meets_the_budget_and_all_are_what_they_say(asked, name):
    problem, run = asked(name)
    method = METHODS.get(name).value()
    method.check(problem)
    before = {k: v.clone() for k, v in problem.net.state_dict().items()}
    family = list(method.search(problem, run))
    assert family
    assert problem.budget.met(family[-1].predicted)
    assert len({c.id for c in family}) == len(family)
    for candidate in family:
        assert [rewrite_from_json(e.to_json()) for e in candidate.edits] == list(candidate.edits)
        net = candidate.build(problem.net, run.folder)
        assert trace(net, problem.example).macs == candidate.predicted["macs"]
        assert problem.val_metric in candidate.metrics
        assert candidate.changes
    assert all(torch.equal(v, problem.net.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_decides_the_same_and_a_finished_search_is_recalled(asked, name):
    method = METHODS.get(name).value()
    results = []
    for _ in range(2):
        problem, run = asked(name)
        results.append(decided(method.search(problem, run), run.folder))
    assert results[0] == results[1]
    events = len(run.journal.events)
    assert decided(method.search(problem, run), run.folder) == results[1]
    assert len(run.journal.events) == events


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_met_is_refused_before_any_work(asked, name):
    problem, run = asked(name)
    method = METHODS.get(name).value()
    impossible = replace(problem, budget=Budget({"macs": 10.0}))
    with pytest.raises(InfeasibleBudget):
        method.check(impossible)
    with pytest.raises(InfeasibleBudget):
        list(method.search(impossible, run))
    assert not run.candidates()


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_of_options_are_refused(asked, name):
    method = METHODS.get(name).value()
    problem, _ = asked(name, **WRONG[name])
    with pytest.raises(ChipfitError):
        method.check(problem)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_plain_values(name):
    entry = METHODS.get(name)
    assert entry.summary and entry.source
    assert all(
        isinstance(v, str | int | float | bool | tuple) for v in entry.value().defaults.values()
    )
