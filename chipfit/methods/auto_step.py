# SPDX-License-Identifier: Apache-2.0
"""One member of ``auto``'s family: allocations by several weighings; the nearest network stays.

That losses of single layers are weighed anew until the whole network is near the original follows
SPDY (Frantar and Alistarh, ICML 2022, arXiv 2201.13096), which also allocates by a solver under
measured costs; here under the target's own prices, which depend on both neighbours of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.allocate import solve_coupled
from chipfit.methods.auto_assembly import AssemblyJob, assemble
from chipfit.methods.auto_weighing import Weighing, first_weighings, narrowed_alike
from chipfit.methods.base import Problem
from chipfit.methods.joint_table import JointTable
from chipfit.runs.run import Run
from chipfit.scores.channel_elimination import Elimination
from chipfit.train.randomness import stream_seed

#: Moves of two groups that are priced in one step: prices may have to be compiled or measured.
PAIRS = 16
#: Rounds of linearising from each start.
ROUNDS = 2

Row = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """What is found out about the original once.

    Args:
        eliminations: By group.
        norms: The batch norm behind each layer.
        lost: By choice, what each option loses.
        shares: By choice, what each option leaves of the width, or of a block's work.
    """

    eliminations: Mapping[str, Elimination]
    norms: Mapping[str, str]
    lost: Sequence[NDArray[np.float64]]
    shares: Sequence[NDArray[np.float64]]

    def kept(self, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Return the channels that stay at given widths."""
        return {name: self.eliminations[name].kept(width) for name, width in widths.items()}


def take_step(
    problem: Problem, run: Run, options: Mapping[str, Any], table: JointTable, step: int,
    known: Known, limits: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Propose, judge, propose again near the best; record the network that stays."""
    judged = _Judged(problem, run, options, table, step, known)
    weighings: dict[Row, tuple[str, Weighing]] = {}

    def solved(label: str, weighing: Weighing, start: Row | None) -> Row:
        cost_of, values = table.many(list(limits)), weighing.values(known.lost, known.shares)
        row = solve_coupled(
            values, cost_of, list(limits.values()), start, ROUNDS,
            names=list(limits), pairs=PAIRS, everywhere=start is None,
            time_limit_s=math.inf,  # what is chosen must not depend on how busy the machine is
        ).choice  # fmt: skip
        weighings.setdefault(tuple(row), (label, weighing))
        return tuple(row)

    first = first_weighings(len(table.full))
    rows = [solved(label, first[label], None) for label in options["first"] if label in first]
    alike = narrowed_alike(table, limits) if "alike" in options["first"] else None
    if alike is not None:
        weighings.setdefault(alike, ("alike", first["capacity"]))
        rows.append(alike)
    best = judged.best(rows)
    for number in range(int(options["rounds"])):
        label, centre = weighings[best]
        rng = np.random.default_rng(stream_seed(problem.seed, "auto", step, number))
        rows = [
            solved(f"{label.partition(',')[0]}, reweighed", centre.changed(rng), best)
            for _ in range(int(options["tries"]))
        ]
        best = judged.best([best, *rows])
    return judged.keep(best, weighings[best][0], limits)


class _Judged:
    """Networks of one step that were put together, with their distances."""

    def __init__(
        self, problem: Problem, run: Run, options: Mapping[str, Any], table: JointTable, step: int,
        known: Known,
    ) -> None:  # fmt: skip
        self._problem, self._run, self._options = problem, run, options
        self._table, self._step, self._known = table, step, known
        self._distances: dict[Row, float] = {}

    def job(self, row: Row, **more: Any) -> AssemblyJob:
        """Return the job that puts a network together."""
        kept = self._known.kept(self._table.widths(row))
        edits = self._table.edits(row, kept)
        images, solve = int(self._options["images"]), bool(self._options["solve"])
        return AssemblyJob(edits, self._known.norms, images, solve, **more)

    def best(self, rows: list[Row]) -> Row:
        """Return the row whose network is nearest to the original; ties go to the first."""
        keys = {row: f"auto/judged/{self._step}/{'-'.join(map(str, row))}" for row in rows}
        for row, key in keys.items():
            done = self._run.recall(key)
            if done is not None:
                self._distances[row] = done["distance"]
        missing = [row for row in keys if row not in self._distances]
        jobs = [self.job(row) for row in missing]
        for at, result in self._problem.pool.map(assemble, jobs):
            row = missing[at]
            self._run.record("score", keys[row], step=self._step, row=list(row), **result)
            self._distances[row] = result["distance"]
        nearest = min(keys, key=lambda row: self._distances[row])
        self._problem.progress(
            f"step {self._step}: {len(self._distances)} networks put together, the nearest at "
            f"{self._distances[nearest]:.4g}"
        )
        return nearest

    def keep(self, row: Row, label: str, limits: Mapping[str, float]) -> dict[str, Any]:
        """Write the weights of a network and record the step."""
        problem, step = self._problem, self._step
        target = self._run.candidate_folder(f"auto-{step:02}") / "short.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        images = int(self._options["val_images"]) or None
        job = self.job(row, weights_after=target, val_images=images)
        ((_, result),) = problem.pool.map(assemble, [job])
        widths = self._table.widths(row)
        (cost,) = self._table.networks([row])
        return self._run.record(
            "step", f"auto/step/{step}", step=step, group=_label(label, self._table.replaced(row)),
            width=sum(widths.values()),
            row=list(row), predicted=dict(cost.values), constraint=dict(limits),
            proposals=len(self._distances), budget_ms=limits.get("latency_ms"), **result,
        )  # fmt: skip


def _label(label: str, replaced: Mapping[str, str]) -> str:
    if not replaced:
        return label
    return f"{label}; " + ", ".join(f"{name} is {what}" for name, what in replaced.items())
