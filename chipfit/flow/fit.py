# SPDX-License-Identifier: Apache-2.0
"""``fit``: a network, a device and a budget in; a family of deployable networks out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from chipfit import ranks
from chipfit.cost.budget import Budget
from chipfit.cost.location import default_table_path
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput
from chipfit.flow.calibration import calibration_factor
from chipfit.flow.data import open_task
from chipfit.flow.network import load_network
from chipfit.flow.original import check_budget, train_original
from chipfit.flow.result import FitResult
from chipfit.flow.search import search_family
from chipfit.flow.settings import method_options, read_settings, run_config, target_facts
from chipfit.graph.capture import trace
from chipfit.methods.base import METHODS, Method, Problem
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.targets import Target, create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool


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

    Under ``torchrun`` only the first process returns from this; the others take their share of a
    search on a supernet and exit with the first (:mod:`chipfit.ranks`).

    Args:
        net: A name of the zoo, ``timm:NAME``, ``file.py:factory``, or a trained module.
        target: A name from ``chipfit targets``, or a target.
        budget: Upper bounds, for instance ``"latency_ms=50%"`` or ``{"latency_ms": 3.0}``.
        task: A data set's name, a Python file, or a task.
        run: The run directory.
        progress: Called with one line at every step worth telling.
        **settings: Fields of :class:`chipfit.flow.settings.Settings`.

    Returns:
        The family, with its front; ``result.budget_met`` tells whether a member is within budget.

    Raises:
        InfeasibleBudget: Nothing reachable meets the budget.
        UnknownName: A name is unknown.
        RunMismatch: ``run`` holds a run of other settings.
        UnsupportedOp: The target cannot run the network.
    """
    ranks.follow()
    say = progress or (lambda line: None)
    chosen = read_settings(settings)
    task_spec = task if isinstance(task, str) else None
    task = open_task(task, chosen.input_shape)
    target = create(target) if isinstance(target, str) else target
    if target.precision == "int8" and target.file_format and not task.calibrates:
        raise BadInput(
            f"{target.name} runs int8 files, and the task {task.name} has no calibration inputs",
            "define calibration() that returns training inputs (N, C, H, W), or use a float target",
        )
    method: Method = METHODS.get(chosen.method).value()
    if ranks.current() is not None and not getattr(method, "many_processes", False):
        raise BadInput(
            f"{chosen.method} searches in one process, and torchrun started several",
            "start it without torchrun; --workers says how many processes it may start itself",
        )
    if task.own_training is not None and not getattr(method, "own_loops", False):
        raise BadInput(
            f"{chosen.method} needs batches and a loss, and the task {task.name} trains through"
            " finetune(model, steps) alone",
            "define make_task() that returns a chipfit.tasks.Task, or use --method netadapt",
        )
    options = method_options(method, chosen)
    if isinstance(net, nn.Module):
        net = copy.deepcopy(net)  # what the user holds in his hands is not trained behind his back
    loaded = load_network(
        net, input_shape=chosen.input_shape, num_classes=task.num_classes or None,
        data_shape=task.input_shape, weights=chosen.weights, seed=chosen.seed,
    )  # fmt: skip
    bounds = Budget.parse(budget)
    recipe = task.recipe if chosen.epochs is None else task.recipe.replace(
        epochs=chosen.epochs or task.recipe.epochs
    )  # fmt: skip
    trained = loaded.trained or (isinstance(net, nn.Module) and not chosen.epochs)
    trained = trained or chosen.epochs == 0
    config = run_config(loaded, target, task, bounds, chosen, options, recipe, trained)
    config["task_spec"] = task_spec
    table = CostTable(chosen.table or default_table_path())
    workload = trace(loaded.net, loaded.example())
    target.check(workload)
    history = Run.open(run, config, target_facts(target))
    problem: Problem | None = None
    try:
        problem = Problem(
            net=loaded.net, example=loaded.example(), task=task, target=target, table=table,
            budget=bounds, original=Candidate(ORIGINAL), seed=chosen.seed, options=options,
            pool=WorkerPool(chosen.workers or os.cpu_count() or 1, Bench(loaded.net, task), say),
            keep=tuple(chosen.keep), progress=say,
        )  # fmt: skip
        if target.provenance == "measured":
            with history.stage("calibrate the prediction"):
                problem = replace(problem, calibration=calibration_factor(problem, history))
        with history.stage("check the budget"):
            check_budget(problem, method, history)
        with history.stage("train the original"):
            seedling = train_original(problem, history, recipe, trained)
        # The workers teach with the network as it is now.
        problem.pool.close()
        absolute = search_family(problem, method, history, recipe, chosen, seedling)
        return FitResult(history.folder, loaded.net, absolute, task.metric)
    finally:
        if problem is not None:
            problem.pool.close()
        history.close()
