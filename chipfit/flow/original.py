# SPDX-License-Identifier: Apache-2.0
"""The network that came in: is its budget within reach, and is it trained?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from chipfit.cost.cost import Cost
from chipfit.files import read_state, write_state
from chipfit.graph.capture import trace
from chipfit.methods.base import Method, Problem
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.train.jobs import training_lines
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed
from chipfit.train.recipe import Recipe


def check_budget(problem: Problem, method: Method, run: Run) -> None:
    """Refuse a hopeless budget before anything is trained."""
    if run.recall("budget/checked") is not None:
        return
    workload = trace(problem.net, problem.example)
    total = problem.target.cost(workload).total
    cost = Cost({**problem.target.static_cost(workload), **total.values}, total.provenance)
    problem.progress(f"{problem.target.name}: the original costs {_figures(cost)}")
    original = Candidate(ORIGINAL, cost=dict(cost.values), provenance=cost.provenance)
    method.check(replace(problem, budget=problem.budget.resolve(cost), original=original))
    run.record("budget", "budget/checked", cost=cost.to_json())


def _figures(cost: Cost) -> str:
    parts = [f"{cost[key]:.4g} {key}" for key in ("latency_ms", "macs", "params") if key in cost]
    return ", ".join(parts)


def train_original(problem: Problem, run: Run, recipe: Recipe, trained: bool) -> Candidate:
    """Leave ``problem.net`` trained, and its weights in the run directory."""
    weights = run.candidate_folder(ORIGINAL) / "weights.safetensors"
    done = run.recall("original/trained")
    if done is not None and weights.exists():
        problem.net.load_state_dict(read_state(weights))
    else:
        if not trained:
            fit_model(
                problem.net, problem.task, recipe, seed=stream_seed(problem.seed, 0),
                checkpoint=run.checkpoint_folder(ORIGINAL) / "training.safetensors",
                on_progress=training_lines("training", problem.progress, 2.0),
            )  # fmt: skip
        write_state(weights, problem.net.state_dict())
        metric = problem.task.metric
        value = problem.task.evaluate(problem.net, "val")[metric]
        done = run.record("original", "original/trained", metrics={f"val_{metric}": value})
    problem.progress(f"the original: {_metrics(done['metrics'])}")
    return Candidate(ORIGINAL, weights=f"candidates/{ORIGINAL}/{weights.name}",
                     metrics=done["metrics"])  # fmt: skip


def _metrics(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
