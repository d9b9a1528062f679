import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from chipfit.cost.budget import Budget
from chipfit.errors import BadInput
from chipfit.graph import trace
from chipfit.graph.channels import channel_groups
from chipfit.methods import smcp_stage
from chipfit.methods.smcp import Smcp
from chipfit.methods.smcp_groups import maskable_groups
from chipfit.methods.smcp_rewiring import Rewiring
from chipfit.methods.smcp_schedule import PruningSchedule
from chipfit.methods.smcp_stage import open_widths
from chipfit.runs.candidate import Candidate
from chipfit.scores.channel_importance import keep_most_important, taylor_importance
from chipfit.tasks.base import Batch, Task
from chipfit.train.loop import fit_model
from chipfit.train.randomness import generator
from chipfit.train.recipe import Recipe

SETTINGS = {**Smcp.defaults, "search_steps": 8, "every": 2, "widths": 3, "val_images": 50}


@pytest.fixture
def asked(problem):
    def build(fraction=0.6, **options):
        found, run = problem("analytic", {"macs": fraction})
        return replace(found, options={**SETTINGS, **options}), run

    return build


def rewiring_of(problem, steps=8, **options):
    opened = open_widths(problem, {**SETTINGS, **problem.options})
    masks = opened.masks(problem)
    start = {"macs": problem.original_cost["macs"]}
    schedule = PruningSchedule(steps, 2, 0.0, 0.25)
    return Rewiring(masks, opened.table, schedule, start, problem.budget.limits, **options), opened


def test_widths_are_the_best_of_all_within_the_budget(asked):
    problem, _ = asked(0.7)
    names = [g.name for g in channel_groups(problem.net, problem.example) if not g.frozen]
    found, opened = rewiring_of(replace(problem, keep=tuple(names[:4] + names[8:])))
    sizes = [len(own) for own in opened.table.options]
    assert 2 <= len(sizes) <= 5
    importance = found.masks.importance
    for seed in range(4):
        for i, values in enumerate(importance.values()):
            values.copy_(torch.rand(len(values), generator=generator(seed, i)).double())
        codes = np.array(list(itertools.product(*map(range, sizes))))
        costs = opened.table.of("macs")(codes)
        limit = costs.min() + (costs.max() - costs.min()) * (0.2 + 0.2 * seed)

        def value(row):
            widths = opened.table.widths(row)
            return sum(float(v.sort(descending=True)[0][: widths[n]].sum())
                       for n, v in importance.items())  # fmt: skip

        best = max(value(row) for row in codes[costs <= limit])
        facts = found.rewire({"macs": limit})
        assert facts["cost"]["macs"] <= limit
        (row,) = opened.table.rows([facts["widths"]])
        assert value(row) == pytest.approx(best, rel=1e-9)
        for name, own in found.masks.kept.items():
            assert own == keep_most_important(importance[name], facts["widths"][name])


def test_importance_is_accumulated_from_the_gradients_of_steps(asked):
    problem, _ = asked()
    batches = list(itertools.islice(problem.task.train_batches(16, 0, 0, augment=False), 2))
    groups = maskable_groups(problem)
    looked = [taylor_importance(problem.net, groups, [b], problem.task.loss) for b in batches]
    for average, weights in (("latest", (0, 1)), ("mean", (0.5, 0.5)), ("momentum", (0.09, 0.1))):
        found, _ = rewiring_of(problem, average=average)
        found.masks.net.eval()
        for step, batch in enumerate(batches):
            found.masks.net.zero_grad()
            problem.task.loss(found.masks.net, batch).backward()
            if step == 0:
                found.schedule = PruningSchedule(100, 1, 0.5)  # no rewiring yet
            found(step)
        for name, values in found.masks.importance.items():
            wanted = sum(w * one[name] for w, one in zip(weights, looked, strict=True))
            assert torch.allclose(values, wanted, rtol=1e-4, atol=1e-7 * float(wanted.max()))


