# SPDX-License-Identifier: Apache-2.0
"""``fit``: a network, a device and a budget in; a family of deployable networks out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.cost.location import default_table_path
from chipfit.cost.table import CostTable
from chipfit.errors import TrainingDiverged, UnknownName
from chipfit.files import read_state, write_state
from chipfit.flow.calibration import calibration_factor
from chipfit.flow.data import open_task
from chipfit.flow.finalise import finish_all
from chipfit.flow.network import LoadedNetwork, load_network
from chipfit.flow.result import FitResult
from chipfit.graph.capture import trace
from chipfit.methods.base import METHODS, Method, Problem
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench, TuneJob, tune
from chipfit.train.loop import Progress, fit_model
from chipfit.train.randomness import stream_seed
from chipfit.train.recipe import Recipe
from chipfit.train.recovery import long_recovery
from chipfit.workers import WorkerPool

#: How often a search goes on with a tighter budget where files cost more than was predicted.
TIGHTENINGS = 4


@dataclass(frozen=True)
class Settings:
    """Options of :func:`fit` that have defaults.

    Args:
        method: A name from ``chipfit methods``.
        method_options: The method's own options.
        seed: Everything random derives from it.
        epochs: Epochs of the original's training; ``None`` for the task's recipe, 0 for none.
        recovery_epochs: Epochs of the long-term fine-tune of every member.
        weights: Safetensors file of a trained original.
        input_shape: ``(1, C, H, W)`` where it is not the data's.
        keep: Prefixes of modules whose widths stay.
        workers: Worker processes; results do not depend on it. ``None``: one a core.
        table: Path of the cost table; ``None`` for the user's own, shared by all runs.
        command: What the user typed, for the report.
    """

    method: str = "netadapt"
    method_options: Mapping[str, Any] | None = None
    seed: int = 0
    epochs: float | None = None
    recovery_epochs: float = 2.0
    weights: str | Path | None = None
    input_shape: tuple[int, ...] | None = None
    keep: Sequence[str] = ()
    workers: int | None = None
    table: str | Path | None = None
    command: str = ""


def fit(
    net: str | nn.Module,
    target: str | Target,
    budget: str | Mapping[str, float | str] | Budget,
    task: str | Task,
    *,
    run: str | Path,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> FitResult:
    """Fit a network to a device within a budget.

    Calling it again with the same ``run`` continues where it stopped, whatever stopped it.

    Args:
        net: A name of the zoo, ``timm:NAME``, ``file.py:factory``, or a trained module.
        target: A name from ``chipfit targets``, or a target.
        budget: Upper bounds, for instance ``"latency_ms=50%"`` or ``{"latency_ms": 3.0}``.
        task: A data set's name, a Python file, or a task.
        run: The run directory.
        progress: Called with one line at every step worth telling.
        **settings: Fields of :class:`Settings`.

    Returns:
        The family, with its front; ``result.budget_met`` tells whether a member is within budget.

    Raises:
        InfeasibleBudget: Nothing reachable meets the budget.
        UnknownName: A name is unknown.
        RunMismatch: ``run`` holds a run of other settings.
        UnsupportedOp: The target cannot run the network.
    """
    say = progress or (lambda line: None)
    chosen = _settings(settings)
    task_spec = task if isinstance(task, str) else None
    task = open_task(task, chosen.input_shape)
    target = create(target) if isinstance(target, str) else target
    method: Method = METHODS.get(chosen.method).value()
    options = _method_options(method, chosen)
    loaded = load_network(
        net, input_shape=chosen.input_shape, num_classes=task.num_classes or None,
        data_shape=task.input_shape, weights=chosen.weights, seed=chosen.seed,
    )  # fmt: skip
    bounds = Budget.parse(budget)
    recipe = task.recipe if chosen.epochs is None else task.recipe.replace(
        epochs=chosen.epochs or task.recipe.epochs
    )  # fmt: skip
    trained = chosen.weights is not None or (isinstance(net, nn.Module) and not chosen.epochs)
    trained = trained or chosen.epochs == 0
    config = _config(loaded, target, task, bounds, chosen, options, recipe, trained)
    config["task_spec"] = task_spec
    table = CostTable(chosen.table or default_table_path())
    workload = trace(loaded.net, loaded.example())
    target.check(workload)
    history = Run.open(run, config, _target_facts(target))
    problem: Problem | None = None
    try:
        problem = Problem(
            net=loaded.net, example=loaded.example(), task=task, target=target, table=table,
            budget=bounds, original=Candidate(ORIGINAL), seed=chosen.seed, options=options,
            pool=WorkerPool(chosen.workers or os.cpu_count() or 1, Bench(loaded.net, task)),
            keep=tuple(chosen.keep), progress=say,
        )  # fmt: skip
        if target.provenance == "measured":
            with history.stage("calibrate the prediction"):
                problem = replace(problem, calibration=calibration_factor(problem, history))
        with history.stage("check the budget"):
            _check_budget(problem, method, history)
        with history.stage("train the original"):
            seedling = _train_original(problem, history, recipe, trained)
        # The workers teach with the network as it is now.
        problem.pool.close()
        return _search(problem, method, history, recipe, chosen, seedling)
    finally:
        if problem is not None:
            problem.pool.close()
        history.close()


def _settings(given: Mapping[str, Any]) -> Settings:
    unknown = sorted(set(given) - set(Settings.__dataclass_fields__))
    if unknown:
        raise UnknownName("setting", unknown[0], Settings.__dataclass_fields__)
    return Settings(**given)


def _method_options(method: Method, chosen: Settings) -> dict[str, Any]:
    given = dict(chosen.method_options or {})
    for name in given:
        if name not in method.defaults:
            raise UnknownName(f"option of {chosen.method}", name, method.defaults)
    return {**method.defaults, **given}


def _config(
    loaded: LoadedNetwork, target: Target, task: Task, budget: Budget, chosen: Settings,
    options: Mapping[str, Any], recipe: Recipe, trained: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return everything that decides the results of a run."""
    weights = hashlib.sha256()
    for name, tensor in sorted(loaded.net.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "network": loaded.name, "network_digest": weights.hexdigest()[:16],
        "target": target.name, "fingerprint": target.fingerprint,
        "method": chosen.method, "method_options": dict(options),
        "budget": budget.to_json(), "task": task.name, "metric": task.metric,
        "seed": chosen.seed, "input_shape": list(loaded.input_shape),
        "recipe": recipe.to_json(), "trained": trained,
        "recovery_epochs": chosen.recovery_epochs, "keep": list(chosen.keep),
        "weights": str(chosen.weights) if chosen.weights else None,
        "num_classes": task.num_classes, "command": chosen.command,
    }  # fmt: skip


