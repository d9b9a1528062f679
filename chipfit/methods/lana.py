# SPDX-License-Identifier: Apache-2.0
"""LANA: replace blocks of a trained network by an integer programme.

Molchanov et al., "LANA: Latency Aware Network Acceleration", ECCV 2022, arXiv 2107.10624 (first
version: "HANT: Hardware-Aware Network Transformation"):

1. every block has alternatives of equal input and output, itself and the identity among them;
2. each alternative learns from the activations of the teacher alone to return what the block
   returns (:mod:`chipfit.supernet.blockwise`);
3. its score is how much the loss of the network rises with this one block replaced, its price what
   the device charges;
4. an integer programme takes one alternative for each block, ``min sum s z`` within the budget,
   several times with few choices in common, and the best of these networks is kept;
5. it is fine-tuned with the original as teacher.

Our variant: blocks are found in any network; where a price depends on neighbours the programme is
linearised and solved again; alternatives that save nothing are not trained; solutions are compared
after a short recovery; and there is a family of budgets.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chipfit.cost.cost import Cost
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.lana_jobs import AssembleJob, assemble
from chipfit.methods.lana_learned import Learned
from chipfit.methods.lana_plan import OFFERED, Plan, check_plan, check_settings, open_plan
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.proposals import most_accurate, tune_proposals
from chipfit.methods.reach import cost_text
from chipfit.methods.supernet_members import member
from chipfit.runs.candidate import Candidate
from chipfit.runs.run import Run
from chipfit.train.jobs import TuneJob
from chipfit.train.randomness import stream_seed
from chipfit.train.recovery import short_recovery

#: Share of the distillation from the original in short recoveries.
DISTILLATION = 0.7


@METHODS.register(
    "lana",
    summary="replace blocks by alternatives that learnt from their activations, chosen by an"
    " integer programme",
    source="Molchanov et al., ECCV 2022, arXiv 2107.10624",
)
class Lana:
    """The method, with the options below.

    ``blocks`` names the blocks by patterns of module names, separated by spaces (``layers.*``);
    where it is empty they are found, or are those of the space that the network carries.
    ``kinds`` (of :data:`chipfit.space.replacements.KINDS`), ``kernels`` and ``expansions`` say
    what may stand for them.

    Each alternative that saves something learns for ``distil_epochs`` passes over one half of the
    training data (or ``distil_steps`` steps where positive) in batches of ``batch_size`` at
    ``learning_rate``; ``together`` of each block are in memory at once. ``score_images`` of the
    other half score it.

    At each of ``levels`` budgets the ``solutions`` best architectures, any two of which have at
    most the share ``overlap`` of their choices in common, are recovered for ``short_steps``
    iterations (0: not at all) and judged on ``val_images`` held-out images (0: all).
    """

    defaults: Mapping[str, Any] = {
        **OFFERED, "distil_epochs": 1.0, "distil_steps": 0, "batch_size": 64,
        "learning_rate": 0.02, "together": 3, "score_images": 2048, "levels": 3, "solutions": 3,
        "overlap": 0.7, "short_steps": 60, "val_images": 2000,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where no architecture is within the budget; needs no trained weights."""
        check_plan(problem, self._open(problem)[1])

    def _open(self, problem: Problem) -> tuple[dict[str, Any], Plan]:
        settings = {**self.defaults, **problem.options}
        check_settings(settings)
        return settings, open_plan(problem, settings)

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget, with its weights after the short recovery."""
        settings, plan = self._open(problem)
        check_plan(problem, plan)
        learned = Learned(problem, run, settings, plan)
        increases = learned.increases()
        start = problem.original_cost
        levels = family_levels(problem, run, "lana", int(settings["levels"]), start)
        step, cost = 0, start
        while step == 0 or not problem.budget.met(cost):
            step += 1
            done = run.recall(f"lana/step/{step}")
            if done is None:
                limits = next_limits(problem, levels, cost)
                done = _take_step(problem, run, settings, step, plan, learned, increases, limits)
            cost = Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: {done['group']}, {cost_text(cost)}, "
                f"validation {done[problem.val_metric]:.4f}"
            )
            yield member(problem, "lana", step, plan.costs, done)


def _take_step(
    problem: Problem, run: Run, settings: Mapping[str, Any], step: int, plan: Plan,
    learned: Learned, increases: Mapping[str, Mapping[str, float]], limits: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Solve, recover every solution shortly, and record the one to keep."""
    solved = run.recall(f"lana/solved/{step}") or _solve(
        problem, run, settings, step, plan, increases, limits
    )
    rows = {f"solution {i}": tuple(row) for i, row in enumerate(solved["rows"], 1)}
    costs = dict(zip(rows, plan.costs.networks(list(rows.values())), strict=True))
    folder = run.checkpoint_folder(f"lana-step-{step:02}")
    jobs = {
        label: _job(problem, settings, step, plan, learned, row, folder / label.replace(" ", "-"))
        for label, row in rows.items()
    }
    results = tune_proposals(
        problem, run, f"lana/step/{step}", assemble, jobs,
        {label: job.tuning.weights_after for label, job in jobs.items()},
        {label: {"width": _text(plan, row),
                 "predicted": dict(costs[label].values)}
         for label, row in rows.items()},
    )  # fmt: skip
    best = most_accurate(problem, results, costs)
    weights = run.candidate_folder(f"lana-{step:02}") / "short.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    jobs[best].tuning.weights_after.replace(weights)
    done = run.record(
        "step", f"lana/step/{step}", step=step, group=best, width=_text(plan, rows[best]),
        row=list(rows[best]), fresh=False, predicted=dict(costs[best].values),
        proposals=len(rows), constraint=dict(limits), budget_ms=limits.get("latency_ms"),
        assembled=results[best]["assembled"],
        **{problem.val_metric: results[best][problem.val_metric]},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return done


def _solve(
    problem: Problem, run: Run, settings: Mapping[str, Any], step: int, plan: Plan,
    increases: Mapping[str, Mapping[str, float]], limits: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Record the architectures to try, what their scores add up to, and how sure the solver is."""
    found = plan.choose(
        plan.values(increases), limits, int(settings["solutions"]), float(settings["overlap"])
    )
    problem.progress(
        f"step {step}: {len(found)} solutions in {sum(a.seconds for a in found):.2f} s, the first "
        f"{found[0].status}, expected rise of the loss {-found[0].value:.4f}"
    )
    return run.record(
        "solved", f"lana/solved/{step}", step=step, rows=[list(a.choice) for a in found],
        increases=[-a.value for a in found], status=[a.status for a in found],
        gaps=[a.gap for a in found], seconds=[round(a.seconds, 4) for a in found],
        additive=plan.additive,
    )  # fmt: skip


def _job(
    problem: Problem, settings: Mapping[str, Any], step: int, plan: Plan, learned: Learned,
    row: tuple[int, ...], place: Path,
) -> AssembleJob:  # fmt: skip
    names = plan.costs.names(row)
    edits = plan.blocks.edits(names)
    steps = int(settings["short_steps"])
    recipe = short_recovery(problem.task.recipe, max(1, steps)).replace(
        distillation_weight=DISTILLATION
    )
    return AssembleJob(
        learned.store, names,
        TuneJob(
            before=edits, weights_before=place.with_suffix(".start.safetensors"), after=edits,
            weights_after=place.with_suffix(".safetensors"), recipe=recipe,
            seed=stream_seed(problem.seed, "lana", step, place.name),
            images=int(settings["val_images"]) or None,
        ),
        recover=steps > 0,
    )  # fmt: skip


def _text(plan: Plan, row: tuple[int, ...]) -> str:
    """Return an architecture in a line: how many blocks of how many were replaced."""
    return f"{int(np.count_nonzero(row))} of {len(plan.blocks)} blocks replaced"