def test_masked_channels_are_worth_what_their_return_takes_off_the_loss(asked):
    problem, _ = asked()
    batch = next(problem.task.train_batches(16, 0, 0, augment=False))
    worth = {}
    for importance in ("absolute", "signed"):
        found, _ = rewiring_of(problem, average="latest", importance=importance, revival=0.5)
        masks = found.masks
        found.schedule = PruningSchedule(100, 1, 0.5)  # no rewiring yet
        masks.net.eval()
        name = next(iter(masks.importance))
        kept = range(0, len(masks.importance[name]), 2)
        masks.keep({name: kept})
        loss = problem.task.loss(masks.net, batch)
        loss.backward()
        found(0)
        worth[importance] = masks.importance[name].clone()
    absolute, signed = worth["absolute"], worth["signed"]
    gone = [c for c in range(len(signed)) if c not in kept]
    assert torch.equal(signed[list(kept)], absolute[list(kept)])
    assert all(float(signed[c]) in (0.0, float(0.5 * absolute[c])) for c in gone)
    assert 0 < sum(float(signed[c]) > 0 for c in gone) < len(gone)
    seen = 0
    for c in gone:  # a small step of the masked weights towards what they are shows the sign
        parts = [(masks.net.get_submodule(m.module), list(m.index[c])) for m in masks.readers[name]]
        with torch.no_grad():
            for module, at in parts:
                module.parametrizations.weight[0].mask[at] = 1e-2
            change = float(problem.task.loss(masks.net, batch) - loss)
            for module, at in parts:
                module.parametrizations.weight[0].mask[at] = 0.0
        if abs(change) > 1e-5:
            seen += 1
            assert (change < 0) == (float(signed[c]) > 0)
    assert seen


@pytest.mark.parametrize("mode", ["soft", "permanent"])
def test_soft_channels_come_back_and_permanent_ones_do_not(asked, mode):
    problem, _ = asked(0.4, mode=mode)
    found, _ = rewiring_of(problem, steps=16, average="latest")
    gone = []
    found.on_rewired = lambda facts: gone.append(
        {(n, c) for n, own in found.masks.kept.items()
         for c in set(range(len(found.masks.importance[n]))) - set(own)}
    )  # fmt: skip
    recipe = problem.task.recipe.replace(steps=16, batch_size=16)
    fit_model(found.masks.net, problem.task, recipe, on_gradients=found)
    back = sum(len(before - after) for before, after in itertools.pairwise(gone))
    assert found.revived == back and len(gone) > 4
    assert (back > 0) == (mode == "soft")


def test_a_search_that_was_stopped_ends_as_one_that_was_not(asked, monkeypatch):
    monkeypatch.setattr(smcp_stage, "CHECKPOINT_STEPS", 2)

    def members(problem, run):
        return [
            (c.id, c.edits, dict(c.predicted), (run.folder / c.weights).read_bytes())
            for c in Smcp().search(problem, run)
        ]

    problem, run = asked(levels=2, decay=0.01, search_steps=16)
    wanted = members(problem, run)
    assert len(wanted) == 2
    problem, run = asked(levels=2, decay=0.01, search_steps=16)
    lines = []

    class Stopped(Exception):
        pass

    def stop(line):
        lines.append(line)
        if sum("masked" in one for one in lines) in stops:
            stops.pop(0)
            raise Stopped

    stops = [3, 8]  # in both stages, after a checkpoint and in the middle of a step
    stopping = replace(problem, progress=stop)
    for _ in range(2):
        with pytest.raises(Stopped):
            members(stopping, run)
    assert members(problem, run) == wanted