def _target_facts(target: Target) -> dict[str, Any]:
    return {
        "name": target.name, "fingerprint": target.fingerprint, "precision": target.precision,
        "alignment": target.alignment, "provenance": target.provenance,
    }  # fmt: skip


def _check_budget(problem: Problem, method: Method, run: Run) -> None:
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


def _train_original(problem: Problem, run: Run, recipe: Recipe, trained: bool) -> Candidate:
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
                on_progress=_training_progress(problem.progress),
            )  # fmt: skip
        write_state(weights, problem.net.state_dict())
        metric = problem.task.metric
        value = problem.task.evaluate(problem.net, "val")[metric]
        done = run.record("original", "original/trained", metrics={f"val_{metric}": value})
    problem.progress(f"the original: {_metrics(done['metrics'])}")
    return Candidate(ORIGINAL, weights=f"candidates/{ORIGINAL}/{weights.name}",
                     metrics=done["metrics"])  # fmt: skip


def _training_progress(say: Callable[[str], None]) -> Callable[[Progress], None]:
    last = 0.0

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 2:
            last = now
            say(
                f"training: step {progress.step}/{progress.steps}, loss {progress.loss:.3f}, "
                f"{progress.images_per_s:.0f} images/s, {progress.eta_s:.0f} s left"
            )

    return tell


def _metrics(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def _search(
    problem: Problem,
    method: Method,
    run: Run,
    recipe: Recipe,
    chosen: Settings,
    seedling: Candidate,
) -> FitResult:
    """Search, recover and finish, again with a tighter budget where files cost more than said."""
    with run.stage("finish the original"):
        original = _finish([seedling], problem, run)[0]
    cost = Cost(dict(original.cost), original.provenance)
    budget = problem.budget.resolve(cost)
    run.record("budget", "budget/resolved", limits=dict(budget.limits))
    bound = budget
    family: list[Candidate] = []
    for _ in range(TIGHTENINGS):
        asked = replace(problem, budget=bound, original=original)
        with run.stage(f"search ({chosen.method})"):
            family = []
            for candidate in method.search(asked, run):
                family.append(candidate)
                if not (run.candidate_folder(candidate.id) / "candidate.json").exists():
                    run.save(candidate)  # a run cut off here still has members to show
        with run.stage("recover accuracy"):
            family = _recover(family, problem, run, recipe, chosen)
        with run.stage("export, check and cost"):
            family = _finish(family, problem, run)
        last = family[-1] if family else original
        excess = budget.excess(Cost(dict(last.cost), last.provenance))
        if not excess:
            break
        # The files cost more than the table said: ask for as much less.
        problem.progress(f"{last.id} is over budget once compiled ({excess}); searching on")
        tight = {
            key: min(bound.limits[key], last.predicted.get(key, limit) / excess.get(key, 1.0))
            * (0.999 if key in excess else 1.0)
            for key, limit in bound.limits.items()
        }
        bound = Budget(tight)
    result = FitResult(run.folder, problem.net, budget, run.config.get("metric", "accuracy"))
    run.journal.append("finished", budget_met=result.budget_met)
    return result


def _finish(candidates: Sequence[Candidate], problem: Problem, run: Run) -> list[Candidate]:
    return finish_all(
        candidates, run, problem.target, problem.table, problem.pool, problem.example, problem.net,
        problem.progress, problem.calibration,
    )  # fmt: skip


def _recover(
    family: Sequence[Candidate], problem: Problem, run: Run, recipe: Recipe, chosen: Settings
) -> list[Candidate]:
    """Fine-tune every member for long, with the original as teacher."""
    metric = f"val_{problem.task.metric}"
    paths = {c.id: run.candidate_folder(c.id) / "weights.safetensors" for c in family}
    waiting = [
        c for c in family if run.recall(f"recover/{c.id}") is None or not paths[c.id].exists()
    ]
    jobs = [
        TuneJob(
            before=c.edits, weights_before=run.folder / c.weights, after=c.edits,
            weights_after=paths[c.id], recipe=long_recovery(recipe, chosen.recovery_epochs),
            seed=stream_seed(problem.seed, "recover", c.id),
            checkpoint=run.checkpoint_folder("recover") / f"{c.id}.safetensors",
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
    if problem.task.better(short, long):
        return candidate.with_(metrics=metrics)
    return candidate.with_(
        weights=str(weights.relative_to(run.folder)), metrics={**metrics, metric: long}
    )
