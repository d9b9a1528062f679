# SPDX-License-Identifier: Apache-2.0
"""Searches on a supernet against random networks of the same cost, all trained alike.

    python -m benchmarks.search_alike --targets ethos-u55-128 onnxruntime-cpu --store runs/search

The budget is the median predicted latency of random architectures of the space, so that the band
below it holds many. Every method searches with every seed; what it derives, and random
architectures that cost between ``--floor`` times the budget and the budget, are then trained from
scratch with the same recipe and images. Random in the band is what a search has to beat. The last
table has what was found for one target run on the others too. Searches and trainings that are
finished are kept in the store, so targets can be searched one after another; measured targets want
an idle machine for their table of costs and for the last, short pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.alike import AlikeJob, network_of, train_all
from benchmarks.output import Report, command, parser
from benchmarks.search_alike_tables import RANDOM, Entry, Found, elsewhere, rows_of
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.calibration import calibration_factor
from chipfit.graph.capture import capture, trace
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.space_band import random_in_band
from chipfit.methods.space_costs import costs_of
from chipfit.rewrite.replay import rewrite_from_json
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.space.blocks import space_of
from chipfit.supernet.memory import saved_activation_bytes
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool

KEY = "latency_ms"
#: Random architectures that the budget is the median of.
DRAWN = 64


class Field:
    """One target: the space's costs on it, the budget, the searches.

    Args:
        task: Data.
        target: The device.
        given: The arguments.
    """

    def __init__(self, task: Task, target: Target, given: Any) -> None:
        self.task, self.target, self.given = task, target, given
        self.folder = Path(given.store) / given.data / target.name
        net = network_of(AlikeJob(given.net, task.recipe, 0, Path()), task).eval()
        if space_of(net) is None:
            raise BadInput(f"{given.net} carries no search space", "for instance fbnet_space")
        example = task.example_input()
        cost = target.cost(trace(net, example)).total
        self.pool = WorkerPool(given.workers, Bench(net, task))
        problem = Problem(
            net=net, example=example, task=task, target=target,
            table=CostTable(given.table or Path(given.store) / "costs.sqlite"),
            budget=Budget({KEY: cost[KEY]}), pool=self.pool,
            original=Candidate(ORIGINAL, cost=dict(cost.values), provenance=cost.provenance),
            progress=Terminal().progress,
        )  # fmt: skip
        if target.provenance == "measured":
            run = Run.open(self.folder / "calibration", {"target": target.name})
            problem = replace(problem, calibration=calibration_factor(problem, run))
            run.close()
        blocks = space_of(net)
        assert blocks is not None  # looked at above
        self.costs = costs_of(problem, blocks)
        sizes = [len(choice.options) for choice in self.costs.space]
        drawn = np.random.default_rng(0).integers(0, sizes, (DRAWN, len(sizes)))
        self.limit_ms = float(np.median(self.costs.of(KEY)(drawn)))
        self.problem = replace(problem, budget=Budget({KEY: self.limit_ms}))

    def random(self, count: int) -> list[Found]:
        """Return random architectures within the band.

        Raises:
            InfeasibleBudget: The band is all but empty.
        """
        low = self.given.floor * self.limit_ms
        rows = random_in_band(self.costs, {KEY: self.limit_ms}, low, count, 0)
        if len(rows) < count:
            raise InfeasibleBudget(
                f"no {count} random architectures cost {low:.4g} to {self.limit_ms:.4g} ms",
                "lower --floor",
            )
        prices = self.costs.of(KEY)(np.array(rows))
        return [
            Found(tuple(self.costs.block_space.edits(self.costs.names(row))), float(ms))
            for row, ms in zip(rows, prices, strict=True)
        ]

    def searched(self, method: str, seed: int) -> Found:
        """Return what a method derives within the budget; recalled where it was finished."""
        given, name = self.given, f"{method}-{given_id(self.given, method)}-{seed}"
        options = {
            "search_steps": given.search_steps, "batch_size": given.search_batch, "levels": 1,
            **given.options.get(method, {}),
        }  # fmt: skip
        known = METHODS.get(method).value().defaults
        options = {k: v for k, v in options.items() if k in known}
        file = self.folder / name / "found.json"
        if not file.is_file():
            run = Run.open(self.folder / name, {"method": method, "seed": seed, "options": options})
            started = time.process_time()
            asked = replace(self.problem, seed=seed, options={**known, **options})
            last = list(METHODS.get(method).value().search(asked, run))[-1]
            cpu_s = time.process_time() - started
            run.close()
            file.write_text(json.dumps({
                "edits": [edit.to_json() for edit in last.edits],
                "predicted_ms": last.predicted[KEY], "cpu_s": cpu_s,
                "held_bytes": self.held_bytes(method, asked),
            }))  # fmt: skip
        data = json.loads(file.read_text())
        edits = tuple(rewrite_from_json(edit) for edit in data["edits"])
        return Found(edits, data["predicted_ms"], data["cpu_s"], data["held_bytes"])

    def held_bytes(self, method: str, problem: Problem) -> int:
        """Return what the first steps of a search hold for backward passes, at most."""
        quick = {"search_steps": 4, "warmup": 0.25, "proposals": 1, "val_images": 64}
        asked = replace(problem, options={**problem.options, **quick})
        with TemporaryDirectory() as folder:
            run = Run.open(Path(folder), {})
            held = saved_activation_bytes(
                lambda: list(METHODS.get(method).value().search(asked, run)), problem.net
            )
            run.close()
        return held

    def job(self, found: Found, seed: int) -> AlikeJob:
        """Return the training of a network."""
        given = self.given
        folder = Path(given.store) / given.data / f"trained-{given.steps}" / found.digest
        recipe = self.task.recipe.replace(steps=given.steps)
        return AlikeJob(given.net, recipe, seed, folder, found.edits)


def given_id(given: Any, method: str) -> str:
    """Return a short identity of what a search depends on."""
    text = json.dumps(
        [given.net, given.search_steps, given.search_batch, given.options.get(method, {})]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def latencies(
    fields: Sequence[Field], entries: Sequence[Mapping[str, Sequence[Entry]]]
) -> dict[tuple[str, str], float]:
    """Return what all networks really cost on all targets; measured ones in one session each."""
    every = {f.digest: (f, r) for named in entries for own in named.values() for f, _, r in own}
    found: dict[tuple[str, str], float] = {}
    for field in fields:
        name = field.target.name
        if field.target.provenance == "measured":
            Terminal().progress(f"measuring {len(every)} networks on {name}, interleaved")
            example = field.task.example_input()
            programs = [
                capture(network_of(field.job(f, 0), field.task).eval(), example)
                for f, _ in every.values()
            ]
            costs = field.target.cost_many(programs)
            found |= {(d, name): c.total[KEY] for d, c in zip(every, costs, strict=True)}
        else:
            found |= {(d, name): r[KEY][field.target.spec] for d, (_, r) in every.items()}
    return found


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Search, draw, train alike, compare."""
    flags = parser("searches against random networks of the same cost")
    flags.add_argument("--net", default="fbnet_space:size=small")
    flags.add_argument("--data", default="fashion-mnist")
    flags.add_argument("--targets", nargs="+", default=["ethos-u55-128"])
    flags.add_argument("--methods", nargs="+", default=["fbnet", "proxylessnas", "darts", "rarts",
                                                       "prunet", "padnas"])  # fmt: skip
    flags.add_argument("--options", type=json.loads, default={}, help="JSON: options by method")
    flags.add_argument("--search-steps", type=int, default=300)
    flags.add_argument("--search-batch", type=int, default=32)
    flags.add_argument("--steps", type=int, default=500, help="of every training")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--random", type=int, default=5, help="networks drawn from the band")
    flags.add_argument("--floor", type=float, default=0.95)
    flags.add_argument("--table", type=Path)
    flags.add_argument("--store", type=Path, default=Path("runs/search-alike"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if min(given.steps, given.search_steps, given.search_batch, given.seeds, given.random) < 1:
        raise BadInput("--steps, --search-steps, --seeds and --random must be positive")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "table", "workers")}
    report = Report("search_alike", kept, given.out)
    task = load_task(given.data)
    fields, wanted = [], []
    for name in given.targets:
        field = Field(task, create(name), given)
        found = {RANDOM: [(f, s) for f in field.random(given.random) for s in range(given.seeds)]}
        for method in given.methods:
            found[method] = [(field.searched(method, s), s) for s in range(given.seeds)]
        field.pool.close()
        fields.append(field)
        wanted.append(found)
    compiled = [field.target for field in fields if field.target.provenance == "compiled"]
    jobs = [
        field.job(f, s)
        for field, named in zip(fields, wanted, strict=True)
        for own in named.values()
        for f, s in own
    ]
    results = iter(train_all(task, compiled, jobs, given.workers))
    entries = [
        {name: [(f, s, next(results)) for f, s in own] for name, own in named.items()}
        for named in wanted
    ]
    true_ms = latencies(fields, entries)
    for field, named in zip(fields, entries, strict=True):
        report.table(
            f"{task.name}, {given.net}, at most {field.limit_ms:.4g} ms on {field.target.name}",
            rows_of(field.target, field.limit_ms, named, true_ms),
            f"median (min..max); every network trained from scratch for {given.steps} steps of"
            f" {task.recipe.batch_size} images; a search with seed n is trained with seed n, every"
            f" random network with {given.seeds} seeds; held: by a search step for its backward"
            " passes, at most",
        )
    if len(fields) > 1:
        report.table(
            "found for one target, run on the others",
            elsewhere([f.target for f in fields], entries, true_ms),
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
