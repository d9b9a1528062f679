# SPDX-License-Identifier: Apache-2.0
"""NSGA-II: a whole front at once.

Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
IEEE Transactions on Evolutionary Computation 6(2), 2002.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from chipfit.blackbox.front import Direction, crowding_distance, ranks
from chipfit.blackbox.order import Row
from chipfit.blackbox.strategy import Evaluation, Strategy
from chipfit.blackbox.variation import mutate_each, two_point_crossover, uniform_crossover
from chipfit.errors import BadInput

CROSSOVERS = {"uniform": uniform_crossover, "two-point": two_point_crossover}
#: Pairs of children in a row that bring nothing new, before a random architecture is taken.
TRIES = 100


class NSGA2(Strategy):
    """Non-dominated sorting, crowding, and the best ``population`` of parents and children.

    Parents are found by binary tournaments on (front, crowding distance), crossed and mutated.
    Constraints are met by constrained-domination: nothing is rejected, infeasible members merely
    lose (:func:`~chipfit.blackbox.front.ranks`). Genotypes are unique: a child that was seen before
    is bred again, and after 100 such pairs in a row a random new architecture takes its place, so
    that even an exhausted neighbourhood, or space, comes to an end. With one objective it is an
    elitist genetic algorithm.

    A generation is complete before the next is bred: :meth:`ask` returns nothing while the last of
    it are pending.

    Args:
        sizes: Numbers of options of all choices.
        directions: Of the objectives.
        seed: Of everything random.
        population: Members of a generation, and children of each.
        crossover: ``"uniform"`` or ``"two-point"``.
        crossover_rate: Probability that a pair of parents is crossed; the paper has 0.9.
        mutation_rate: Probability that a choice of a child takes another option; one over the
            number of choices where ``None``, as in the paper.
        initial: The first generation, at most ``population`` rows; a random one where empty.

    Raises:
        BadInput: The population has fewer than two members, a rate is not a probability, or an
            initial row is none of the space.
    """

    name = "NSGA-II"
    several = True

    def __init__(
        self,
        sizes: Sequence[int],
        directions: Sequence[Direction] = ("max", "min"),
        seed: int = 0,
        population: int = 64,
        crossover: Literal["uniform", "two-point"] = "uniform",
        crossover_rate: float = 0.9,
        mutation_rate: float | None = None,
        initial: Sequence[Row] = (),
    ) -> None:
        super().__init__(sizes, directions, seed)
        self.size, self.crossover, self.crossover_rate = population, crossover, crossover_rate
        self.mutation_rate = 1 / len(self.sizes) if mutation_rate is None else mutation_rate
        if population < 2 or crossover not in CROSSOVERS:
            raise BadInput(f"a population of {population}, crossover {crossover!r}")
        if not (0 <= crossover_rate <= 1 and 0 <= self.mutation_rate <= 1):
            raise BadInput(f"rates {crossover_rate} and {self.mutation_rate} are no probabilities")
        #: Generations that were completed, the initial one included.
        self.generation = 0
        self._parents: list[Row] = []
        self._children: list[Row] = []
        self._queue: list[Row] = list(dict.fromkeys(initial))[:population]
        for row in self._queue:
            if len(row) != len(self.sizes) or not all(
                0 <= option < size for option, size in zip(row, self.sizes, strict=True)
            ):
                raise BadInput(f"the initial row {row} is none of a space of sizes {self.sizes}")
        self._standing: dict[Row, tuple[int, float]] = {}

    @property
    def population(self) -> list[Evaluation]:
        """The members selected last."""
        return [self._told[row] for row in self._parents]

    def _propose(self) -> Row | None:
        if not self._queue and not self._children:
            self._breed()
        if not self._queue:
            return None
        row = self._queue.pop(0)
        self._children.append(row)
        return row

    def _learn(self, evaluation: Evaluation) -> None:
        if not self._queue and all(row in self._told for row in self._children):
            self._select()

    def _select(self) -> None:
        """Let the best of parents and children survive, the last front by its crowding."""
        rows = [*self._parents, *self._children]
        members = [self._told[row] for row in rows]
        costs = self._costs_of(members)
        front_of = ranks(costs, [member.violation for member in members])
        self._standing = {}
        for rank in range(int(front_of.max()) + 1):
            front = np.flatnonzero(front_of == rank)
            crowding = crowding_distance(costs[front])
            for at in np.argsort(-crowding, kind="stable")[: self.size - len(self._standing)]:
                self._standing[rows[front[at]]] = (rank, -float(crowding[at]))
        self._parents, self._children = list(self._standing), []
        self.generation += 1

    def _breed(self) -> None:
        """Queue a generation of rows that were not seen before, as many as there are."""
        misses = 0
        while len(self._queue) < self.size:
            if self._parents and misses < TRIES:
                new = [row for row in dict.fromkeys(self._pair()) if not self._taken(row)]
                misses = 0 if new else misses + 1
                self._queue += new[: self.size - len(self._queue)]
            elif (row := self._fresh()) is not None:
                misses = 0
                self._queue.append(row)
            else:
                return

    def _pair(self) -> tuple[Row, Row]:
        one, other = self._winner(), self._winner()
        if self._rng.random() < self.crossover_rate:
            one, other = CROSSOVERS[self.crossover](one, other, self._rng)
        return (
            mutate_each(one, self.sizes, self.mutation_rate, self._rng),
            mutate_each(other, self.sizes, self.mutation_rate, self._rng),
        )

    def _winner(self) -> Row:
        one, other = (self._parents[self._rng.randrange(len(self._parents))] for _ in range(2))
        return min(one, other, key=lambda row: self._standing[row])

    def _taken(self, row: Row) -> bool:
        return super()._taken(row) or row in self._queue

    def _settings(self) -> dict[str, Any]:
        return {
            "population": self.size, "crossover": self.crossover,
            "crossover_rate": self.crossover_rate, "mutation_rate": self.mutation_rate,
        }  # fmt: skip

    def _own_state(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "parents": [list(row) for row in self._parents],
            # Infinite crowding is no JSON.
            "standing": [[r, None if d == -np.inf else d] for r, d in self._standing.values()],
            "children": [list(row) for row in self._children],
            "queue": [list(row) for row in self._queue],
        }

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.generation = int(state["generation"])
        self._parents, self._children, self._queue = (
            [tuple(row) for row in state[key]] for key in ("parents", "children", "queue")
        )
        pairs = [(int(r), -np.inf if d is None else float(d)) for r, d in state["standing"]]
        self._standing = dict(zip(self._parents, pairs, strict=True))
