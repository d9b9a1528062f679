# SPDX-License-Identifier: Apache-2.0
"""One contest: a contender's network within a budget, searched, fine-tuned, exported and tested.

Everything runs in one process on one thread: images and processor time are the contender's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.contenders import method_of
from benchmarks.contest_search import searched
from benchmarks.counting import PricingTable, cpu_s
from benchmarks.recovering import RecoverJob, finished
from benchmarks.resnet8 import network
from chipfit.cost.budget import Budget
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.files import read_state, write_bytes
from chipfit.methods.base import METHODS, Problem
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.targets import create
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed
from chipfit.train.recovery import long_recovery
from chipfit.workers import WorkerPool

#: Share of the images that are left for the last fine-tune, however many a search has used.
LAST_SHARE = 0.25


@dataclass(frozen=True)
class Opponent:
    """The original of a net on a target, which all contests of the two share.

    Args:
        net: Name of the network.
        weights: Its file.
        metrics: On validation data.
        target: With its options.
        cost: True cost on the target.
        provenance: Of the cost.
        key: Of the cost that budgets bound.
        calibration: Of predictions for this network.
        table: File of the cost table.
    """

    net: str
    weights: Path
    metrics: Mapping[str, float]
    target: str
    cost: Mapping[str, float]
    provenance: str
    key: str
    calibration: float
    table: Path

    def build(self, task: Task) -> nn.Module:
        """Return the trained network in evaluation mode."""
        net = network(self.net, task).eval()
        net.load_state_dict(read_state(self.weights))
        return net

    def problem(self, task: Task, net: nn.Module, pool: Any, limit: float) -> Problem:
        """Return what a method is asked to solve, with seed 0 and no options."""
        original = Candidate(
            ORIGINAL, metrics=self.metrics, cost=dict(self.cost), provenance=self.provenance
        )
        return Problem(
            net=net, example=task.example_input(), task=task, target=create(self.target),
            table=PricingTable(self.table), budget=Budget({self.key: limit}), original=original,
            pool=pool, calibration=self.calibration,
        )  # fmt: skip


@dataclass(frozen=True)
class Contest:
    """One contender at one budget with one seed.

    Args:
        opponent: The original.
        share: The budget's, of the original's latency.
        contender: A method, or the name of a baseline.
        seed: Of the search and of the fine-tune.
        images: That it may train on.
        options: Of the method.
        lineage: Whether images of a proposal that came to nothing are free.
        forward: Whether images that are only run forwards, without labels, count too.
        folder: Where searches and results are kept; names all of the above but the seed.
        start: The network of a baseline.
        how: What distinguishes that network.
        before: Images that were read to choose it.
        refused: Why there is no such network.
        bound: The budget as predictions tell costs, where they are off.
    """

    opponent: Opponent
    share: float
    contender: str
    seed: int
    images: int
    options: Mapping[str, Any]
    lineage: bool
    forward: bool
    folder: Path
    start: nn.Module | None = None
    how: str = ""
    before: int = 0
    refused: str = ""
    bound: float | None = None

    @property
    def limit(self) -> float:
        """The budget."""
        return self.share * self.opponent.cost[self.opponent.key]

    def problem(self, task: Task, net: nn.Module, pool: Any, seed: int = 0) -> Problem:
        """Return what its method is asked to solve."""
        asked = self.opponent.problem(task, net, pool, self.bound or self.limit)
        return replace(asked, seed=seed, options=dict(self.options))

    @property
    def file(self) -> Path:
        """Of the result."""
        return self.folder / f"{self.seed}.json"

    @property
    def label(self) -> str:
        """For progress."""
        where = f"{self.opponent.net}, {self.opponent.target}, {self.share:g}"
        return f"{where}, {self.contender}, seed {self.seed}"


def contest(task: Task, job: Contest) -> dict[str, Any]:
    """Hold one contest, and keep its result.

    Returns:
        ``val``, ``test`` and ``int8_test`` (accuracies), ``cost`` (none where it is measured
        later), ``images_weights``, ``_all`` and ``_forward``, ``search_cpu_s``, ``price_cpu_s``,
        ``tune_cpu_s`` and ``how``; or ``refused`` where the contender does not apply.
    """
    net, start = job.opponent.build(task), job.start
    found: dict[str, Any] = {
        "how": job.how, "images_all": job.before, "images_weights": job.before, "cpu_s": 0.0,
        "price_cpu_s": 0.0, "images_forward": 0, "refused": job.refused,
    }  # fmt: skip
    if start is None and not job.refused:
        found, start = searched(task, net, job)
    if start is None:
        result = {"refused": found["refused"]}
    else:
        result = _finish(task, net, start, job, found)
    write_bytes(job.file, (json.dumps(result) + "\n").encode())
    return result


def _finish(
    task: Task, net: nn.Module, start: nn.Module, job: Contest, found: Mapping[str, Any]
) -> dict[str, Any]:
    """Fine-tune for the images that are left, export and test."""
    batch = task.recipe.batch_size
    used = found["images_weights"] if job.lineage else found["images_all"]
    steps = max((job.images - used) // batch, round(LAST_SHARE * job.images / batch), 1)
    before = cpu_s()
    tuned = fit_model(
        start, task, long_recovery(task.recipe, 1).replace(steps=steps),
        seed=stream_seed(job.seed, "side by side"), teacher=net,
    )  # fmt: skip
    tune_cpu_s = cpu_s() - before
    done = finished(Bench(net, task), RecoverJob(
        job.contender, start, task.recipe, job.seed, create(job.opponent.target),
        job.folder / str(job.seed),
    ))  # fmt: skip
    return {
        "how": found["how"], "val": done["val"], "test": done["test"],
        "int8_test": done["int8_test"], "cost": done.get("cost", {}).get(job.opponent.key),
        "images_weights": found["images_weights"] + tuned.images,
        "images_all": found["images_all"] + tuned.images,
        "images_forward": found["images_forward"],
        "search_cpu_s": found["cpu_s"], "price_cpu_s": found["price_cpu_s"],
        "tune_cpu_s": tune_cpu_s,
    }  # fmt: skip


def prepare(task: Task, job: Contest, pool: WorkerPool) -> None:
    """Price what a method's check asks for, so that less is measured while contests are held."""
    problem = job.problem(task, job.opponent.build(task), pool)
    try:
        METHODS.get(method_of(job.contender)).value().check(problem)
    except (BadInput, InfeasibleBudget):
        return  # the contest says so
