# SPDX-License-Identifier: Apache-2.0
"""``Field``: all contests of :mod:`benchmarks.side_by_side` on one network and one target."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    BASELINES,
    LIBRARY,
    UNIFORM,
    ladder_of,
    method_of,
    options_of,
)
from benchmarks.contest import Contest, prepare
from benchmarks.contest_search import reason
from benchmarks.contest_tables import ACCURACIES, Held
from benchmarks.narrowing import Ladder, largest_within
from benchmarks.originals import Original, opponent_of, short_id
from benchmarks.within import confirmed, costs_beside, within_budget
from chipfit.cli.console import Terminal
from chipfit.cost.budget import Budget
from chipfit.cost.predict import predict_many
from chipfit.cost.table import CostTable
from chipfit.errors import InfeasibleBudget
from chipfit.files import write_bytes
from chipfit.graph.capture import trace
from chipfit.targets import Target
from chipfit.tasks import Task
from chipfit.train.jobs import Bench
from chipfit.workers import WorkerPool


class Field:
    """One network on one target.

    Args:
        original: The network.
        target: The device.
        task: Data.
        given: The arguments.
    """

    def __init__(self, original: Original, target: Target, task: Task, given: Any) -> None:
        self.original, self.target, self.task, self.given = original, target, task, given
        self.folder = original.folder.parent / target.name
        self._ladders: dict[tuple[str, bool], tuple[Ladder, int]] = {}
        say = Terminal().progress
        with WorkerPool(given.workers, None) as pool:
            self.opponent = opponent_of(
                original, target, task, table_of(given), given.key, pool, say
            )
        self.net = self.opponent.build(task)

    def job(self, share: float, contender: str, seed: int) -> Contest:
        """Return a contest, without the network of a baseline."""
        given = self.given
        batch = self.task.recipe.batch_size
        options = options_of(contender, given.images, batch, given.options.get(contender, {}))
        lineage = method_of(contender) in given.count_lineage
        name = short_id(
            self.original.folder.name, self.target.spec, given.key, share, contender, given.images,
            options, lineage, given.count_forward,
        )  # fmt: skip
        folder = self.folder / f"{contender}-{share:g}-{name}"
        return Contest(
            self.opponent,
            share,
            contender,
            seed,
            given.images,
            options,
            lineage,
            given.count_forward,
            folder,
        )

    def complete(self, job: Contest, build: bool = True) -> Contest:
        """Return a contest with its network, if it is a baseline's; which one is found out once."""
        if job.contender not in BASELINES:
            return replace(job, bound=self._bound(job.share))
        file = job.folder / "rung.json"
        if not file.is_file():
            write_bytes(file, (json.dumps(self._largest(job)) + "\n").encode())
        found = json.loads(file.read_text())
        if "rung" not in found:
            return replace(job, refused=found["refused"])
        if not build:
            return job
        ladder, images = self._ladder(job.contender, found.get("everywhere", False))
        return replace(job, start=ladder[found["rung"]], how=found["how"], before=images)

    def _bound(self, share: float) -> float | None:
        """Return the budget as predictions tell costs, where they are not the truth.

        Methods ask the cost table, baselines are measured: that all of them aim at the same
        latency, the budget is multiplied with what predictions of the baselines' networks are of
        their measurements (the median). Where no baseline is within the budget, predictions count
        as off as they are at the next larger one.
        """
        if self.target.provenance != "measured":
            return None
        file = self.folder / f"bound-{share:g}.json"
        if not file.is_file():
            larger = min((s for s in self.given.shares if s > share), default=None)
            found = self._predicted_by_true(share)
            if found is not None:
                found *= share * self.opponent.cost[self.given.key]
            elif larger is not None and (bound := self._bound(larger)) is not None:
                found = bound * share / larger
            write_bytes(file, (json.dumps(found) + "\n").encode())
        known = json.loads(file.read_text())
        return None if known is None else float(known)

    def _predicted_by_true(self, share: float) -> float | None:
        """Return the median of predictions by measurements over the baselines' networks."""
        names = [name for name in BASELINES if name in self.given.contenders] or [UNIFORM]
        jobs = [self.complete(self.job(share, name, 0)) for name in names]
        nets = [job.start for job in jobs if job.start is not None]
        if not nets:
            return None
        example, key = self.task.example_input(), self.given.key
        true = costs_beside(self.target, example, self.net, self.opponent.cost, nets)
        with CostTable(table_of(self.given)) as table:
            predicted = predict_many(
                [trace(net, example) for net in nets],
                self.target, table, self.opponent.calibration,
            )  # fmt: skip
        return statistics.median(
            guess.total[key] / cost[key] for guess, cost in zip(predicted, true, strict=True)
        )

    def _ladder(self, name: str, everywhere: bool) -> tuple[Ladder, int]:
        key = name, everywhere
        if key not in self._ladders:
            example = self.task.example_input()
            self._ladders[key] = ladder_of(
                name, self.net, example, self.target.alignment, self.task, everywhere
            )
        return self._ladders[key]

    def _largest(self, job: Contest) -> dict[str, Any]:
        """Return the rung of a baseline.

        Torch-Pruning prunes globally; where that reaches no network within the budget, because
        some layers are hardly pruned at all, by the same ratio in every layer.
        """
        budget, cost = Budget({self.given.key: job.limit}), self.opponent.cost
        example = self.task.example_input()

        def within(nets: Sequence[Any]) -> list[bool]:
            return within_budget(self.target, example, self.net, cost, budget, nets)

        refused = ""
        for everywhere in (False, True) if job.contender.startswith(LIBRARY) else (False,):
            ladder = self._ladder(job.contender, everywhere)[0]
            try:
                rung = largest_within(ladder, within, job.contender)
            except InfeasibleBudget as error:
                refused = reason(error)
                continue
            rung = confirmed(self.target, within, ladder, rung)
            return {"rung": rung, "everywhere": everywhere, "how": ladder.describe(rung)}
        return {"refused": refused}

    def prepare(self) -> None:
        """Price and measure what contests ask for, and drive the baselines to the budgets."""
        with WorkerPool(self.given.workers, Bench(self.net, self.task)) as pool:
            for share in self.given.shares:
                for contender in self.given.contenders:
                    job = self.job(share, contender, 0)
                    Terminal().progress(f"preparing {job.label}")
                    job = self.complete(job, build=False)
                    if contender not in BASELINES:
                        prepare(self.task, job, pool)

    def held(self) -> Held:
        """Return all finished contests with true latencies; measures them where that is needed."""
        found: dict[tuple[float, str, int], dict[str, Any]] = {}
        files: dict[tuple[float, str, int], Path] = {}
        given = self.given
        kind = "model.tflite" if self.target.file_format == "tflite" else "model.onnx"
        for share in given.shares:
            for contender in given.contenders:
                for seed in range(given.seeds):
                    job = self.job(share, contender, seed)
                    if job.file.is_file():
                        key = (share, contender, seed)
                        found[key] = json.loads(job.file.read_text())
                        if "refused" not in found[key]:
                            files[key] = job.folder / str(seed) / kind
        if self.target.provenance == "measured" and files:
            for key, cost in zip(files, self._measured(list(files.values())), strict=True):
                found[key]["cost"] = cost
        facts = self.original.read()
        original = {"cost": self.opponent.cost[given.key], **{k: facts[k] for k in ACCURACIES}}
        return Held(self.original.net, self.target.name, original, found)

    def _measured(self, files: Sequence[Path]) -> list[float]:
        """Return latencies in one session, in the currency in which the budget was set."""
        found = [
            (str(f.relative_to(self.folder)), sha256(f.read_bytes()).hexdigest()) for f in files
        ]
        name = short_id(self.target.spec, self.given.key, *found)
        kept = self.folder / f"measured-{name}.json"
        if not kept.is_file():
            Terminal().progress(f"measuring {len(files)} files on {self.target.name}, interleaved")
            first = self.original.exported(self.target)
            costs = self.target.cost_many([first, *files])  # type: ignore[list-item]
            values = [cost.total[self.given.key] for cost in costs]
            now = [self.opponent.cost[self.given.key] * ms / values[0] for ms in values[1:]]
            write_bytes(kept, (json.dumps(now) + "\n").encode())
        return [float(ms) for ms in json.loads(kept.read_text())]


def table_of(given: Any) -> Path:
    """Return the file of the cost table."""
    return Path(given.table or given.store / "costs.sqlite")
