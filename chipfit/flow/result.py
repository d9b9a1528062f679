# SPDX-License-Identifier: Apache-2.0
"""What a fit returns: the family in a run directory, its front, and files to take away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.cost.budget import Budget
from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, InfeasibleBudget
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run


@dataclass(frozen=True)
class Member:
    """A candidate of a run with what is needed to rebuild it."""

    candidate: Candidate
    folder: Path
    net: nn.Module | None = None

    @property
    def id(self) -> str:
        """Its name in the run."""
        return self.candidate.id

    @property
    def metrics(self) -> Mapping[str, float]:
        """Accuracies by name, higher is better."""
        return self.candidate.metrics

    @property
    def cost(self) -> Cost:
        """What its exported file costs on the target."""
        return Cost(dict(self.candidate.cost), self.candidate.provenance)

    def module(self) -> nn.Module:
        """Return it as a PyTorch module of the user's own class.

        Raises:
            BadInput: The run was opened without the network it was made from.
        """
        if self.net is None:
            raise BadInput("this run was opened without its network", "pass net= to open_run")
        return self.candidate.build(self.net, self.folder)

    def export(self, path: str | Path) -> Path:
        """Copy its exported file to ``path``; the ending decides: ``.tflite`` or ``.onnx``.

        Raises:
            BadInput: The ending is another, or the run has no such file.
        """
        path = Path(path)
        kind = path.suffix.lstrip(".")
        if kind not in self.candidate.files:
            raise BadInput(
                f"{self.id} has no {kind or 'such'} file",
                f"use an ending of: {', '.join(self.candidate.files) or 'none was exported yet'}",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / self.candidate.files[kind], path)
        return path


class Front:
    """Members none of which is beaten in both accuracy and cost by another.

    Args:
        members: The family.
        metric: Key of the metric, higher is better.
        cost_key: Key of the cost, lower is better.
    """

    def __init__(self, members: Sequence[Member], metric: str, cost_key: str) -> None:
        self.metric, self.cost_key = metric, cost_key
        known = [m for m in members if metric in m.metrics and cost_key in m.candidate.cost]
        self.members = sorted(
            (m for m in known if not any(self._beats(other, m) for other in known)),
            key=lambda m: m.candidate.cost[cost_key],
        )

    def _point(self, member: Member) -> tuple[float, float]:
        return -member.metrics[self.metric], member.candidate.cost[self.cost_key]

    def _beats(self, a: Member, b: Member) -> bool:
        pa, pb = self._point(a), self._point(b)
        return pa != pb and pa[0] <= pb[0] and pa[1] <= pb[1]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def within(self, budget: str | Mapping[str, float | str] | Budget) -> Front:
        """Return the members within an absolute budget.

        Raises:
            InfeasibleBudget: There are none; the message names the cheapest.
        """
        limits = Budget.parse(budget)
        inside = [m for m in self.members if limits.met(m.cost)]
        if not inside:
            cheapest = min(self.members, key=lambda m: m.candidate.cost[self.cost_key])
            raise InfeasibleBudget(
                f"no member is within {limits}: the cheapest, {cheapest.id}, costs "
                f"{self.cost_key}={cheapest.candidate.cost[self.cost_key]:.4g}"
            )
        return Front(inside, self.metric, self.cost_key)

    def best(self) -> Member:
        """Return the most accurate member."""
        return max(self.members, key=lambda m: m.metrics[self.metric])

    def knee(self) -> Member:
        """Return the member farthest from the line between the front's two ends.

        Both axes are scaled to the front's extent first.
        """
        points = [self._point(m) for m in self.members]
        spans = [max(p[i] for p in points) - min(p[i] for p in points) or 1.0 for i in (0, 1)]
        low = [min(p[i] for p in points) for i in (0, 1)]

        def height(point: tuple[float, float]) -> float:
            return 1 - sum((point[i] - low[i]) / spans[i] for i in (0, 1))

        return max(self.members, key=lambda m: height(self._point(m)))


class FitResult:
    """A finished (or interrupted) run, seen from Python.

    Args:
        folder: The run directory.
        net: The original network; needed to rebuild members as modules.
        budget: The absolute budget, where it is known.
        metric: The task's metric.
    """

    def __init__(
        self, folder: Path, net: nn.Module | None = None, budget: Budget | None = None,
        metric: str = "accuracy",
    ) -> None:  # fmt: skip
        self.folder = folder
        self._run = Run.read(folder)
        self._net = net
        resolved = self._run.recall("budget/resolved")
        self.budget = budget or (Budget(resolved["limits"]) if resolved else None)
        self.metric = self._run.config.get("metric", metric)

    def members(self) -> list[Member]:
        """Return the whole family, the original first."""
        return [Member(c, self.folder, self._net) for c in self._run.candidates()]

    def member(self, point: str) -> Member:
        """Return a member by id, or ``best`` (within the budget) or ``knee``.

        Raises:
            BadInput: There is no such member.
        """
        if point == "best":
            return self.front().within(self.budget).best() if self.budget else self.front().best()
        if point == "knee":
            return self.front().knee()
        return Member(self._run.candidate(point), self.folder, self._net)

    def front(self, cost_key: str = "", metric: str = "") -> Front:
        """Return the Pareto front by the exported int8 file's accuracy on the test split.

        Args:
            cost_key: Cost to look at; the budget's first where empty.
            metric: Key of the metric; the int8 file's, else the float network's, where empty.
        """
        members = self.members()
        if not metric:
            wanted = [f"{kind}_{self.metric}" for kind in ("int8_test", "test", "val")]
            metric = next(
                (k for k in wanted if members and all(k in m.metrics for m in members)), wanted[-1]
            )
        key = cost_key or (self.budget.keys[0] if self.budget else "latency_ms")
        return Front(members, metric, key)

    @property
    def budget_met(self) -> bool:
        """Whether a member's exported file is within the budget."""
        return self.budget is not None and any(self.budget.met(m.cost) for m in self.members())

    def to_json(self) -> dict[str, Any]:
        """Return the run as ``chipfit fit --json`` prints it."""
        return {
            "run": str(self.folder),
            "budget_met": self.budget_met,
            "budget": dict(self.budget.limits) if self.budget else {},
            "front": [
                {
                    "id": m.id, "metrics": dict(m.metrics), "cost": dict(m.candidate.cost),
                    "provenance": m.candidate.provenance, "predicted": dict(m.candidate.predicted),
                    "cpu": dict(m.candidate.cpu),
                    "files": {k: str(self.folder / f) for k, f in m.candidate.files.items()},
                    "on_front": m.id in {f.id for f in self.front()},
                }
                for m in self.members()
            ],
        }  # fmt: skip


def open_run(folder: str | Path, net: nn.Module | None = None) -> FitResult:
    """Open an existing run directory.

    Args:
        folder: What ``--run`` named.
        net: The network the run was started with, to rebuild members as modules.

    Raises:
        BadInput: It is not a run directory.
    """
    return FitResult(Path(folder), net)


__all__ = ["ORIGINAL", "FitResult", "Front", "Member", "open_run"]
