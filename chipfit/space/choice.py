# SPDX-License-Identifier: Apache-2.0
"""``Choice`` and ``SearchSpace``: named decisions and the options of each."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chipfit.errors import BadInput
from chipfit.space.architecture import Architecture


@dataclass(frozen=True)
class Choice:
    """A named decision.

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


@dataclass(frozen=True)
class SearchSpace:
    """Choices by name; an architecture takes one option of each."""

    choices: tuple[Choice, ...]

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
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(choice.options) for choice in self.choices)

    def largest(self) -> Architecture:
        """Return the architecture of the last option everywhere."""
        return Architecture({choice.name: choice.options[-1] for choice in self.choices})

    def smallest(self) -> Architecture:
        """Return the architecture of the first option everywhere."""
        return Architecture({choice.name: choice.options[0] for choice in self.choices})

    def sample(self, seed: int) -> Architecture:
        """Return a uniformly random architecture."""
        draw = random.Random(seed)
        return Architecture({c.name: draw.choice(c.options) for c in self.choices})

    def check(self, values: Mapping[str, Any]) -> Architecture:
        """Return ``values`` as an architecture.

        Raises:
            BadInput: A choice is missing or unknown, or takes an option it does not have.
        """
        names = [choice.name for choice in self.choices]
        if set(values) != set(names):
            wrong = sorted(set(values) ^ set(names))
            raise BadInput(f"choices missing or unknown: {', '.join(wrong[:5])}")
        for choice in self.choices:
            if values[choice.name] not in choice.options:
                raise BadInput(f"{choice.name} cannot be {values[choice.name]!r}")
        return Architecture(values)
