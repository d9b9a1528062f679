# SPDX-License-Identifier: Apache-2.0
"""One member of ``auto``'s family: allocations by several weighings; the nearest network stays.

That losses of single layers are weighed by what whole networks then lose follows SPDY (Frantar and
Alistarh, ICML 2022, arXiv 2201.13096), which allocates by a solver under measured costs, too. Ours:
weights are fitted to all networks put together so far, instead of a random search for them; around
the nearest one, single choices are changed and the others allocated anew; costs are the target's
own prices, which depend on both neighbours of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import InfeasibleBudget
from chipfit.methods.auto_assembly import AssemblyJob, assemble
from chipfit.methods.auto_proposals import Proposer, Row
from chipfit.methods.auto_weighing import first_weighings, fitted, narrowed_alike
from chipfit.methods.base import Problem
from chipfit.methods.joint_table import JointTable
from chipfit.methods.space_costs import Codes, Values
from chipfit.runs.run import Run
from chipfit.scores.channel_elimination import Elimination


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
    """Propose, judge, propose again around the best; record the network that stays.

    Raises:
        InfeasibleBudget: None of the first allocations is within the limits.
    """
    judged = _Judged(problem, run, options, table, step, known)
    proposer, labels = Proposer(table, limits), dict[Row, str]()
    first, tries = first_weighings(len(table.full)), int(options["tries"])
    for label in options["first"]:
        if label in first:
            row = proposer.best(first[label].values(known.lost, known.shares))
        elif (alike := narrowed_alike(table, limits)) is not None:
            row = alike
        else:
            continue
        labels.setdefault(row, label)
    if not labels:
        raise InfeasibleBudget(
            f"auto: no network with all groups alike is within {problem.budget}",
            "let it begin elsewhere, too: --option first=losses",
        )
    best = judged.best(list(labels))
    for _ in range(int(options["rounds"])):
        weighing = fitted(known.lost, *judged.so_far())
        proposals = proposer.around(best, weighing.values(known.lost, known.shares), tries)
        new = [row for row in proposals if row not in labels][:tries]
        if not new:
            break
        labels |= dict.fromkeys(new, "fitted losses")
        best = judged.best([best, *new])
    return judged.keep(best, labels[best], limits)


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

    def so_far(self) -> tuple[Codes, Values]:
        """Return all networks put together so far, ``(N, choices)``, and their distances."""
        rows = sorted(self._distances)  # whatever the order in which they were judged
        return np.array(rows, np.int64), np.array([self._distances[row] for row in rows])

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
