# SPDX-License-Identifier: Apache-2.0
"""Proposals of one step: each tuned in a worker process, once per run; the most accurate stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.errors import TrainingDiverged
from chipfit.methods.base import Problem
from chipfit.runs.run import Run

Results = dict[str, dict[str, Any]]


def tune_proposals(
    problem: Problem, run: Run, key: str, work: Callable[[Any, Any], Mapping[str, Any]],
    jobs: Mapping[str, Any], weights: Mapping[str, Path], facts: Mapping[str, Mapping[str, Any]],
) -> Results:  # fmt: skip
    """Run the jobs that were not done before a restart, record them, and return all results.

    Args:
        problem: Whose pool works.
        run: Where results are recorded, under ``KEY/NAME``.
        key: ``METHOD/step/NUMBER``.
        work: What a worker does: ``work(bench, job)``.
        jobs: By name of the proposal.
        weights: File that each job leaves; without it a result counts for nothing.
        facts: What else the journal says of each proposal, its ``width`` and ``predicted`` cost.
    """
    step = int(key.rpartition("/")[2])
    missing = [
        name for name in jobs
        if run.recall(f"{key}/{name}") is None or not weights[name].exists()
    ]  # fmt: skip
    tasks = [jobs[name] for name in missing]
    for number, (at, result) in enumerate(problem.pool.map(work, tasks), 1):
        name = missing[at]
        run.record("proposal", f"{key}/{name}", step=step, group=name, **facts[name], **result)
        problem.progress(f"step {step}: proposal {number} of {len(missing)}")
    return {name: run.recall(f"{key}/{name}") or {} for name in jobs}


def alive(problem: Problem, results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the proposals whose training did not diverge.

    Raises:
        TrainingDiverged: There is none.
    """
    found = [name for name, result in results.items() if problem.val_metric in result]
    if not found:
        reason = next(iter(results.values())).get("diverged")
        raise TrainingDiverged(
            f"every proposal of this step diverged: {reason}",
            "lower the learning rate of the recipe",
        )
    return found


def most_accurate(
    problem: Problem, results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Cost]
) -> str:
    """Return the proposal to keep; ties go to the cheaper, then to the earlier.

    Raises:
        TrainingDiverged: Every one of them diverged.
    """
    metric, sign = problem.val_metric, 1 if problem.task.higher_is_better else -1
    key, order = problem.budget.keys[0], list(results)
    return max(
        alive(problem, results),
        key=lambda n: (sign * results[n][metric], -costs[n][key], -order.index(n)),
    )
