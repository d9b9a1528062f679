# SPDX-License-Identifier: Apache-2.0
"""Resources as functions of widths against recounts, and budgets met by what is exported."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import chipfit as cf
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.export.tflite import calibrate, to_tflite
from chipfit.graph.capture import capture, trace
from chipfit.graph.channels import channel_groups
from chipfit.graph.memory_graph import peak_bytes
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.mcu_memory import WidthMemory
from chipfit.methods.mcu_resources import McuResources
from chipfit.methods.mcu_rounding import WidthRepair, nearest_row
from chipfit.methods.mcu_shapes import Affine
from chipfit.methods.width_table import thinned_widths, width_table
from chipfit.rewrite import edits_for, side_sizes, slice_channels
from chipfit.runs import Candidate, Run

EXAMPLE = torch.zeros(1, 1, 16, 16)


class Branchy(nn.Module):
    """Two branches that are joined, a shortcut, and a stride that TFLite pads for."""

    def __init__(self):
        super().__init__()
        self.stem, self.left = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.right = nn.Conv2d(8, 24, 3, padding=1)
        self.join, self.down = nn.Conv2d(40, 8, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.head = nn.Linear(16 * 64, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        left, right = self.left(x), self.right(x)
        x = x + self.join(torch.cat([right, left], 1))
        return self.head(torch.relu(self.down(x)).flatten(1))


@pytest.fixture(scope="module")
def branchy():
    torch.manual_seed(0)
    return Branchy().eval()


def asked(net, target_name, budget, example=EXAMPLE):
    target = cf.target(target_name)
    cost = target.cost(trace(net, example)).total
    problem = Problem(
        net=net, example=example, task=None, target=target, table=CostTable(),
        budget=Budget(fractions=budget).resolve(cost), pool=None,
        original=Candidate("original", cost=dict(cost.values), provenance=cost.provenance),
    )  # fmt: skip
    groups = channel_groups(net, example)
    table = width_table(problem, groups, thinned_widths(groups, 4, 0))
    return problem, groups, table


def random_rows(table, count, seed=3):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, np.array(table.full) + 1, (count, len(table.full)))
    return [tuple(int(i) for i in row) for row in drawn]


def widths_of(table, row):
    return torch.tensor(list(table.widths(row).values()), dtype=torch.float64)


def test_counts_and_peak_are_those_of_the_sliced_network(branchy):
    keys = ("peak_sram_bytes", "weight_bytes", "macs", "params")
    problem, groups, table = asked(branchy, "analytic", dict.fromkeys(keys, 0.5))
    resources = McuResources(problem, table)
    for row in random_rows(table, 8):
        kept = {name: range(width) for name, width in table.widths(row).items()}
        sliced = slice_channels(branchy, edits_for(groups, kept, side_sizes(branchy)))
        recounted = problem.target.cost(trace(sliced, EXAMPLE)).total
        for key in keys:
            assert float(resources.of(key)(widths_of(table, row))) == recounted[key]
            assert resources.exact([row])[0][key] == recounted[key]


def test_the_peak_of_the_file_is_that_of_the_sliced_network_with_its_padding(branchy):
    _, groups, table = asked(branchy, "cortex-m4", {"macs": 0.5})
    target = cf.target("cortex-m4")
    rows = [table.full, *random_rows(table, 10, seed=1)]
    loads = [table.workload(table.widths(row)) for row in rows]
    widths = np.stack([widths_of(table, row).numpy() for row in rows])
    memory = WidthMemory(widths, [target.memory_graph(load) for load in loads])
    assert memory.exact
    assert any(":padded" in name for name in target.memory_graph(loads[0]).sizes)
    for row in random_rows(table, 4, seed=2):
        kept = {name: range(width) for name, width in table.widths(row).items()}
        sliced = slice_channels(branchy, edits_for(groups, kept, side_sizes(branchy)))
        load = trace(sliced, EXAMPLE)
        peak = float(memory(widths_of(table, row)))
        assert peak == peak_bytes(target.memory_graph(load)) <= target.arena(load).head_bytes


def test_the_gradient_of_the_peak_is_that_of_the_fullest_operator(branchy):
    problem, _, table = asked(branchy, "analytic", {"peak_sram_bytes": 0.5})
    peak = McuResources(problem, table).of("peak_sram_bytes")
    names = [choice.name for choice in table.space]
    at = widths_of(table, table.full).requires_grad_()
    peak(at).backward()
    slope = dict(zip(names, at.grad.tolist(), strict=True))
    # fullest where the branches are joined: stem, left, right and their concatenation
    assert slope == {"stem": 256, "left": 2 * 256, "right": 2 * 256, "down": 0}
    smooth = McuResources(problem, table, smooth=0.02).of("peak_sram_bytes")
    at = at.detach()
    assert float(peak(at)) < float(smooth(at)) < 1.1 * float(peak(at))


def test_latency_of_a_microcontroller_and_the_size_of_its_file_are_followed(branchy):
    keys = ("latency_ms", "flash_bytes", "peak_sram_bytes")
    problem, _, table = asked(branchy, "cortex-m4", dict.fromkeys(keys, 0.5))
    resources = McuResources(problem, table)
    for row in random_rows(table, 3):
        cost = resources.exact([row])[0]
        point = widths_of(table, row)
        assert float(resources.of("latency_ms")(point)) == pytest.approx(cost["latency_ms"], 0.02)
        assert float(resources.of("flash_bytes")(point)) == pytest.approx(cost["flash_bytes"], 0.02)
        assert float(resources.of("peak_sram_bytes")(point)) == pytest.approx(
            cost["peak_sram_bytes"], 0.2
        )


def test_what_no_affine_function_says_is_not_called_exact():
    widths = np.array([[4.0, 4.0], [2.0, 4.0], [4.0, 2.0], [2.0, 2.0]])
    assert Affine(widths, widths @ np.array([[3.0], [5.0]]) + 7).exact
    assert not Affine(widths, widths.prod(1, keepdims=True)).exact


def test_repair_narrows_to_the_budget_and_widens_as_far_as_it_goes(branchy):
    budget = {"peak_sram_bytes": 0.6, "macs": 0.5}
    problem, _, table = asked(branchy, "analytic", budget)
    resources = McuResources(problem, table)
    shares = [[(i + 1) / len(c.options) for i in range(len(c.options))] for c in table.space]
    repair = WidthRepair(table, resources, problem.budget.limits, shares)
    row = repair.narrowed(table.full)
    assert problem.budget.met(resources.exact([row])[0])
    assert repair.narrowed(row) == row
    wanted = [float(choice.options[-1]) for choice in table.space]
    wide = repair.widened(row, wanted)
    assert all(a >= b for a, b in zip(wide, row, strict=True))
    assert problem.budget.met(resources.exact([wide])[0])
    for g in range(len(wide)):
        if wide[g] < table.full[g]:
            more = (*wide[:g], wide[g] + 1, *wide[g + 1 :])
            assert not problem.budget.met(resources.exact([more])[0])
    assert nearest_row(table, [6.0, 13.9, 24.0, 1.0]) == (1, 2, 5, 0)


QUICK = {"search_steps": 6, "batch_size": 16, "val_images": 50, "every": 1, "ratio_rate": 1.0}
BUDGET = {"peak_sram_bytes": 0.88, "flash_bytes": 0.7, "latency_ms": 0.6}


@pytest.fixture
def small(tmp_path):
    """A small network on digits for a microcontroller, under three bounds."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )  # fmt: skip
    found, _, _ = asked(net.eval(), "cortex-m4", BUDGET, torch.zeros(1, 1, 8, 8))
    task = cf.tasks.classification("digits")
    run = Run.open(tmp_path / "run", {})
    yield replace(found, task=task, options=QUICK), run
    run.close()


