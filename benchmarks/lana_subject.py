# SPDX-License-Identifier: Apache-2.0
"""A trained teacher with its trained replacements, for :mod:`benchmarks.lana_claims`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lana_choices import Values
from benchmarks.lana_judging import JudgeJob, teacher_of
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.graph.capture import trace
from chipfit.methods.base import Problem
from chipfit.methods.lana import DISTILLATION, Lana
from chipfit.methods.lana_learned import Learned
from chipfit.methods.lana_plan import Plan, open_plan
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target
from chipfit.tasks import Task
from chipfit.train.jobs import Bench, training_lines
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed
from chipfit.train.recovery import short_recovery
from chipfit.workers import WorkerPool

KINDS = ("skip", "separable", "conv", "grouped", "ghost", "bottleneck", "low-rank")


@dataclass(frozen=True)
class Subject:
    """A trained teacher with its trained replacements.

    Args:
        seed: Of everything.
        problem: Teacher, task, target and pool.
        plan: What may be chosen, with prices.
        learned: The replacements.
        values: Scores for the solver.
        errors: By choice, of each operation: relative squared error of its output.
        key: Figure that is bounded.
        folder: Where results are kept.
    """

    seed: int
    problem: Problem
    plan: Plan
    learned: Learned
    values: list[Values]
    errors: list[Values]
    key: str
    folder: Path

    def job(self, row: Sequence[int], given: Any, short: bool) -> JudgeJob:
        """Return how a network is judged."""
        recipe = short_recovery(self.problem.task.recipe, given.short_steps).replace(
            distillation_weight=DISTILLATION
        )
        text = "-".join(map(str, row))
        return JudgeJob(
            self.learned.store, self.plan.costs.names(row), self.learned.halves,
            given.score_images, recipe if short else None,
            stream_seed(self.seed, "lana-claims"),
            self.folder / f"judged{f'-{given.short_steps}' if short else ''}" / f"{text}.json",
        )  # fmt: skip


def prepare(task: Task, target: Target, given: Any, seed: int) -> Subject:
    """Train teacher and replacements, or take them from the store."""
    say = Terminal().progress
    setting = f"{given.data}-{given.steps}-{given.distil_steps}-{target.name}-{given.key}"
    folder = Path(given.store) / setting / f"{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(stream_seed(seed, "lana-claims", "teacher"))
    net = teacher_of(task)
    fit_model(
        net, task, task.recipe.replace(steps=given.steps), seed=seed,
        checkpoint=folder / "teacher.safetensors",
        on_progress=training_lines(f"teacher {seed}", say),
    )  # fmt: skip
    example = task.example_input()
    cost = target.cost(trace(net, example)).total
    problem = Problem(
        net=net, example=example, task=task, target=target,
        table=CostTable(Path(given.store) / "costs.sqlite"),
        budget=Budget({given.key: cost[given.key]}),
        original=Candidate(ORIGINAL, cost=dict(cost.values), provenance=cost.provenance),
        pool=WorkerPool(given.workers, Bench(net, task), say), seed=seed, progress=say,
    )  # fmt: skip
    settings = {
        **Lana.defaults, "kinds": KINDS, "kernels": (3,), "distil_steps": given.distil_steps,
        "score_images": given.score_images,
    }  # fmt: skip
    plan = open_plan(problem, settings)
    run = Run.open(folder / "run", {k: list(v) if isinstance(v, tuple) else v
                                    for k, v in settings.items()})  # fmt: skip
    learned = Learned(problem, run, settings, plan)
    values = plan.values(learned.increases())
    found = learned.errors()
    errors = [np.array([found.get(c.name, {}).get(o.name, 0.0) for o in c.operations])
              for c in plan.blocks]  # fmt: skip
    run.close()
    return Subject(seed, problem, plan, learned, values, errors, given.key, folder)
