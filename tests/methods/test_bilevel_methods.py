# SPDX-License-Identifier: Apache-2.0
"""DARTS and RARTS beyond what every method promises."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from chipfit.errors import BadInput, InfeasibleBudget, Interrupted
from chipfit.graph import trace
from chipfit.methods.base import METHODS
from chipfit.supernet import loop

QUICK = {"search_steps": 4, "batch_size": 8, "val_images": 20, "proposals": 2, "warmup": 0.2}
VARIANTS = [
    ("darts", {"order": 1}),
    ("darts", {"order": 2, "curvature_every": 3}),
    ("rarts", {"fresh": False}),
    ("rarts", {"search": "width", "shrinkage": 2.0, "widths": 10}),
]


def asked(problem, name, options, fraction=0.8, target="analytic", key="macs"):
    found, run = problem(target, {key: fraction})
    return METHODS.get(name).value(), replace(found, options={**QUICK, **options}), run


def weights(candidate, run):
    return (run.folder / candidate.weights).read_bytes()


@pytest.mark.parametrize(("name", "options"), VARIANTS[1:])
def test_a_search_that_is_cut_off_ends_in_the_same_network(problem, monkeypatch, name, options):
    method, whole, run = asked(problem, name, options)
    expected = list(method.search(whole, run))
    method, again, run2 = asked(problem, name, options)
    write, count = loop.write_search, []

    def cut(path, identity, state, rule):
        write(path, identity, state, rule)
        count.append(state.step)
        if len(count) == 1:
            raise Interrupted("cut")

    monkeypatch.setattr(loop, "write_search", cut)
    settings = method.loop_settings

    def often(problem, options):
        return replace(settings(problem, options), checkpoint_steps=3)

    monkeypatch.setattr(method, "loop_settings", often)
    with pytest.raises(Interrupted):
        list(method.search(again, run2))
    assert count == [3]
    found = list(method.search(again, run2))
    assert [c.architecture for c in found] == [c.architecture for c in expected]
    for one, other in zip(found, expected, strict=True):
        assert weights(one, run2) == weights(other, run)
    losses = [[e.get("val_loss") for e in r.journal.events if e["event"] == "search"][-1]
              for r in (run, run2)]  # fmt: skip
    assert losses[0] == losses[1]


def test_orders_and_rules_differ_and_curvature_is_recorded(problem):
    ends = {}
    for name, options in VARIANTS[:3]:
        method, given, run = asked(problem, name, options)
        list(method.search(given, run))
        events = [e for e in run.journal.events if e["event"] == "search"]
        ends[name, str(options)] = events[-1]["probabilities"]
        seen = [e.get("hessian_eigenvalue") for e in events]
        assert (seen[-1] is not None) == ("curvature_every" in options)
        assert 0 <= events[-1]["entropy"] <= 1
    first, second, third = ends.values()
    assert first != second and second != third and first != third


@pytest.fixture
def width(problem):
    return asked(problem, "rarts", VARIANTS[3][1], 0.6)


def test_widths_meet_the_budget_aligned_and_start_from_what_was_learnt(problem, width):
    method, given, run = width
    method.check(given)
    (member,) = method.search(given, run)
    limit = given.budget.limits["macs"]
    assert 0.9 * limit <= member.predicted["macs"] <= limit
    net = member.build(given.net, run.folder)
    assert trace(net, given.example).macs == member.predicted["macs"]
    assert not member.fresh
    saved = sum(change["macs_saved"] for change in member.changes)
    assert saved == pytest.approx(given.original.cost["macs"] - member.predicted["macs"])
    assert all(change["to"] < change["from"] for change in member.changes)
    # A channel that stays has the weights that were trained, not the original's.
    before = given.net.state_dict()
    assert any(
        v.shape == before[n].shape and not torch.equal(v, before[n])
        for n, v in net.state_dict().items()
        if v.is_floating_point()
    )
    assert np.isfinite(member.metrics["val_accuracy"])


def test_widths_follow_the_target(problem):
    method, given, run = asked(problem, "rarts", VARIANTS[3][1], 0.9, "ethos-u55-128",
                               "latency_ms")  # fmt: skip
    (member,) = method.search(given, run)
    assert given.budget.met(member.predicted)
    alignment = given.target.alignment
    assert all(w % alignment == 0 or w in _own_widths(given) for w in member.architecture.values())


def _own_widths(given):
    return {m.out_channels for m in given.net.modules() if hasattr(m, "out_channels")}


def test_width_searches_repeat_and_are_recalled(problem):
    results = []
    for _ in range(2):
        method, given, run = asked(problem, "rarts", VARIANTS[3][1], 0.6)
        found = list(method.search(given, run))
        results.append([(c.edits, dict(c.metrics), weights(c, run)) for c in found])
    assert results[0] == results[1]
    events = len(run.journal.events)
    assert [c.edits for c in method.search(given, run)] == [e for e, _, _ in results[1]]
    assert len(run.journal.events) == events


def test_widths_that_cannot_be_met_and_wrong_options_are_refused(problem, width):
    method, given, _ = width
    from chipfit.cost.budget import Budget

    with pytest.raises(InfeasibleBudget):
        method.check(replace(given, budget=Budget({"macs": 10.0})))
    for wrong in ({"search": "depth"}, {"search": "width", "widths": 1},
                  {"search": "width", "shrinkage": -1.0}):  # fmt: skip
        with pytest.raises(BadInput, match="rarts"):
            method.check(replace(given, options={**QUICK, **wrong}))
    before = copy.deepcopy(given.net.state_dict())
    assert all(torch.equal(v, given.net.state_dict()[n]) for n, v in before.items())
