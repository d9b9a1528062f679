# SPDX-License-Identifier: Apache-2.0
"""What a report knows about a run: frozen records of its members, its search and its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from chipfit.report.search import Search

ORIGINAL = "original"


@dataclass(frozen=True)
class Layer:
    """One layer of a member: its name, kind, output shape (N C H W) and its own cost."""

    name: str
    kind: str
    output: tuple[int, ...]
    cost: Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """One step of the search that led to a member.

    Args:
        step: Number of the step, ``None`` where the run did not record it.
        group: Name of what changed.
        before: Its option before the step, a width for channel groups.
        after: Its option after the step.
        saved: Cost that the step saved, by cost key; negative where the step cost something.
        metrics_before: Metrics before the step, by metric key.
        metrics_after: Metrics after the step.
    """

    step: int | None
    group: str
    before: Any
    after: Any
    saved: Mapping[str, float]
    metrics_before: Mapping[str, float]
    metrics_after: Mapping[str, float]


@dataclass(frozen=True)
class ExportedFile:
    """A file of a member: its format, its path relative to the run, and its size.

    ``size_bytes`` is ``None`` where the file is not there.
    """

    format: str
    path: str
    size_bytes: int | None


@dataclass(frozen=True)
class Member:
    """One network of the family.

    Args:
        id: Unique; ``"original"`` is the network that the run started from.
        step: The step of the search that made it.
        parent: The member it was derived from.
        architecture: Chosen option by choice; widths for channel groups.
        metrics: By metric key; those that the run has not computed yet are absent.
        cost: By cost key, on the run's target.
        provenance: How ``cost`` was come by; empty where the run did not say.
        spread: Half-width of the 95 % confidence interval of measured costs, same unit.
        predicted: Cost predicted from the cost table, by cost key.
        cpu_latency_ms: Measured on the CPU of the machine that ran the fit.
        cpu_spread_ms: Half-width of its confidence interval.
        files: Exported files.
        verify: Parity figures by file format.
        layers: Layers in execution order.
        changes: Steps that led here, in order.
    """

    id: str
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    step: int | None = None
    parent: str = ""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    provenance: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    cpu_latency_ms: float | None = None
    cpu_spread_ms: float | None = None
    files: tuple[ExportedFile, ...] = ()
    verify: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    changes: tuple[Change, ...] = ()

    @cached_property
    def values(self) -> dict[str, float]:
        """All figures by key: metrics, costs, and ``cpu_latency_ms`` where it was measured."""
        values = {**self.metrics, **self.cost}
        if self.cpu_latency_ms is not None:
            values["cpu_latency_ms"] = self.cpu_latency_ms
        return values

    @cached_property
    def spreads(self) -> dict[str, float]:
        """Half-widths of the confidence intervals of :attr:`values`, by the same keys."""
        spreads = dict(self.spread)
        if self.cpu_spread_ms is not None:
            spreads["cpu_latency_ms"] = self.cpu_spread_ms
        return spreads

    def prediction_error(self, key: str) -> float | None:
        """Return ``predicted / actual - 1`` for a cost key; ``None`` where a side is unknown."""
        predicted, actual = self.predicted.get(key), self.cost.get(key)
        if predicted is None or not actual:
            return None
        return predicted / actual - 1.0


@dataclass(frozen=True)
class Proposal:
    """One candidate change that a step tried: predicted cost and metrics after a short tune."""

    step: int
    group: str
    width: Any
    predicted: Mapping[str, float]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Step:
    """The change that a step kept; ``budget_ms`` is the latency that the step had to reach."""

    step: int
    group: str
    width: Any
    predicted: Mapping[str, float]
    compiled: Mapping[str, float]
    metrics: Mapping[str, float]
    budget_ms: float | None = None


@dataclass(frozen=True)
class Stage:
    """A stage of the run, summed over all the times that the run was continued."""

    name: str
    seconds: float | None
    peak_rss_bytes: float | None
    times: int = 1


@dataclass(frozen=True)
class Journal:
    """What the journal tells: the search, the stages, and whether the run came to its end.

    ``unreadable_lines`` counts damaged lines before the last; a half-written last line is normal
    after an interruption and is not counted. ``limits`` is the budget in absolute figures, where
    the run has worked it out. ``searches`` are those on supernets, in the order they began;
    ``started_s`` is when the run was started, in seconds of Unix time.
    """

    proposals: tuple[Proposal, ...] = ()
    steps: tuple[Step, ...] = ()
    stages: tuple[Stage, ...] = ()
    finished: bool = False
    unreadable_lines: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    searches: tuple[Search, ...] = ()
    started_s: float | None = None


@dataclass(frozen=True)
class RunData:
    """A run directory as a report sees it; :func:`chipfit.report.read.read_run` makes it.

    Args:
        directory: The run directory.
        config: Settings of the run.
        environment: Versions and machine.
        members: The original first, then by step.
        budget: Upper bounds by cost key.
        journal: The search and the stages.
    """

    directory: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    members: tuple[Member, ...]
    budget: Mapping[str, float]
    journal: Journal

    @cached_property
    def original(self) -> Member | None:
        """The network that the run started from, where it is already there."""
        return next((m for m in self.members if m.id == ORIGINAL), None)

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.config.get("network") or "unnamed network")

    @property
    def target(self) -> str:
        """Name of the target."""
        return str(self.config.get("target") or "unnamed target")

    def meets_budget(self, member: Member) -> bool | None:
        """Return whether a member is within every bound; ``None`` where a figure is missing."""
        verdict: bool | None = None if not self.budget else True
        for key, bound in self.budget.items():
            value = member.cost.get(key)
            if value is not None and value > bound:
                return False
            if value is None:
                verdict = None
        return verdict
