# SPDX-License-Identifier: Apache-2.0
"""``Choice`` and ``SearchSpace``: named decisions and the options of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipfit.errors import BadInput
from chipfit.space import encoding
from chipfit.space.architecture import Architecture
from chipfit.space.decisions import Decisions
from chipfit.space.group_budget import GroupBudget
from chipfit.space.moves import crossover, mutate, neighbours
from chipfit.space.source import Source, stream

Codes = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A named decision: one of its options is taken.

    Args:
        name: What is decided, for instance a channel group.
        options: The options; ascending where ``ordered``.
        ordered: Whether neighbouring options are alike (widths, depths).
    """

    name: str
    options: tuple[Any, ...]
    ordered: bool = False

    def below(self, option: Any) -> list[Any]:
        """Return the options of an ordered choice that are smaller, largest first."""
        return [o for o in reversed(self.options) if o < option]

    def option(self, value: Any) -> Any:
        """Return the option that ``value`` means; lists stand for tuples, as JSON has none.

        Raises:
            BadInput: It means none.
        """
        found = tuple(value) if isinstance(value, list) else value
        if found not in self.options:
            raise BadInput(f"{self.name} cannot be {value!r}")
        return found

    def index(self, value: Any) -> int:
        """Return the place of an option among :attr:`options`.

        Raises:
            BadInput: There is no such option.
        """
        return self.options.index(self.option(value))

    def near(self, option: Any) -> tuple[Any, ...]:
        """Return the options one step away: those beside it where ordered, else all others."""
        at = self.index(option)
        if self.ordered:
            return tuple(self.options[i] for i in (at - 1, at + 1) if 0 <= i < len(self.options))
        return tuple(o for i, o in enumerate(self.options) if i != at)

    def count(self, option: Any) -> int:
        """Return how much of a :class:`GroupBudget` an option takes: 1, as one thing is chosen."""
        return 1

    def restricted(self, allowed: Iterable[Any]) -> Choice:
        """Return the choice with the allowed options alone; their order stays.

        Raises:
            BadInput: One of them is no option, or none is allowed.
        """
        kept = [self.option(value) for value in allowed]
        if not kept:
            raise BadInput(f"nothing would be left of {self.name}")
        return replace(self, options=tuple(o for o in self.options if o in kept))

    @property
    def width(self) -> int:
        """Places that the choice takes in a flat one-hot vector."""
        return len(self.options)

    def bits(self, option: Any) -> list[int]:
        """Return an option as ones and zeros, one of them a one."""
        at = self.index(option)
        return [int(i == at) for i in range(len(self.options))]

    def from_bits(self, bits: Sequence[float]) -> Any:
        """Return the option of the largest value; the first of equals."""
        return self.options[max(range(len(self.options)), key=lambda i: (bits[i], -i))]


