# SPDX-License-Identifier: Apache-2.0
"""What a report knows about a search on a supernet: its steps, its choices, what it decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

#: Share of skips above which a search may be collapsing; the run itself gives the verdict.
SKIP_WARNING = 0.5

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class SearchStep:
    """What a search recorded at one step; everything but the step may be unknown.

    Args:
        step: Number of the step.
        steps: Steps that the search takes.
        loss: Training loss.
        val_loss: Validation loss.
        metrics: Other validation metrics by key, such as ``val_accuracy``.
        expected: Expected cost under the probabilities, by cost key.
        budget: Bounds by cost key.
        entropy: From 1, undecided, to 0, decided; mean over the choices.
        temperature: Of the relaxation.
        skip_share: Mean probability of computing nothing, over the choices that offer it.
        collapsing: Whether the run judged that skips are taking over.
        seconds: Time of the search since it was started, or continued.
        probabilities: By choice and operation.
    """

    step: int
    steps: int | None = None
    loss: float | None = None
    val_loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    entropy: float | None = None
    temperature: float | None = None
    skip_share: float | None = None
    collapsing: bool | None = None
    seconds: float | None = None
    probabilities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """An operation of a choice after the search; ``probability`` is ``None`` where unknown."""

    name: str
    probability: float | None
    chosen: bool = False

    @property
    def pruned(self) -> bool:
        """Whether the search took it out: its probability is exactly 0."""
        return self.probability == 0.0 and not self.chosen


@dataclass(frozen=True)
class Decision:
    """A choice of a derived network with all its operations, in the order of the supernet."""

    choice: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Search:
    """One search on one supernet.

    Args:
        name: Unique in the run; the method's where it made one search only.
        method: Name of the method.
        choices: Operations of each choice, in the order of execution.
        steps: In order.
    """

    name: str
    method: str
    choices: Mapping[str, tuple[str, ...]]
    steps: tuple[SearchStep, ...]

    @cached_property
    def last(self) -> SearchStep | None:
        """The latest step, where there is one."""
        return self.steps[-1] if self.steps else None

    @cached_property
    def pictures(self) -> tuple[SearchStep, ...]:
        """The steps that recorded probabilities."""
        return tuple(step for step in self.steps if step.probabilities)

    @cached_property
    def elapsed_s(self) -> tuple[float | None, ...]:
        """Time of the search at each step, over all the times that it was continued."""
        found: list[float | None] = []
        before = latest = 0.0
        for step in self.steps:
            if step.seconds is None:
                found.append(None)
                continue
            # Where the clock goes back the search was continued.
            if step.seconds < latest:
                before += latest
            latest = step.seconds
            found.append(before + latest)
        return tuple(found)

    @property
    def seconds(self) -> float | None:
        """Time of the whole search."""
        return max((t for t in self.elapsed_s if t is not None), default=None)

    @property
    def collapsing(self) -> bool:
        """Whether the latest verdict of the run is that skips are taking over."""
        verdicts = [step.collapsing for step in self.steps if step.collapsing is not None]
        return bool(verdicts) and verdicts[-1]

    def probabilities(self, choice: str) -> Mapping[str, float]:
        """Return the latest known probabilities of a choice by operation; empty where unknown."""
        known = [s.probabilities[choice] for s in self.pictures if choice in s.probabilities]
        return known[-1] if known else {}

    def covers(self, architecture: Mapping[str, Any]) -> bool:
        """Return whether an architecture decides every choice of this search."""
        return bool(self.choices) and self.choices.keys() <= architecture.keys()

    def decisions(self, architecture: Mapping[str, Any]) -> tuple[Decision, ...]:
        """Return what an architecture decided in every choice, in the order of execution.

        An operation that the supernet did not have stands last, its probability unknown.
        """
        decided = []
        for choice, operations in self.choices.items():
            chosen = architecture.get(choice)
            known = self.probabilities(choice)
            names = list(operations)
            if chosen is not None and str(chosen) not in names:
                names.append(str(chosen))
            options = tuple(Option(n, known.get(n), n == str(chosen)) for n in names)
            decided.append(Decision(choice, options))
        return tuple(decided)


def thinned(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most ``most`` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    ends = len(items) - 1
    return [items[round(i * ends / (most - 1))] for i in range(most)]
