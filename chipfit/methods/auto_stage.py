# SPDX-License-Identifier: Apache-2.0
"""One member of ``auto``'s family: proposals of all criteria, trained by successive halving."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from chipfit.graph.channels import ChannelGroup
from chipfit.methods.auto_criteria import BY_TAYLOR, Known, proposals
from chipfit.methods.auto_scores import DistanceJob, distances, interpolated, probed
from chipfit.methods.base import Problem
from chipfit.methods.proposals import alive, most_accurate, tune_proposals
from chipfit.methods.width_table import WidthTable
from chipfit.runs.run import Run
from chipfit.scores.channel_importance import (
    keep_most_important,
    magnitude_importance,
    taylor_importance,
)
from chipfit.train.jobs import TuneJob, tune
from chipfit.train.randomness import stream_seed
from chipfit.train.recipe import Recipe
from chipfit.train.recovery import short_recovery


def look(
    problem: Problem, run: Run, options: Mapping[str, Any], groups: Sequence[ChannelGroup],
    table: WidthTable,
) -> Known:  # fmt: skip
    """Return importances and measured distances of the original; measured once per run."""
    seed = stream_seed(problem.seed, "auto", "importance")
    batches = problem.task.train_batches(problem.task.recipe.batch_size, seed, 0)
    taylor = taylor_importance(
        problem.net, table.groups, islice(batches, int(options["importance_batches"])),
        problem.task.loss,
    )  # fmt: skip
    jobs, names = [], []
    tries = {c.name: probed(c.options, int(options["points"])) for c in table.space}
    for name, widths in tries.items():
        if "measured" in options["criteria"] and run.recall(f"auto/score/{name}") is None:
            kept = [{name: keep_most_important(taylor[name], width)} for width in widths]
            names.append(name)
            variants = tuple(table.pricer.edits(one) for one in kept)
            jobs.append(DistanceJob(variants, int(options["score_images"])))
    for number, (at, found) in enumerate(problem.pool.map(distances, jobs), 1):
        name = names[at]
        run.record("score", f"auto/score/{name}", group=name, widths=tries[name], distance=found)
        problem.progress(f"{number} of {len(jobs)} groups measured")
    lost = {}
    for choice in table.space:
        done = run.recall(f"auto/score/{choice.name}")
        if done is not None:
            measured = dict(zip(done["widths"], done["distance"], strict=True))
            ascending = sorted(float(v) for v in taylor[choice.name])
            lost[choice.name] = interpolated(choice.options, measured, ascending)
    return Known(magnitude_importance(problem.net, table.groups), taylor, lost)


def take_step(
    problem: Problem, run: Run, options: Mapping[str, Any], table: WidthTable, step: int,
    known: Known, limits: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Propose, train, and record the network that stays."""
    rows = proposals(options["criteria"], table, known, limits, problem.progress)
    kept = {
        name: {
            group: keep_most_important(
                (known.taylor if name in BY_TAYLOR else known.magnitude)[group], width
            )
            for group, width in table.widths(row).items()
        }
        for name, row in rows.items()
    }
    costs = dict(zip(rows, table.networks(list(rows.values())), strict=True))
    facts: dict[str, dict[str, Any]] = {
        name: {"width": sum(table.widths(row).values()), "predicted": dict(costs[name].values)}
        for name, row in rows.items()
    }
    folder = run.checkpoint_folder(f"auto-step-{step:02}")
    left = list(rows)
    weights: dict[str, Path] = {}
    results: dict[str, dict[str, Any]] = {}
    for number, steps in enumerate(options["rounds"], 1):
        jobs = {
            name: TuneJob(
                before=table.pricer.edits(kept[name]) if number > 1 else (),
                weights_before=weights.get(name), after=table.pricer.edits(kept[name]),
                weights_after=folder / f"{name}-{number}.safetensors",
                recipe=taught(problem.task.recipe, int(steps)),
                seed=stream_seed(problem.seed, "auto", step, number),
                images=int(options["val_images"]),
            )
            for name in left
        }  # fmt: skip
        weights = {name: job.weights_after for name, job in jobs.items()}
        results = tune_proposals(
            problem, run, f"auto/round-{number}/{step}", tune, jobs, weights,
            {name: facts[name] for name in left},
        )  # fmt: skip
        left = _best(problem, results, costs, math.ceil(len(alive(problem, results)) / 2))
    best = most_accurate(problem, results, costs)
    target = run.candidate_folder(f"auto-{step:02}") / "short.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    weights[best].replace(target)
    done = run.record(
        "step", f"auto/step/{step}", step=step, group=f"{best}, of {len(rows)} proposals",
        width=facts[best]["width"], predicted=dict(costs[best].values), constraint=dict(limits),
        kept={name: list(own) for name, own in kept[best].items()}, proposals=len(rows),
        budget_ms=limits.get("latency_ms"),
        **{problem.val_metric: results[best][problem.val_metric]},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return done


def taught(recipe: Recipe, steps: int) -> Recipe:
    """Return a fine-tune of some iterations with the original as teacher."""
    return short_recovery(recipe, steps).replace(
        learning_rate=0.3 * recipe.learning_rate, distillation_weight=0.7, temperature=4.0
    )


def _best(
    problem: Problem, results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any], count: int
) -> list[str]:
    left = dict(results)
    found = []
    for _ in range(count):
        found.append(most_accurate(problem, left, costs))
        del left[found[-1]]
    return [name for name in results if name in found]
