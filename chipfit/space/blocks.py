# SPDX-License-Identifier: Apache-2.0
"""``BlockSpace``: which blocks may stand at which places of a network.

FBNet, ProxylessNAS, PAD-NAS, DARTS, PruNet and RepNAS all choose, place by place, among candidate
operations. Here such a space is a network and, by choice, operations as swaps of its modules; one
choice may decide several places at once (the same edge of every cell). The network itself, with
nothing swapped, is the original that results are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from chipfit.errors import BadInput
from chipfit.rewrite.swap import Swap
from chipfit.space.choice import Choice, SearchSpace

#: Name of the operation that leaves what stands there.
KEEP = "keep"
#: Attribute by which a network carries its space.
ATTRIBUTE = "block_space"


@dataclass(frozen=True)
class Operation:
    """A candidate operation of a choice.

    Args:
        name: Unique in its choice; stores and reports call it so.
        swaps: What replaces the module of each place, one swap per place; none keeps them.
    """

    name: str
    swaps: tuple[Swap, ...] = ()


@dataclass(frozen=True)
class BlockChoice:
    """One decision about one or several places of a network.

    Args:
        name: Unique in its space.
        places: Dotted names of the modules that it decides.
        operations: The candidates; ascending in cost where ``ordered``.
        ordered: Whether neighbouring operations are alike (widths of one block).

    Raises:
        BadInput: There is no operation or no place, names repeat, or a swap is of another place.
    """

    name: str
    places: tuple[str, ...]
    operations: tuple[Operation, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        names = [o.name for o in self.operations]
        if not names or not self.places or len(set(names)) < len(names):
            raise BadInput(f"choice {self.name} needs places, and operations of different names")
        for operation in self.operations:
            if operation.swaps and tuple(s.module for s in operation.swaps) != self.places:
                raise BadInput(f"{operation.name} of {self.name} does not swap all of its places")

    def __getitem__(self, name: str) -> Operation:
        for operation in self.operations:
            if operation.name == name:
                return operation
        raise BadInput(f"choice {self.name} has no operation {name!r}")


@dataclass(frozen=True)
class BlockSpace:
    """All choices of a network, in the order of execution.

    A network carries its space as the attribute ``block_space``; see :func:`space_of`.

    Args:
        choices: Of different names, and deciding different places.

    Raises:
        BadInput: There is no choice, or two decide the same place.
    """

    choices: tuple[BlockChoice, ...]

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        places = [place for choice in self.choices for place in choice.places]
        if not names:
            raise BadInput("the space has no choice")
        if len(set(names)) < len(names) or len(set(places)) < len(places):
            raise BadInput("two choices of the space have one name, or decide one place")

    def __iter__(self) -> Iterator[BlockChoice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, name: str) -> BlockChoice:
        for choice in self.choices:
            if choice.name == name:
                return choice
        raise BadInput(f"the space has no choice {name!r}")

    @property
    def search_space(self) -> SearchSpace:
        """The names alone: what samplers, evolution and cost functions work on."""
        return SearchSpace(
            tuple(Choice(c.name, tuple(o.name for o in c.operations), c.ordered) for c in self)
        )

    def edits(self, architecture: Mapping[str, Any]) -> tuple[Swap, ...]:
        """Return the swaps that make an architecture, given by operation names.

        Raises:
            BadInput: It is none of this space.
        """
        architecture = self.search_space.check(architecture)
        return tuple(s for c in self.choices for s in c[architecture[c.name]].swaps)

    def restricted(self, allowed: Mapping[str, Sequence[str]]) -> BlockSpace:
        """Return the space with fewer operations in some choices; their order stays.

        Raises:
            BadInput: A choice or operation is unknown, or nothing is left of a choice.
        """
        for name, operations in allowed.items():
            for operation in operations:
                _ = self[name][operation]
        return BlockSpace(
            tuple(
                replace(c, operations=tuple(o for o in c.operations if o.name in allowed[c.name]))
                if c.name in allowed
                else c
                for c in self.choices
            )
        )


def space_of(net: nn.Module) -> BlockSpace | None:
    """Return the space that a network carries, or ``None``.

    Raises:
        BadInput: Its attribute ``block_space`` is none.
    """
    found = getattr(net, ATTRIBUTE, None)
    if found is not None and not isinstance(found, BlockSpace):
        raise BadInput(
            f"the network's block_space is a {type(found).__name__}, not a BlockSpace",
            "make it of chipfit.space.BlockChoice and Operation",
        )
    return found