def test_levels_are_stages_and_a_tighter_budget_is_one_more(asked):
    problem, run = asked(0.5, levels=2)
    family = list(Smcp().search(problem, run))
    start, end = problem.original_cost["macs"], problem.budget.limits["macs"]
    costs = [c.predicted["macs"] for c in family]
    assert len(costs) == 2 and end < costs[0] <= (start + end) / 2 and costs[1] <= end
    tighter = replace(problem, budget=Budget({"macs": 0.9 * costs[1]}))
    again = list(Smcp().search(tighter, run))
    assert [c.id for c in again[:2]] == [c.id for c in family] and len(again) == 3
    assert tighter.budget.met(again[-1].predicted)
    searched = [e for e in run.journal.events if e.get("event") == "search"]
    assert [e["step"] for e in searched] == sorted(e["step"] for e in searched)
    for event in searched:
        assert event["expected"]["macs"] <= event["budget"]["macs"]
    errors = [run.recall(f"smcp/step/{i}")["masked_to_sliced_error"] for i in (1, 2, 3)]
    assert max(errors) < 1e-4


class Denoise(Task):
    """Noise in, the clean image out: no classes, and a loss of its own."""

    name, metric, higher_is_better = "denoise", "mse", False
    input_shape = (1, 1, 8, 8)
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.01)
    test_reads = 0

    def steps_per_epoch(self, batch_size):
        return 4

    def _batch(self, size, *numbers):
        noise = torch.randn(2, size, 1, 8, 8, generator=generator(*numbers))
        return Batch(noise[0] + 0.1 * noise[1], noise[0])

    def train_batches(self, batch_size, seed, epoch, *, start=0, augment=True):
        return (self._batch(batch_size, seed, epoch, i) for i in range(start, 4))

    def criterion(self, outputs, batch, label_smoothing=0.0):
        return (outputs - batch.targets).square().mean()

    def evaluate(self, model, split="val", limit=None):
        batch = self._batch(16, 99)
        with torch.no_grad():
            error = (model.eval()(batch.inputs) - batch.targets).square().mean()
        return {"mse": float(error), "images": 16}

    def calibration_batches(self, count, batch_size=1):
        return [self._batch(batch_size, 98, i).inputs for i in range(count)]

    def test_arrays(self):
        raise NotImplementedError


def test_any_task_with_a_loss_can_be_pruned_for(problem):
    found, run = problem("analytic", {"macs": 0.9})
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.PReLU(12), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 1, 3, padding=1),
    ).eval()  # fmt: skip
    example = torch.zeros(1, 1, 8, 8)
    macs = trace(net, example).macs
    original = Candidate(
        "original", metrics={"val_mse": 1.0}, cost={"macs": macs}, provenance="modelled"
    )
    asked = replace(
        found, net=net, example=example, task=Denoise(), original=original, memo={},
        budget=Budget({"macs": 0.5 * macs}), options={**SETTINGS, "distillation": 0.0},
    )  # fmt: skip
    (member,) = Smcp().search(asked, run)
    built = member.build(net, run.folder)
    assert trace(built, example).macs == member.predicted["macs"] <= 0.5 * macs
    assert member.metrics["val_mse"] > 0


def test_groups_whose_masks_would_not_be_removals_are_left_alone(problem):
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
            self.c = nn.Conv2d(8, 10, 4)

        def forward(self, x):
            x = self.a(x).relu()
            x = x - x.mean(1, keepdim=True)  # every channel depends on all others
            return self.c(self.b(x).relu()).flatten(1)

    found, _ = problem("analytic", {"macs": 0.9})
    asked = replace(found, net=Centred().eval(), memo={})
    groups = {g.name: g.frozen for g in maskable_groups(asked)}
    assert groups["a"] and not groups["b"]


def test_options_out_of_range_are_refused(asked):
    for wrong in ({"widths": 1}, {"warmup": 0.8, "cooldown": 0.3}, {"scaling": "x"}, {"every": 0}):
        problem, _ = asked(**wrong)
        with pytest.raises(BadInput, match=next(iter(reversed(wrong)))):
            Smcp().check(problem)
