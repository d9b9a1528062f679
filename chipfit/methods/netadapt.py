# SPDX-License-Identifier: Apache-2.0
"""NetAdapt: narrow one layer at a time, always by what the device charges.

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications",
ECCV 2018, arXiv 1804.03230, Algorithm 1: every step asks for a cost lower by ``dR_i``; each layer
proposes its largest width that satisfies it, with the filters of largest L2 norm; each proposal
is fine-tuned shortly; the most accurate on held-out training data becomes the next network.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.proposals import alive, most_accurate, tune_proposals
from chipfit.methods.reach import check_reachable, cost_text
from chipfit.methods.schedule import ReductionSchedule, spanning
from chipfit.methods.widths import WidthPricer, keep_largest
from chipfit.rewrite.edits import Edit
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.space.choice import SearchSpace
from chipfit.space.widths import width_space
from chipfit.train.jobs import TuneJob, tune
from chipfit.train.randomness import stream_seed
from chipfit.train.recovery import short_recovery


@dataclass(frozen=True)
class Proposal:
    """One layer's offer in one step: its new width and what the network would cost."""

    group: str
    width: int
    kept: tuple[int, ...]
    cost: Cost


@METHODS.register(
    "netadapt",
    summary="narrow one layer at a time, by what the device charges",
    source="Yang et al., ECCV 2018, arXiv 1804.03230",
)
class NetAdapt:
    """The method, with the options below.

    ``steps``, ``decay`` and ``initial_reduction`` make the schedule (``initial_reduction`` 0:
    whatever reaches the budget in ``steps`` steps); ``short_steps`` is the number of iterations
    of a short fine-tune; ``selection`` is ``accuracy`` (the paper) or ``ratio`` (the authors'
    released code: least accuracy lost per resource saved); ``val_images`` limits the held-out
    images that judge a proposal (0: all).
    """

    #: A task's own loop is enough: nothing here asks for batches or gradients.
    own_loops = True
    defaults: Mapping[str, Any] = {
        "steps": 16, "decay": 0.96, "initial_reduction": 0.0, "short_steps": 30,
        "selection": "accuracy", "val_images": 2000,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where the narrowest network is over budget, or the schedule ends above it."""
        options, _, pricer, space = self._open(problem)
        start, cheapest = pricer.price([dict(space.largest()), dict(space.smallest())])
        check_reachable(problem, start, cheapest)
        _schedule(problem.budget, start, options)

    def _open(
        self, problem: Problem
    ) -> tuple[dict[str, Any], dict[str, ChannelGroup], WidthPricer, SearchSpace]:
        options = {**self.defaults, **problem.options}
        if options["selection"] not in ("accuracy", "ratio"):
            raise BadInput(f"selection {options['selection']!r}", "accuracy or ratio")
        groups = channel_groups(problem.net, problem.example, problem.keep)
        space = width_space(groups, problem.target.alignment)
        return options, {g.name: g for g in groups}, WidthPricer(problem, groups), space

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield ``Net_1``, ``Net_2``, ... with their weights after the short fine-tune."""
        options, groups, pricer, space = self._open(problem)
        widths = dict(space.largest())
        start, cheapest = pricer.price([widths, dict(space.smallest())])
        check_reachable(problem, start, cheapest)
        schedule = _schedule(problem.budget, start, options)
        kept = {name: tuple(range(width)) for name, width in widths.items()}
        parent, cost = problem.original, start
        for step in range(1, 10 * schedule.steps):
            if problem.budget.met(cost):
                return
            key = f"netadapt/step/{step}"
            done = run.recall(key)
            if done is None:
                limits, offers = _offers(
                    pricer, space, widths, problem, start, cost, schedule, step
                )
                done = _take_step(
                    problem, run, options, step, parent, groups, kept, limits, offers, pricer
                )
            widths = widths | {done["group"]: done["width"]}
            kept = kept | {done["group"]: tuple(done["kept"])}
            before, cost = cost, Cost(done["predicted"], "predicted")
            parent = _candidate(problem, step, parent, widths, pricer.edits(kept), done, before)
            problem.progress(
                f"step {step}: {done['group']} {done['from']} -> {done['width']}, "
                f"{cost_text(cost)}, validation {done[problem.val_metric]:.4f}"
            )
            yield parent
        if not problem.budget.met(cost):
            raise InfeasibleBudget(
                f"{step} steps end at {cost_text(cost, problem.budget)}, above {problem.budget}",
                "raise initial_reduction or decay; the members found are in the run directory",
            )


def _schedule(budget: Budget, start: Cost, options: Mapping[str, Any]) -> ReductionSchedule:
    lowest = min(1.0, *(limit / start[key] for key, limit in budget.limits.items()))
    if options["initial_reduction"]:
        schedule = ReductionSchedule(
            float(options["initial_reduction"]), float(options["decay"]), int(options["steps"])
        )
        schedule.check(lowest)
        return schedule
    if lowest >= 1.0:
        return ReductionSchedule(0.01, 1.0, 1)
    return spanning(lowest, float(options["decay"]), int(options["steps"]))


def _offers(
    pricer: WidthPricer, space: SearchSpace, widths: Mapping[str, int], problem: Problem,
    start: Cost, now: Cost, schedule: ReductionSchedule, step: int,
) -> tuple[dict[str, float], list[tuple[str, int, Cost]]]:  # fmt: skip
    """Return the constraint of a step and the proposals that meet it.

    Late in a search no single layer may be able to give the whole ``dR``; the paper stops there.
    Here the step is halved, at last to any saving at all, so that every reachable budget is met.
    """
    reduction = schedule.reduction(step)
    for share in (reduction, reduction / 2, reduction / 4, 1e-6):
        limits = _constraint(problem.budget, start, now, share)
        offers = _proposals(pricer, space, widths, limits)
        if offers:
            return limits, offers
    raise InfeasibleBudget(
        f"after step {step - 1} no single layer can save anything more: the cheapest reachable "
        f"network costs {cost_text(now, problem.budget)}, the budget is {problem.budget}",
        "the members found so far are in the run directory; raise the budget",
    )


def _constraint(budget: Budget, start: Cost, now: Cost, reduction: float) -> dict[str, float]:
    """``Con_j = max(Res_j - dR_j, Bud_j)`` for every bounded resource."""
    return {
        key: max(now[key] - reduction * start[key], limit) if now[key] > limit else limit
        for key, limit in budget.limits.items()
    }


def _proposals(
    pricer: WidthPricer, space: SearchSpace, widths: Mapping[str, int], limits: Mapping[str, float]
) -> list[tuple[str, int, Cost]]:
    """Return each group's largest width that meets ``limits``; groups that have none are left out.

    All groups go down together, one width at a time, so that the prices of a round are asked for
    in one batch.
    """
    ladders = {c.name: c.below(widths[c.name]) for c in space}
    found: dict[str, tuple[str, int, Cost]] = {}
    while ladders := {n: ladder for n, ladder in ladders.items() if ladder and n not in found}:
        tries = [(name, ladder.pop(0)) for name, ladder in ladders.items()]
        costs = pricer.price([{**widths, name: width} for name, width in tries])
        for (name, width), cost in zip(tries, costs, strict=True):
            if all(cost[key] <= limit for key, limit in limits.items()):
                found[name] = (name, width, cost)
    return [found[choice.name] for choice in space if choice.name in found]


def _take_step(
    problem: Problem, run: Run, options: Mapping[str, Any], step: int, parent: Candidate,
    groups: Mapping[str, ChannelGroup], kept: Mapping[str, tuple[int, ...]],
    limits: Mapping[str, float], offers: list[tuple[str, int, Cost]], pricer: WidthPricer,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune every proposal shortly and record the one to keep."""
    net = parent.build(problem.net, run.folder) if parent.weights else problem.net
    folder = run.checkpoint_folder(f"netadapt-step-{step:02}")
    jobs, entries = [], []
    for name, width, cost in offers:
        chosen = keep_largest(net, groups[name], kept[name], width)
        entries.append(Proposal(name, width, chosen, cost))
        jobs.append(
            TuneJob(
                before=parent.edits,
                weights_before=run.folder / parent.weights if parent.weights else None,
                after=pricer.edits({**kept, name: chosen}),
                weights_after=folder / f"{name}.safetensors",
                recipe=short_recovery(problem.task.recipe, int(options["short_steps"])),
                seed=stream_seed(problem.seed, "netadapt", step, name),
                images=int(options["val_images"]) or None,
            )
        )
    results = list(
        tune_proposals(
            problem, run, f"netadapt/step/{step}", tune,
            {p.group: job for p, job in zip(entries, jobs, strict=True)},
            {p.group: job.weights_after for p, job in zip(entries, jobs, strict=True)},
            {p.group: {"width": p.width, "predicted": dict(p.cost.values)} for p in entries},
        ).values()
    )  # fmt: skip
    best = _select(options["selection"], entries, results, parent, problem)
    target = run.candidate_folder(f"netadapt-{step:02}") / "short.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{entries[best].group}.safetensors").replace(target)
    chosen_one = entries[best]
    done = run.record(
        "step", f"netadapt/step/{step}", step=step, group=chosen_one.group,
        width=chosen_one.width, kept=list(chosen_one.kept),
        predicted=dict(chosen_one.cost.values), proposals=len(entries),
        constraint=dict(limits), budget_ms=limits.get("latency_ms"),
        **{"from": len(kept[chosen_one.group]),
           problem.val_metric: results[best][problem.val_metric]},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return done


def _select(
    rule: str, entries: list[Proposal], results: list[dict[str, Any]], parent: Candidate,
    problem: Problem,
) -> int:  # fmt: skip
    """Return the index of the proposal to keep; ties go to the cheaper, then to the earlier."""
    by_group = {p.group: result for p, result in zip(entries, results, strict=True)}
    order = [p.group for p in entries]
    if rule == "accuracy":
        costs = {p.group: p.cost for p in entries}
        return order.index(most_accurate(problem, by_group, costs))
    metric, sign = problem.val_metric, 1 if problem.task.higher_is_better else -1
    key = problem.budget.keys[0]
    before = parent.predicted.get(key, problem.original_cost[key])

    def score(i: int) -> tuple[float, float, int]:
        accuracy, cost = sign * results[i][metric], entries[i].cost[key]
        lost = sign * parent.metrics[metric] - accuracy + 1e-6
        return -lost / (before - cost + 1e-5), -cost, -i

    return max((order.index(name) for name in alive(problem, by_group)), key=score)


def _candidate(
    problem: Problem, step: int, parent: Candidate, widths: Mapping[str, int],
    edits: tuple[Edit, ...], done: Mapping[str, Any], before: Cost,
) -> Candidate:  # fmt: skip
    name = f"netadapt-{step:02}"
    bought = {
        f"{key}_saved": before[key] - value
        for key, value in done["predicted"].items()
        if key in before
    }
    change = {
        "step": step, "group": done["group"], "from": done["from"], "to": done["width"],
        f"{problem.val_metric}_before": parent.metrics.get(problem.val_metric),
        f"{problem.val_metric}_after": done[problem.val_metric], **bought,
    }  # fmt: skip
    return Candidate(
        id=name, edits=edits, weights=f"candidates/{name}/short.safetensors", step=step,
        architecture=dict(widths), parent=parent.id, predicted=dict(done["predicted"]),
        metrics={problem.val_metric: done[problem.val_metric]}, changes=[*parent.changes, change],
    )  # fmt: skip
