# SPDX-License-Identifier: Apache-2.0
"""Search, recover accuracy, finish; again where the files cost more than was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.errors import InfeasibleBudget, TrainingDiverged
from chipfit.flow.finalise import finish_all
from chipfit.flow.settings import Settings
from chipfit.methods.base import Method, Problem
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.train.jobs import TuneJob, tune
from chipfit.train.randomness import stream_seed
from chipfit.train.recipe import Recipe
from chipfit.train.recovery import long_recovery

#: How often a search goes on with a tighter budget where files cost more than was predicted.
TIGHTENINGS = 4


def search_family(
    problem: Problem,
    method: Method,
    run: Run,
    recipe: Recipe,
    chosen: Settings,
    seedling: Candidate,
) -> Budget:
    """Search, recover and finish, again with a tighter budget where files cost more than said.

    Returns:
        The absolute budget.

    Raises:
        InfeasibleBudget: No exported file is within it; everything found is in the run directory.
    """
    with run.stage("finish the original", problem.pool):
        original = _finish([seedling], problem, run)[0]
    cost = Cost(dict(original.cost), original.provenance)
    budget = problem.budget.resolve(cost)
    run.record("budget", "budget/resolved", limits=dict(budget.limits))
    bound = budget
    family: list[Candidate] = []
    for _ in range(TIGHTENINGS):
        asked = replace(problem, budget=bound, original=original)
        with run.stage(f"search ({chosen.method})", problem.pool):
            family = spread(list(method.search(asked, run)), chosen.members, bound.keys[0])
            for candidate in family:
                if not (run.candidate_folder(candidate.id) / "candidate.json").exists():
                    run.save(candidate)  # a run cut off from here on has members to show
        with run.stage("recover accuracy", problem.pool):
            family = _recover(family, problem, run, recipe, chosen)
        with run.stage("export, check and cost", problem.pool):
            family = _finish(family, problem, run)
        last = family[-1] if family else original
        excess = budget.excess(Cost(dict(last.cost), last.provenance))
        if not excess:
            run.journal.append("finished", budget_met=True)
            return budget
        # The files cost more than the table said: ask for as much less.
        problem.progress(f"{last.id} is over budget once compiled ({excess}); searching on")
        tight = {
            key: min(bound.limits[key], last.predicted.get(key, limit) / excess.get(key, 1.0))
            * (0.999 if key in excess else 1.0)
            for key, limit in bound.limits.items()
        }
        bound = Budget(tight)
    run.journal.append("finished", budget_met=False)
    raise InfeasibleBudget(
        f"no exported file is within {budget}: the cheapest, {family[-1].id}, costs "
        + ", ".join(f"{key}={family[-1].cost[key]:.4g}" for key in budget.keys),
        f"all members are in {run.folder}; raise the budget",
    )


def spread(candidates: Sequence[Candidate], count: int, key: str) -> list[Candidate]:
    """Return at most ``count`` candidates, spread evenly over their predicted cost.

    The last one stays in any case: it is the one that was asked for.
    """
    if len(candidates) <= count:
        return list(candidates)
    left = list(candidates[:-1])
    last = candidates[-1]
    first = left[0].predicted[key]
    kept = [last]
    for i in range(max(count - 1, 0)):
        wanted = first + (last.predicted[key] - first) * i / (count - 1)
        nearest = min(left, key=lambda c: (abs(c.predicted[key] - wanted), c.step))
        left.remove(nearest)
        kept.append(nearest)
    return sorted(kept, key=lambda c: c.step)


def _finish(candidates: Sequence[Candidate], problem: Problem, run: Run) -> list[Candidate]:
    return finish_all(
        candidates, run, problem.target, problem.table, problem.pool, problem.example, problem.net,
        problem.progress, problem.calibration,
    )  # fmt: skip


def _recover(
    family: Sequence[Candidate], problem: Problem, run: Run, recipe: Recipe, chosen: Settings
) -> list[Candidate]:
    """Fine-tune every member for long, with the original as teacher.

    A member whose weights were freshly drawn has nothing to recover: it is trained as the original.
    """
    metric = f"val_{problem.task.metric}"
    paths = {c.id: run.candidate_folder(c.id) / "weights.safetensors" for c in family}
    waiting = [
        c for c in family if run.recall(f"recover/{c.id}") is None or not paths[c.id].exists()
    ]
    jobs = [
        TuneJob(
            before=c.edits, weights_before=run.folder / c.weights, after=c.edits,
            weights_after=paths[c.id],
            recipe=recipe if c.fresh else long_recovery(recipe, chosen.recovery_epochs),
            seed=stream_seed(problem.seed, "recover", c.id),
            checkpoint=run.checkpoint_folder("recover") / f"{c.id}.safetensors",
            label=f"{'training' if c.fresh else 'recovering'} {c.id}",
        )
        for c in waiting
    ]  # fmt: skip
    for number, (i, result) in enumerate(problem.pool.map(tune, jobs), 1):
        if "diverged" in result:
            raise TrainingDiverged(
                f"fine-tuning {waiting[i].id} diverged: {result['diverged']}",
                "lower the recipe's learning rate; everything before it is kept",
            )
        run.record("recover", f"recover/{waiting[i].id}", id=waiting[i].id, **result)
        problem.progress(
            f"recovered {waiting[i].id} ({number} of {len(jobs)}): {metric} {result[metric]:.4f}"
        )
    return [_recovered(c, problem, run, paths[c.id]) for c in family]


def _recovered(candidate: Candidate, problem: Problem, run: Run, weights: Path) -> Candidate:
    """Return a member with its long-term weights, unless they do worse on validation data."""
    metric = problem.val_metric
    long = (run.recall(f"recover/{candidate.id}") or {})[metric]
    short = candidate.metrics[metric]
    metrics = {**candidate.metrics, f"short_{metric}": short, f"long_{metric}": long}
    if not candidate.fresh and problem.task.better(short, long):
        return candidate.with_(metrics=metrics)
    return candidate.with_(
        weights=str(weights.relative_to(run.folder)), metrics={**metrics, metric: long}
    )