def test_the_exported_network_is_within_all_bounds_at_once(small):
    asked, run = small
    (member,) = METHODS.get("mcu").value().search(asked, run)
    net = member.build(asked.net, run.folder)
    program = capture(net, asked.example)
    path = run.folder / "member.tflite"
    to_tflite(program, calibrate(program, asked.task.calibration_batches(2, 16))).save(path)
    cost = asked.target.cost_file(path).total
    assert asked.budget.met(cost)
    assert not asked.budget.met(asked.original_cost)
    assert {key: member.predicted[key] for key in BUDGET} == pytest.approx(
        {key: cost[key] for key in BUDGET}
    )
    searched = [e for e in run.journal.events if e.get("event") == "search"]
    assert searched[-1]["frozen"] and not searched[0]["frozen"]
    # asked for less in the same run, the search goes on from what it found
    less = {**asked.budget.limits, "latency_ms": 0.8 * cost["latency_ms"]}
    family = list(METHODS.get("mcu").value().search(replace(asked, budget=Budget(less)), run))
    assert [c.id for c in family] == ["mcu-01", "mcu-02"]
    assert Budget(less).met(family[-1].predicted)


class Killed(Exception):
    pass


def test_a_search_that_was_cut_off_ends_like_one_that_was_not(problem, monkeypatch):
    import chipfit.supernet.loop as loop

    def decided(run, found):
        return [(c.edits, c.predicted, (run.folder / c.weights).read_bytes()) for c in found]

    options = {**QUICK, "tighten": 0.3, "freeze": 0.7}
    whole, run = problem("analytic", {"macs": 0.6})
    method = METHODS.get("mcu").value()
    expected = decided(run, method.search(replace(whole, options=options), run))

    write = loop.write_search
    monkeypatch.setattr(loop.LoopSettings, "__post_init__", lambda self: object.__setattr__(
        self, "checkpoint_steps", 1
    ), raising=False)  # fmt: skip
    for last in (2, 5):  # before masks are frozen, and after
        cut, run = problem("analytic", {"macs": 0.6})
        cut = replace(cut, options=options)

        def stopping(path, identity, state, rule, last=last):
            write(path, identity, state, rule)
            if state.step == last:
                raise Killed

        monkeypatch.setattr(loop, "write_search", stopping)
        with pytest.raises(Killed):
            list(method.search(cut, run))
        monkeypatch.setattr(loop, "write_search", write)
        run.close()
        again = Run.open(run.folder, {})
        found = decided(again, method.search(cut, again))
        again.close()
        assert found == expected
        steps = [json.loads(line) for line in (again.folder / "journal.jsonl").open()]
        assert sum(e.get("event") == "ratios" for e in steps) == 1


def test_hopeless_and_unknown_bounds_are_refused(branchy):
    method = METHODS.get("mcu").value()
    problem, _, _ = asked(branchy, "cortex-m4", {"macs": 0.5})
    with pytest.raises(InfeasibleBudget, match="peak_sram_bytes"):
        McuResources(
            replace(problem, budget=Budget({"peak_sram_bytes": 2000.0}), memo={}),
            asked(branchy, "cortex-m4", {"macs": 0.5})[2],
        ).check()
    with pytest.raises(BadInput, match="energy_mj"):
        McuResources(
            replace(problem, budget=Budget({"energy_mj": 1.0}), memo={}),
            asked(branchy, "cortex-m4", {"macs": 0.5})[2],
        ).check()
    assert method.defaults["widths"] == 64
