# SPDX-License-Identifier: Apache-2.0
"""``OneShotEvolution``: NSGA-II on a supernet, inside a window of costs.

Objectives are the metric that an architecture has with inherited weights and its predicted cost.
PAD-NAS (Xia et al., WACV 2022) calls such a search constrained evolutionary search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chipfit.blackbox import NSGA2, Evaluation, Row, as_costs, ranks, search, window_violation
from chipfit.blackbox.front import Direction
from chipfit.blackbox.strategy import Strategy
from chipfit.errors import StorageError
from chipfit.files import write_bytes
from chipfit.methods.base import Problem
from chipfit.methods.space_band import random_in_band
from chipfit.methods.space_costs import SpaceCosts
from chipfit.methods.space_reach import best_rows
from chipfit.supernet.supernet import Supernet
from chipfit.train.batchnorm import recalibrate_batchnorm

#: Training images that batch norms of one architecture are recalibrated with.
BATCHES, BATCH = 4, 64
#: For one architecture inside the window, at most so many are looked at.
_LOOKED_AT = 50


@dataclass(frozen=True)
class Window:
    """What architectures may cost.

    Args:
        high: By key, the most.
        low: Of the first key, the least.
    """

    high: Mapping[str, float]
    low: float = 0.0

    def violation(self, costs: Mapping[str, float]) -> float:
        """Return the sum of the shares by which costs are outside; 0 inside."""
        first = next(iter(self.high))
        return sum(
            window_violation(costs[key], self.low if key == first else 0.0, high)
            for key, high in self.high.items()
        )


@dataclass(frozen=True)
class OneShotEvolution:
    """Searches what is left of a supernet's space; a search that was killed continues.

    Accuracies are those of derived networks with recalibrated batch norms, on the first images of
    the validation split. The first generation is drawn inside the window. The paper throws
    offspring outside of it away; here it loses against what is inside (constrained-domination), and
    neither counts nor gets an accuracy.

    Args:
        problem: Gives network, task and progress.
        costs: Of the space.
        population: Members of a generation.
        generations: The initial one included: ``population`` times as many architectures get an
            accuracy, if there are so many.
        images: Validation images of every accuracy.
    """

    problem: Problem
    costs: SpaceCosts
    population: int
    generations: int
    images: int

    def run(self, supernet: Supernet, window: Window, seed: int, path: Path) -> list[Evaluation]:
        """Return all architectures inside the window that were evaluated, in that order.

        Rows are option indices of the whole space, values the metric in the task's direction and
        the cost of the window's first key.

        Args:
            supernet: Trained; it is not changed.
            window: If no architecture that is left lies between its bounds, the lower one is
                dropped.
            seed: Of the evolution.
            path: File of its state.

        Raises:
            StorageError: The state is damaged or cannot be written.
        """
        alive = [supernet.alive[choice.name] for choice in supernet.space]
        window = Window(window.high, self._lower_bound(alive, window))
        task = self.problem.task
        first = random_in_band(
            self.costs, window.high, window.low, self.population, seed, alive
        )  # fmt: skip
        strategy = NSGA2(
            [len(own) for own in alive],
            ("max" if task.higher_is_better else "min", "min"),
            seed, self.population, "two-point",
            initial=[tuple(own.index(i) for own, i in zip(alive, r, strict=True)) for r in first],
        )  # fmt: skip
        identity = {
            "high": dict(window.high), "low": window.low, "alive": [list(own) for own in alive],
            "images": self.images,
        }  # fmt: skip
        _restore(strategy, path, identity)
        functions = {key: self.costs.of(key) for key in window.high}
        batches = task.calibration_batches(BATCHES, BATCH)

        def evaluate(rows: Sequence[Row]) -> list[Evaluation]:
            whole = _whole(alive, rows)
            values = {key: cost(whole) for key, cost in functions.items()}
            found = []
            for i, row in enumerate(rows):
                own = {key: float(value[i]) for key, value in values.items()}
                over = window.violation(own)
                figures: tuple[float, ...] = ()
                if not over:
                    metric = self._metric(supernet, self.costs.names(whole[i]), batches)
                    figures = (metric, own[next(iter(own))])
                found.append(Evaluation(row, figures, over))
            return found

        def keep(_: Strategy) -> None:
            state = {"identity": identity, "strategy": strategy.state_dict()}
            write_bytes(path, json.dumps(state).encode())
            inside = sum(e.feasible for e in strategy.evaluations)
            self.problem.progress(f"evolution: {inside} of {wanted} architectures judged")

        wanted = self.population * self.generations
        told = -1
        while told < len(strategy.evaluations) < _LOOKED_AT * wanted:
            told = len(strategy.evaluations)
            if sum(e.feasible for e in strategy.evaluations) >= wanted:
                break
            search(strategy, evaluate, told + self.population, self.population, keep)
        inside = [e for e in strategy.evaluations if e.feasible]
        rows = _whole(alive, [e.row for e in inside]).tolist()
        return [Evaluation(tuple(r), e.values) for r, e in zip(rows, inside, strict=True)]

    def _lower_bound(self, alive: Sequence[Sequence[int]], window: Window) -> float:
        first, high = next(iter(window.high.items()))
        if window.low <= 0:
            return 0.0
        scores = []
        for choice, own in zip(self.costs.space, alive, strict=True):
            score = np.full(len(choice.options), -np.inf)
            score[list(own)] = 0.0
            scores.append(score)
        rows = best_rows(self.costs, scores, window.high, 1, window.low / high)
        inside = rows and self.costs.of(first)(np.array(rows, np.int64))[0] >= window.low
        return window.low if inside else 0.0

    def _metric(
        self, supernet: Supernet, architecture: Mapping[str, str], batches: Sequence[Tensor]
    ) -> float:
        task = self.problem.task
        net = supernet.derive(self.problem.net, architecture)
        recalibrate_batchnorm(net, batches)
        return float(task.evaluate(net, "val", limit=self.images)[task.metric])


def front_number(evaluations: Sequence[Evaluation], higher_is_better: bool) -> NDArray[np.int64]:
    """Return the non-domination rank of each, ``(N,)``, the Pareto front having 1."""
    directions: tuple[Direction, Direction] = ("max" if higher_is_better else "min", "min")
    return ranks(as_costs([e.values for e in evaluations], directions)) + 1


def _whole(alive: Sequence[Sequence[int]], rows: Sequence[Row]) -> NDArray[np.int64]:
    """Return rows of what is left as option indices of the whole space."""
    found = [[own[i] for own, i in zip(alive, row, strict=True)] for row in rows]
    return np.array(found, np.int64).reshape(len(rows), len(alive))


def _restore(strategy: Strategy, path: Path, identity: Mapping[str, Any]) -> None:
    """Continue from a state of the same search, if there is one."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the state of the evolution {path} cannot be read: {error}",
            "remove it to begin this evolution anew",
        ) from error
    if found.get("identity") == identity:
        strategy.load_state_dict(found["strategy"])
