# SPDX-License-Identifier: Apache-2.0
"""Black-box strategies on a complete table: regret, and hypervolume against the true front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from chipfit.blackbox import (
    NSGA2,
    Evaluation,
    RandomSearch,
    RegularisedEvolution,
    Reinforce,
    Row,
    Strategy,
    as_costs,
    hypervolume,
    mnasnet_reward,
    search,
)
from chipfit.blackbox.front import Direction

#: Exponents of the cost in the reward of a strategy with one objective: it is run once for each,
#: the evaluations shared out, as one reward leads to one part of the front only.
EXPONENTS = (0.0, -0.02, -0.07, -0.2, -0.5)
DIRECTIONS: tuple[Direction, ...] = ("max", "min")
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Accuracy, and where it was compiled cost, of every architecture of a space.

    Args:
        sizes: Numbers of options of all choices.
        accuracy: In per cent, by row.
        cost: Positive, by row; empty where there is none.
    """

    sizes: Row
    accuracy: dict[Row, float]
    cost: dict[Row, float]

    def points(self, rows: Sequence[Row]) -> Values:
        """Return accuracy and cost, ``(N, 2)``, minimised: accuracy is negated."""
        return as_costs([(self.accuracy[r], self.cost[r]) for r in rows], DIRECTIONS)


@dataclass(frozen=True)
class Settings:
    """Of the strategies that have any.

    Args:
        evolution: Population and sample of regularised evolution.
        population: Of NSGA-II.
        learning_rate: Of REINFORCE.
    """

    evolution: tuple[int, int] = (10, 3)
    population: int = 20
    learning_rate: float = 0.05


def makers(settings: Settings) -> dict[str, Callable[..., Strategy]]:
    """Return by name what makes a strategy: ``make(sizes, directions, seed)``."""
    members, sample = settings.evolution
    return {
        RandomSearch.name: RandomSearch,
        RegularisedEvolution.name: lambda sizes, directions, seed: RegularisedEvolution(
            sizes, directions, seed, members, sample
        ),
        NSGA2.name: lambda sizes, directions, seed: NSGA2(
            sizes, directions, seed, settings.population
        ),
        Reinforce.name: lambda sizes, directions, seed: Reinforce(
            sizes, directions, seed, settings.learning_rate
        ),
    }


def run(
    strategy: Strategy, figures: Callable[[Row], Sequence[float]], evaluations: int
) -> list[Row]:
    """Return the architectures in the order in which a strategy evaluated them."""
    search(
        strategy,
        lambda rows: [Evaluation(row, tuple(figures(row))) for row in rows],
        evaluations,
    )
    return [evaluation.row for evaluation in strategy.evaluations]


def regrets(table: Table, rows: Sequence[Row], counts: Sequence[int]) -> list[float]:
    """Return by how many points the best of the first so many rows is below the best of all."""
    best = np.maximum.accumulate([table.accuracy[row] for row in rows])
    top = max(table.accuracy.values())
    return [float(top - best[min(count, len(best)) - 1]) for count in counts]


def towards_front(
    name: str, make: Callable[..., Strategy], table: Table, evaluations: int, seed: int
) -> list[Row]:
    """Return what a strategy evaluates on its way to a front of accuracy and cost.

    Strategies of one objective are run with the rewards of :data:`EXPONENTS`, in turns; what two of
    these runs evaluate both costs twice.
    """
    if name in (RandomSearch.name, NSGA2.name):
        strategy = make(table.sizes, DIRECTIONS, seed)
        return run(strategy, lambda row: (table.accuracy[row], table.cost[row]), evaluations)
    scale = float(np.median(list(table.cost.values())))
    share = -(-evaluations // len(EXPONENTS))
    several = []
    for i, exponent in enumerate(EXPONENTS):

        def reward(row: Row, w: float = exponent) -> tuple[float]:
            return (mnasnet_reward(table.accuracy[row], table.cost[row], scale, w, w),)

        several.append(run(make(table.sizes, ("max",), seed * len(EXPONENTS) + i), reward, share))
    turns = [row for turn in zip_longest(*several) for row in turn if row is not None]
    return turns[:evaluations]


def shares(
    table: Table, rows: Sequence[Row], counts: Sequence[int], reference: Sequence[float]
) -> list[float]:
    """Return the hypervolume of the first so many rows as a share of that of all.

    Args:
        table: Accuracies and costs.
        rows: In the order of evaluation.
        counts: How many of them.
        reference: Accuracy and cost of the corner from which volumes are measured.
    """
    corner = (-reference[0], reference[1])
    whole = hypervolume(table.points(list(table.accuracy)), corner)
    return [hypervolume(table.points(rows[:count]), corner) / whole for count in counts]
