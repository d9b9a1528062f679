# SPDX-License-Identifier: Apache-2.0
"""One step of RAN-e: patterns within a bound are proposed, recovered shortly, and one is kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from chipfit.errors import InfeasibleBudget
from chipfit.methods.base import Problem
from chipfit.methods.proposals import most_accurate, tune_proposals
from chipfit.methods.ran_e_inherit import edits_of
from chipfit.methods.ran_e_jobs import Learned, ProposalJob, propose
from chipfit.methods.ran_e_plan import Plan, check_reach
from chipfit.runs.run import Run
from chipfit.train.jobs import TuneJob
from chipfit.train.randomness import stream_seed
from chipfit.train.recovery import short_recovery

Row = tuple[int, ...]
#: Share of the distillation from the original in short recoveries.
DISTILLATION = 0.7


def take_step(
    problem: Problem, run: Run, settings: Mapping[str, Any], step: int, plan: Plan,
    learned: Learned, limits: Mapping[str, float], log_odds: Mapping[str, float],
    scores: list[np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    """Recover every proposal shortly and record the one to keep."""
    rows = _rows(plan, settings, limits, log_odds, scores)
    if not rows:
        check_reach(problem, plan)
        raise InfeasibleBudget(
            f"no pattern is within {', '.join(f'{k}={v:.4g}' for k, v in limits.items())}",
            "the members found so far are in the run directory; raise the budget",
        )
    costs = dict(zip(rows, plan.costs.networks(list(rows.values())), strict=True))
    folder = run.checkpoint_folder(f"ran-e-step-{step:02}")
    recipe = short_recovery(problem.task.recipe, int(settings["short_steps"])).replace(
        distillation_weight=DISTILLATION
    )
    jobs: dict[str, ProposalJob] = {}
    for label, row in rows.items():
        chosen, place = plan.options(row), label.replace(" ", "-")
        edits = edits_of(chosen)
        jobs[label] = ProposalJob(
            learned, chosen,
            TuneJob(
                before=edits, weights_before=folder / f"{place}-start.safetensors", after=edits,
                weights_after=folder / f"{place}.safetensors", recipe=recipe,
                seed=stream_seed(problem.seed, "ran-e", step, label),
                images=int(settings["val_images"]) or None,
            ),
        )  # fmt: skip
    results = tune_proposals(
        problem, run, f"ran-e/step/{step}", propose, jobs,
        {label: job.tuning.weights_after for label, job in jobs.items()},
        {label: {"width": _pattern_text(plan, row), "predicted": dict(costs[label].values)}
         for label, row in rows.items()},
    )  # fmt: skip
    best = most_accurate(problem, results, costs)
    weights = run.candidate_folder(f"ran-e-{step:02}") / "short.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    jobs[best].tuning.weights_after.replace(weights)
    done = run.record(
        "step", f"ran-e/step/{step}", step=step, group=best, width=_pattern_text(plan, rows[best]),
        row=list(rows[best]), predicted=dict(costs[best].values), proposals=len(rows),
        constraint=dict(limits), budget_ms=limits.get("latency_ms"),
        **{problem.val_metric: results[best][problem.val_metric]},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    return done


def _rows(
    plan: Plan, settings: Mapping[str, Any], limits: Mapping[str, float],
    log_odds: Mapping[str, float], scores: list[np.ndarray],
) -> dict[str, Row]:  # fmt: skip
    """Return the patterns to propose by what speaks for them, each once."""
    found: dict[str, Row] = {}
    ranked = plan.best(plan.odds_scores(log_odds), limits, int(settings["proposals"]))
    for place, row in enumerate(ranked, 1):
        found[f"log-odds {place}"] = row
    if settings["refine"] or not ranked:
        for label, own in (
            ("worth", scores),
            ("worth and log-odds", plan.both_scores(scores, log_odds)),
        ):
            for row in plan.best(own, limits):
                if row not in found.values():
                    found[label] = row
    return found


def _pattern_text(plan: Plan, row: Row) -> str:
    """Return a pattern in a line: ``-`` kept, ``L`` linear, ``s`` kept but smaller, by block."""
    letters = []
    for option in plan.options(row).values():
        letters.append("L" if option.linear else "s" if option.swap is not None else "-")
    return "".join(letters)
