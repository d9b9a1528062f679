# SPDX-License-Identifier: Apache-2.0
"""Regularised evolution: tournament selection and ageing.

Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI
2019, arXiv 1802.01548, algorithm 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from chipfit.blackbox.front import Direction
from chipfit.blackbox.order import Row
from chipfit.blackbox.strategy import Evaluation, Strategy
from chipfit.blackbox.variation import mutate_one
from chipfit.errors import BadInput

#: Children in a row that are known or pending, before a random architecture is asked for instead.
TRIES = 100


class RegularisedEvolution(Strategy):
    """The best of a random sample of the population is mutated; the oldest member dies.

    A mutation changes one choice. A child that was told before enters the population with the
    figures it has, at no evaluation: the search takes the course of the paper's, in which it would
    be trained again, as long as figures are those of the architecture alone. Where 100 children in
    a row were known a random architecture is asked for, which is our addition.

    Infeasible architectures lose against feasible ones and are ordered by violation.

    Args:
        sizes: Numbers of options of all choices.
        directions: One objective.
        seed: Of everything random.
        population: Members, ``P``; the paper has 100.
        sample: Of these, drawn with replacement, ``S``; the paper has 25.

    Raises:
        BadInput: There are several objectives, or a number is not positive.
    """

    name = "regularised evolution"

    def __init__(
        self,
        sizes: Sequence[int],
        directions: Sequence[Direction] = ("max",),
        seed: int = 0,
        population: int = 100,
        sample: int = 25,
    ) -> None:
        super().__init__(sizes, directions, seed)
        if population < 1 or sample < 1:
            raise BadInput(f"a population of {population} and a sample of {sample}")
        self.size, self.sample = population, sample
        self._living: deque[Evaluation] = deque(maxlen=population)

    @property
    def population(self) -> list[Evaluation]:
        """Who is alive, the oldest first."""
        return list(self._living)

    def _propose(self) -> Row | None:
        if len(self._told) + len(self._pending) < self.size:
            return self._fresh()
        if len(self._living) < self.size:
            return None
        for _ in range(TRIES):
            child = mutate_one(self._parent().row, self.sizes, self._rng)
            if child in self._told:
                self._learn(self._told[child])
            elif child not in self._pending:
                return child
        return self._fresh()

    def _parent(self) -> Evaluation:
        drawn = [self._living[self._rng.randrange(self.size)] for _ in range(self.sample)]
        return min(drawn, key=self._fitness)

    def _fitness(self, evaluation: Evaluation) -> tuple[float, float]:
        """Less is better."""
        if not evaluation.feasible:
            return evaluation.violation, 0.0
        value = evaluation.values[0]
        return 0.0, value if self.directions[0] == "min" else -value

    def _learn(self, evaluation: Evaluation) -> None:
        self._living.append(evaluation)  # the oldest drops out on the other side

    def _settings(self) -> dict[str, Any]:
        return {"population": self.size, "sample": self.sample}

    def _own_state(self) -> dict[str, Any]:
        return {"living": [list(e.row) for e in self._living]}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self._living = deque((self._told[tuple(row)] for row in state["living"]), self.size)