@dataclass(frozen=True)
class SearchSpace:
    """Choices by name; an architecture takes one option of each.

    Seeds, :class:`random.Random` and :class:`numpy.random.Generator` serve as sources of
    randomness; equal ones give equal architectures. Whatever is made of architectures of the space
    is one of the space again: ties and budgets are kept.

    Args:
        choices: Of different names.
        budgets: On the members of several multi-hot choices together; no choice is in two.
        ties: Groups of choices that take the same option. All their names stand in an
            architecture, and they count as one decision.

    Raises:
        BadInput: Names repeat or are unknown, tied choices differ, or a budget cannot be met.

    >>> depth, width = Choice("depth", (1, 2, 3), ordered=True), Choice("width", (8, 16))
    >>> SearchSpace((depth, width)).size
    6
    """

    choices: tuple[Choice, ...]
    budgets: tuple[GroupBudget, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        if len(set(names)) < len(names):
            raise BadInput("two choices of the space have the same name")
        object.__setattr__(self, "_decisions", Decisions(self.choices, self.budgets, self.ties))

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, name: str) -> Choice:
        for choice in self.choices:
            if choice.name == name:
                return choice
        raise BadInput(f"no choice is called {name!r}")

    @property
    def decisions(self) -> Decisions:
        """What is free: ties as one decision, budgets as groups of them."""
        found: Decisions = self.__dict__["_decisions"]
        return found

    @property
    def size(self) -> int:
        """Number of architectures, exactly."""
        return self.decisions.size

    def largest(self) -> Architecture:
        """Return the architecture of the last option everywhere, as far as budgets allow."""
        return self.decisions.last()

    def smallest(self) -> Architecture:
        """Return the architecture of the first option everywhere, as far as budgets allow."""
        return self.decisions.first()

    def sample(self, source: Source) -> Architecture:
        """Return a uniformly random architecture."""
        return self.decisions.sample(stream(source))

    def architectures(self) -> Iterator[Architecture]:
        """Return all architectures, the options of the last choice changing fastest."""
        return self.decisions.all()

    def check(self, values: Mapping[str, Any]) -> Architecture:
        """Return ``values`` as an architecture.

        Raises:
            BadInput: A choice is missing or unknown or takes an option it does not have, tied ones
                differ, or a budget is not kept.
        """
        names = [choice.name for choice in self.choices]
        if set(values) != set(names):
            wrong = sorted(set(values) ^ set(names))
            raise BadInput(f"choices missing or unknown: {', '.join(wrong[:5])}")
        found = {choice.name: choice.option(values[choice.name]) for choice in self.choices}
        self.decisions.check(found)
        return Architecture(found)

    def restricted(self, allowed: Mapping[str, Iterable[Any]]) -> SearchSpace:
        """Return the space with fewer options in some choices.

        Args:
            allowed: By choice, its options that stay; of a multi-hot choice, its members. Tied
                choices are restricted together when one of them is.

        Raises:
            BadInput: A choice or an option is unknown, or nothing is left of a choice or a budget.
        """
        kept = {name: list(options) for name, options in allowed.items()}
        for name in kept:
            _ = self[name]
        for tied in self.ties:
            named = [name for name in tied if name in kept]
            for name in tied:
                if named and name not in kept:
                    kept[name] = kept[named[0]]
        return replace(
            self,
            choices=tuple(c.restricted(kept[c.name]) if c.name in kept else c for c in self),
        )

    def tied(self, *names: str) -> SearchSpace:
        """Return the space in which the choices named take the same option.

        Raises:
            BadInput: They are fewer than two, unknown, already tied, or of different options.
        """
        return replace(self, ties=(*self.ties, names))

    def mutate(
        self, architecture: Mapping[str, Any], source: Source, rate: float | None = None
    ) -> Architecture:
        """Change decisions by one step each; see :func:`chipfit.space.moves.mutate`."""
        return mutate(self.decisions, self.check(architecture), stream(source), rate)

    def crossover(
        self,
        first: Mapping[str, Any],
        second: Mapping[str, Any],
        source: Source,
        kind: str = "uniform",
    ) -> Architecture:
        """Mix two architectures; see :func:`chipfit.space.moves.crossover`."""
        parents = self.check(first), self.check(second)
        return crossover(self.decisions, *parents, stream(source), kind)

    def neighbours(self, architecture: Mapping[str, Any]) -> list[Architecture]:
        """Return what is one step away; see :func:`chipfit.space.moves.neighbours`."""
        return neighbours(self.decisions, self.check(architecture))

    def encode(self, architecture: Mapping[str, Any]) -> Codes:
        """Return option indices, ``(choices,)``, in the order of the choices."""
        return encoding.encode(self.choices, self.check(architecture))

    def codes(self, architectures: Iterable[Mapping[str, Any]]) -> Codes:
        """Return option indices of several architectures, ``(N, choices)``."""
        rows = [self.encode(architecture) for architecture in architectures]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.choices))

    def decode(self, row: Sequence[int] | Codes) -> Architecture:
        """Return the architecture of option indices.

        Raises:
            BadInput: They do not fit the choices, or are no architecture of the space.
        """
        return self.check(encoding.decode(self.choices, row))

    def one_hot(self, architecture: Mapping[str, Any]) -> Values:
        """Return ones and zeros, one per option of every choice, or per member where multi-hot."""
        return encoding.one_hot(self.choices, self.check(architecture))

    def from_one_hot(self, vector: Sequence[float] | Values) -> Architecture:
        """Return the architecture of a vector from :meth:`one_hot`.

        Of real numbers, the largest per choice counts, or those of at least one half where
        multi-hot.

        Raises:
            BadInput: The vector has another length, or is no architecture of the space.
        """
        return self.check(encoding.from_one_hot(self.choices, vector))
