# SPDX-License-Identifier: Apache-2.0
"""What RepNAS tells the journal: its gates while they are trained, and what merging bought."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chipfit.cost.cost import Cost
from chipfit.methods.base import Problem
from chipfit.methods.repnas_network import BranchNetwork
from chipfit.runs.run import Run
from chipfit.space.branches import BranchPlace, subset_name
from chipfit.supernet.monitor import mean_entropy
from chipfit.tasks.base import Batch, Task
from chipfit.tasks.wrapped import WrappedTask

#: Records of one training.
RECORDS = 40
#: What a gate is called in architectures and reports.
CLOSED, OPEN = "out", "in"


def gate_name(place: BranchPlace, branch: str) -> str:
    """Return the name of the decision about one branch."""
    return f"{place.module} {branch}"


def gate_values(
    chosen: Mapping[str, Sequence[str]], places: Sequence[BranchPlace]
) -> dict[str, str]:
    """Return what was decided about every branch."""
    return {
        gate_name(place, branch): OPEN if branch in chosen[place.module] else CLOSED
        for place in places
        for branch in place.branches
    }


class RecordedTask(WrappedTask):
    """A task that records the gates of the network under training now and then.

    Args:
        task: The user's.
        network: Under training.
        problem: Its progress is told a line.
        run: Its journal gets the events.
        key: ``NAME/search/STEP`` are the keys of the events.
        count: K.
    """

    def __init__(
        self, task: Task, network: BranchNetwork, problem: Problem, run: Run, key: str, count: int
    ) -> None:
        super().__init__(task)
        self._network, self._problem, self._run = network, problem, run
        self._key, self._count = key, count
        self._every = max(1, network.steps // RECORDS)
        self._started = time.perf_counter()
        names = [gate_name(p, b) for p in network.places for b in p.branches]
        if run.recall(f"{key}/supernet") is None:
            run.record(
                "supernet", f"{key}/supernet", method="repnas",
                choices={name: [CLOSED, OPEN] for name in names},
            )  # fmt: skip

    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the task's loss."""
        loss = super().criterion(outputs, batch, label_smoothing)
        step = int(self._network.step)
        due = step % self._every == 0 or step == self._network.steps
        if due and self._run.recall(f"{self._key}/search/{step}") is None:
            self._record(step, float(loss.detach()))
        return loss

    def _record(self, step: int, loss: float) -> None:
        network = self._network
        if network.phase == "fixed":
            values = gate_values(network.chosen(), network.places)
            opened = torch.tensor([float(value == OPEN) for value in values.values()])
        else:
            opened = torch.sigmoid(network.logits)
        names = [gate_name(p, b) for p in network.places for b in p.branches]
        probabilities = {
            # Significant digits: 0 would read as pruned.
            name: [float(f"{1 - p:.6g}"), float(f"{p:.6g}")]
            for name, p in zip(names, opened.tolist(), strict=True)
        }
        self._run.record(
            "search", f"{self._key}/search/{step}", method="repnas", step=step,
            steps=network.steps, loss=loss, phase=network.phase, branches=self._count,
            entropy=mean_entropy(probabilities), probabilities=probabilities,
            seconds=round(time.perf_counter() - self._started, 3),
        )  # fmt: skip
        self._problem.progress(
            f"{self._key}: step {step}/{network.steps}, {network.phase} phase, loss {loss:.3f}"
        )


def changes_of(
    problem: Problem, places: Sequence[BranchPlace], chosen: Mapping[str, Sequence[str]],
    merged: Cost,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what merging bought the whole network, then place by place what was dropped.

    Args:
        problem: Has the cost of the network that came in.
        places: Where branches were chosen.
        chosen: Branches that stay, by place.
        merged: Predicted cost of the merged network.
    """
    before = problem.original_cost
    saved = {f"{k}_saved": before[k] - v for k, v in merged.values.items() if k in before}
    changes: list[dict[str, Any]] = [
        {"step": 1, "group": "all places", "from": "as they came",
         "to": f"merged to {len(places)} 3x3 convolutions", **saved}
    ]  # fmt: skip
    for place in places:
        kept = chosen[place.module]
        dropped = [name for name in place.branches if name not in kept]
        changes.append(
            {"step": 1, "group": place.module, "from": subset_name(place.branches),
             "to": subset_name(kept)
             + (f" (dropped: {subset_name(dropped)})" if dropped else " (nothing dropped)")}
        )  # fmt: skip
    return changes
