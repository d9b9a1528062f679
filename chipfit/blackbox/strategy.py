# SPDX-License-Identifier: Apache-2.0
"""``Strategy``: what every black-box search is: ask for architectures, tell their figures."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from chipfit.blackbox.front import Costs, Direction, as_costs, non_dominated
from chipfit.blackbox.order import RandomOrder, Row
from chipfit.errors import BadInput


@dataclass(frozen=True)
class Evaluation:
    """What was told of an architecture.

    Args:
        row: Index of the option of every choice.
        values: One figure per objective, in the caller's own direction; empty where the
            architecture was not worth computing them.
        violation: By how much it breaks the constraints, in any one unit; 0 where it is feasible.
    """

    row: Row
    values: tuple[float, ...]
    violation: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether it keeps all constraints."""
        return self.violation == 0.0


def window_violation(value: float, low: float = 0.0, high: float = math.inf) -> float:
    """Return by what share ``value`` is below ``low`` or above ``high``; 0 inside the window.

    >>> window_violation(75.0, 50.0, 60.0)
    0.25
    """
    below = (low - value) / low if value < low else 0.0
    return max(below, (value - high) / high if value > high else 0.0)


class Strategy(ABC):
    """Proposes architectures of a space, and learns from their figures.

    The caller evaluates what :meth:`ask` returns, in any order and as many at once as it likes, and
    tells the figures. No architecture is asked for twice, so every evaluation is of a new one. All
    randomness comes from the seed: the same figures give the same search, also where
    :meth:`state_dict` was taken and loaded in between.

    Args:
        sizes: Numbers of options of all choices.
        directions: Whether each objective is to be minimised, ``"min"``, or maximised, ``"max"``.
        seed: Of everything random.

    Raises:
        BadInput: There is no choice, one has no option, or a direction is neither.
    """

    #: What tables and states call it.
    name: ClassVar[str]
    #: Whether it understands several objectives.
    several: ClassVar[bool] = False

    def __init__(
        self, sizes: Sequence[int], directions: Sequence[Direction] = ("max",), seed: int = 0
    ) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        if not self.sizes or min(self.sizes) < 1:
            raise BadInput(f"sizes of choices {self.sizes}", "every choice needs an option")
        self.directions = tuple(directions)
        as_costs([], self.directions)
        if len(self.directions) > 1 and not self.several:
            raise BadInput(
                f"{self.name} has one objective, not {len(self.directions)}",
                "combine them into one figure, for instance with mnasnet_reward",
            )
        self._rng = random.Random(seed)
        self._order = RandomOrder(self.sizes)
        self._told: dict[Row, Evaluation] = {}
        self._pending: dict[Row, None] = {}

    @property
    def evaluations(self) -> list[Evaluation]:
        """Everything that was told, in that order."""
        return list(self._told.values())

    @property
    def pending(self) -> list[Row]:
        """Rows that were asked for and are not told yet; after a restart they come first."""
        return list(self._pending)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture of the space was asked for."""
        return len(self._told) + len(self._pending) == math.prod(self.sizes)

    def ask(self, count: int = 1) -> list[Row]:
        """Return up to ``count`` architectures to evaluate.

        There are fewer, or none, where the space is exhausted, and where the strategy has to hear
        of pending ones before it goes on.

        Raises:
            BadInput: ``count`` is not positive.
        """
        if count < 1:
            raise BadInput(f"asked for {count} architectures")
        asked: list[Row] = []
        while len(asked) < count and not self.exhausted:
            row = self._propose()
            if row is None:
                break
            self._pending[row] = None
            asked.append(row)
        return asked

    def tell(self, row: Sequence[int], values: Sequence[float], violation: float = 0.0) -> None:
        """Take in the figures of an architecture that was asked for.

        Args:
            row: The architecture.
            values: One finite figure per objective, in the order and sense of ``directions``.
                Those of an infeasible one are never looked at and may be left out: what is
                expensive need not be computed for it.
            violation: By how much it breaks the constraints; 0 where it is feasible. See
                :func:`window_violation`.

        Raises:
            BadInput: It is not pending, or its figures are no such figures.
        """
        row = tuple(int(option) for option in row)
        if row not in self._pending:
            raise BadInput(f"architecture {row} is told but not pending", "tell what ask returned")
        if not (math.isfinite(violation) and violation >= 0):
            raise BadInput(f"violation {violation} of {row}", "0 if feasible, else positive")
        figures = tuple(float(value) for value in values)
        if violation and not figures:
            pass
        elif len(figures) != len(self.directions) or not all(map(math.isfinite, figures)):
            raise BadInput(f"{row} needs {len(self.directions)} finite figure(s), not {figures}")
        evaluation = Evaluation(row, figures, float(violation))
        del self._pending[row]
        self._told[row] = evaluation
        self._learn(evaluation)

    def front(self) -> list[Evaluation]:
        """Return the feasible evaluations that no other one dominates, in the order told."""
        feasible = [e for e in self._told.values() if e.feasible]
        costs = as_costs([e.values for e in feasible], self.directions)
        return [feasible[i] for i in non_dominated(costs)]

    def state_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        version, internal, gauss = self._rng.getstate()
        return {
            "strategy": self.name, "sizes": list(self.sizes), "directions": list(self.directions),
            "settings": self._settings(), "random": [version, list(internal), gauss],
            "order": self._order.state_dict(),
            "told": [[list(e.row), list(e.values), e.violation] for e in self._told.values()],
            "pending": [list(row) for row in self._pending], "own": self._own_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            BadInput: It is of another strategy, space or setting.
        """
        mine = self.state_dict()
        for key in ("strategy", "sizes", "directions", "settings"):
            if state.get(key) != mine[key]:
                raise BadInput(
                    f"the state has {key} {state.get(key)!r}, the strategy has {mine[key]!r}",
                    "construct the strategy as it was constructed then",
                )
        version, internal, gauss = state["random"]
        self._rng.setstate((version, tuple(internal), gauss))
        self._order.load_state_dict(state["order"])
        told = [Evaluation(tuple(row), tuple(v), over) for row, v, over in state["told"]]
        self._told = {evaluation.row: evaluation for evaluation in told}
        self._pending = {tuple(row): None for row in state["pending"]}
        self._load_own_state(state["own"])

    @abstractmethod
    def _propose(self) -> Row | None:
        """Return a row that is neither told nor pending; ``None`` where others must be told."""

    def _learn(self, evaluation: Evaluation) -> None:  # noqa: B027  # most need nothing
        """Take in what was told just now."""

    def _settings(self) -> dict[str, Any]:
        return {}

    def _own_state(self) -> dict[str, Any]:
        return {}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore what :meth:`_own_state` returned."""

    def _taken(self, row: Row) -> bool:
        return row in self._told or row in self._pending

    def _fresh(self) -> Row | None:
        """Return a uniformly random row that is not taken; ``None`` where there is none."""
        while (row := self._order.draw(self._rng)) is not None:
            if not self._taken(row):
                return row
        return None

    def _costs_of(self, evaluations: Sequence[Evaluation]) -> Costs:
        """Return ``(N, objectives)``, minimised; zeros where values were left out."""
        empty = (0.0,) * len(self.directions)
        return as_costs([e.values or empty for e in evaluations], self.directions)
