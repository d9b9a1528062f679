# SPDX-License-Identifier: Apache-2.0
"""Searches on a supernet against random networks of the same cost, all trained alike.

    python -m benchmarks.search_alike --methods fbnet --targets ethos-u55-128 --store runs/search

The budget is the median predicted latency of random architectures of the space, so that the band
below it holds many. Every method searches with every seed; what it derives, and random
architectures that cost between ``--floor`` times the budget and the budget, are then trained from
scratch with the same recipe and images. Random in the band is what a search has to beat. Searches
and trainings that are finished are kept in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alike import AlikeJob, network_of, train_all
from benchmarks.output import Report, command, parser, spread
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.table import CostTable
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.flow.calibration import calibration_factor
from chipfit.graph.capture import trace
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.space_band import random_in_band
from chipfit.methods.space_costs import SpaceCosts
from chipfit.rewrite.replay import Rewrite, rewrite_from_json
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.space.blocks import space_of
from chipfit.targets import Target, create
from chipfit.tasks import Task, load_task
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool

KEY = "latency_ms"
#: Random architectures that the budget is the median of.
DRAWN = 64

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A network to train.

    Args:
        edits: What makes it of the space's network.
        predicted_ms: By the cost table.
        seconds: Of its search; 0 where it was drawn.
    """

    edits: tuple[Rewrite, ...]
    predicted_ms: float
    seconds: float = 0.0


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
        self.costs = SpaceCosts(problem, blocks)
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
        given, name = self.given, f"{method}-{given_id(self.given)}-{seed}"
        options = {"search_steps": given.search_steps, "levels": 1, **given.options.get(method, {})}
        known = METHODS.get(method).value().defaults
        options = {k: v for k, v in options.items() if k in known}
        file = self.folder / name / "found.json"
        if not file.is_file():
            run = Run.open(self.folder / name, {"method": method, "seed": seed, "options": options})
            started = time.monotonic()
            asked = replace(self.problem, seed=seed, options={**known, **options})
            members = list(METHODS.get(method).value().search(asked, run))
            run.close()
            last = members[-1]
            file.write_text(json.dumps({
                "edits": [edit.to_json() for edit in last.edits],
                "predicted_ms": last.predicted[KEY], "seconds": time.monotonic() - started,
            }))  # fmt: skip
        data = json.loads(file.read_text())
        edits = tuple(rewrite_from_json(edit) for edit in data["edits"])
        return Found(edits, data["predicted_ms"], data["seconds"])

    def job(self, found: Found, seed: int) -> AlikeJob:
        """Return the training of a network."""
        given = self.given
        digest = hashlib.sha256(json.dumps([e.to_json() for e in found.edits]).encode())
        folder = Path(given.store) / given.data / f"trained-{given.steps}" / digest.hexdigest()[:10]
        recipe = self.task.recipe.replace(steps=given.steps)
        return AlikeJob(given.net, recipe, seed, folder, found.edits)


def given_id(given: Any) -> str:
    """Return a short identity of what searches depend on."""
    text = json.dumps([given.net, given.search_steps, given.options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def rows_of(
    field: Field, entries: Mapping[str, Sequence[tuple[Found, Mapping[str, Any]]]]
) -> list[Row]:
    """Return the table of one target; ``entries`` hold networks with the results of their seeds."""
    drawn = [100 * r["int8_test"] for _, r in entries["random in the band"]]
    rows = []
    for name, own in entries.items():
        tested = [100 * r["int8_test"] for _, r in own]
        rows.append({
            "method": name, "networks": len({json.dumps([e.to_json() for e in f.edits])
                                             for f, _ in own}),
            "predicted ms": spread([f.predicted_ms for f, _ in own]),
            "x budget": max(f.predicted_ms for f, _ in own) / field.limit_ms,
            "MACs M": spread([r["macs"] / 1e6 for _, r in own]),
            "int8 test %": spread(tested),
            "points above random": statistics.fmean(tested) - statistics.fmean(drawn),
            "beats of random %": 100 * statistics.fmean(
                [float(t > d) for t in tested for d in drawn]
            ),
            "search s": spread([f.seconds for f, _ in own]),
        })  # fmt: skip
    return rows


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
    flags.add_argument("--search-steps", type=int, default=600)
    flags.add_argument("--steps", type=int, default=500, help="of every training")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--random", type=int, default=5, help="networks drawn from the band")
    flags.add_argument("--floor", type=float, default=0.95)
    flags.add_argument("--table", type=Path)
    flags.add_argument("--store", type=Path, default=Path("runs/search-alike"))
    flags.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = flags.parse_args(argv)
    if min(given.steps, given.search_steps, given.seeds, given.random) < 1:
        raise BadInput("--steps, --search-steps, --seeds and --random must be positive")
    kept = {k: v for k, v in vars(given).items() if k not in ("out", "store", "table", "workers")}
    report = Report("search_alike", kept, given.out)
    task = load_task(given.data)
    for name in given.targets:
        field = Field(task, create(name), given)
        found = {"random in the band": field.random(given.random)}
        for method in given.methods:
            found[method] = [field.searched(method, seed) for seed in range(given.seeds)]
        todo = [
            (label, one, field.job(one, seed))
            for label, own in found.items()
            for number, one in enumerate(own)
            for seed in (range(given.seeds) if label not in given.methods else [number])
        ]
        field.pool.close()
        compiled = [field.target] if field.target.provenance == "compiled" else []
        results = train_all(task, compiled, [job for _, _, job in todo], given.workers)
        entries: dict[str, list[tuple[Found, Mapping[str, Any]]]] = {}
        for (label, one, _), result in zip(todo, results, strict=True):
            entries.setdefault(label, []).append((one, result))
        report.table(
            f"{task.name}, {given.net}, at most {field.limit_ms:.4g} ms on {field.target.name}",
            rows_of(field, entries),
            f"median (min..max); every network trained from scratch for {given.steps} steps of"
            f" {task.recipe.batch_size} images; a search with seed n is trained with seed n, every"
            f" random network with {given.seeds} seeds",
        )
    report.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
