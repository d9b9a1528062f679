# SPDX-License-Identifier: Apache-2.0
"""``WindowedSupernet``: a supernet in which hidden widths are searched by windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.space.blocks import BlockChoice, BlockSpace
from chipfit.supernet.bi_path import BiPath
from chipfit.supernet.hidden_grid import HiddenGrid, block_shapes, hidden_grids
from chipfit.supernet.mixed_operation import MixedOperation
from chipfit.supernet.supernet import LOGITS_STD, Supernet, drawn
from chipfit.supernet.window import Window
from chipfit.supernet.windowed_operation import WindowedOperation
from chipfit.train.randomness import stream_seed


@dataclass(frozen=True)
class Succession:
    """Logits of a choice that gave way to others.

    Args:
        old: The parameter that goes.
        new: The one that comes.
        source: Of every entry of the new one, which old one it follows.
        fresh: Entries of the new one that start anew.
    """

    old: nn.Parameter
    new: nn.Parameter
    source: list[int]
    fresh: list[int]


class WindowedSupernet(Supernet):
    """A supernet with a :class:`BiPath` for every grid of hidden widths.

    Operations are grouped by :func:`~chipfit.supernet.hidden_grid.hidden_grids`. Of a grid the two
    sides of its window have logits; the widths outside have probability 0, so expected costs need
    nothing new. Any width of a grid that is left can be derived.

    Args:
        net: The network; it is not changed.
        space: Its choices.
        seed: Of the weights of new operations, and of the logits.
        logits_std: Deviation of the first logits.

    Raises:
        BadInput: The network has no such place, or an operation cannot be built.
    """

    def __init__(
        self, net: nn.Module, space: BlockSpace, *, seed: int = 0, logits_std: float = LOGITS_STD
    ) -> None:
        #: By choice, its grids and single operations; :meth:`drop` deletes some.
        self.grids: dict[str, tuple[HiddenGrid, ...]] = {
            c.name: hidden_grids(net, c) for c in space
        }
        super().__init__(net, space, seed=seed, logits_std=logits_std)
        for choice in space:
            self._realign(choice.name)
            with torch.no_grad():
                values = self.logits(choice.name)[list(self.alive[choice.name])]
            self._logits[self._index(choice.name)] = nn.Parameter(values.clone())

    def _mixed(self, choice: BlockChoice, p: int, old: nn.Module, seed: int) -> MixedOperation:
        whole = super()._mixed(_narrowed(choice, self.grids[choice.name]), p, old, seed)
        candidates: list[nn.Module] = []
        for grid, plain in zip(self.grids[choice.name], whole.candidates, strict=True):
            candidates.append(_bi_path(choice, grid, p, old, seed) if grid.windowed else plain)
        return WindowedOperation(candidates)

    def window(self, name: str, grid: HiddenGrid) -> Window:
        """Return the window of a grid that is left; of a single operation a settled one."""
        found = self.paths(name, grid)
        return found[0].window if found else Window(0, 0, 0, 1)

    def masses(self, name: str) -> list[float]:
        """Return the probability of every grid that is left, both sides together."""
        p = self.probabilities()[self._index(name)].detach()
        return [float(p[list(grid.operations)].sum()) for grid in self.grids[name]]

    def share(self, name: str, grid: HiddenGrid) -> float:
        """Return the wider side's share of an open window's probability."""
        first = self._first(name, grid)
        lo, hi = self.logits(name).detach()[first : first + 2].double()
        return float(torch.sigmoid(hi - lo))

    def most_probable(self) -> dict[str, str]:
        """Return the wider or narrower side, whichever is likelier, of the likeliest grids."""
        found = {}
        for choice, p in zip(self.space, self.probabilities(), strict=True):
            masses = self.masses(choice.name)
            grid = self.grids[choice.name][masses.index(max(masses))]
            best = grid.operations[int(p[list(grid.operations)].argmax())]
            found[choice.name] = choice.operations[best].name
        return found

    @torch.no_grad()
    def move(
        self, name: str, grid: HiddenGrid, up: bool
    ) -> tuple[Succession, list[tuple[nn.Parameter, nn.Parameter]]]:
        """Move the window of a grid after the wider (``up``) or the narrower side has won.

        Both new sides start from equal logits; their probability together, and that of all other
        operations, stay.

        Returns:
            The old and new logits, and pairs ``(winner's, loser's)`` of parameters of batch norms
            of which the second became a copy of the first: optimisers are to follow.
        """
        old, first = self.logits(name), self._first(name, grid)
        window = self.window(name, grid).moved(up)
        copies = [c for path in self.paths(name, grid) for c in path.move(window, up)]
        self._realign(name)
        mass, sides = old[first : first + 2].logsumexp(0), len(window.sides)
        kept = [*range(first + sides), *range(first + 2, len(old))]
        new = old[kept].clone()
        new[first : first + sides] = mass - math.log(sides)
        fresh = list(range(first, first + sides))
        return Succession(old, self._replace(name, new), kept, fresh), copies

    @torch.no_grad()
    def drop(self, name: str, grids: Sequence[HiddenGrid]) -> Succession:
        """Delete grids or single operations of a choice, with weights and logits.

        Returns:
            The old and new logits: optimisers are to follow.

        Raises:
            BadInput: Nothing would be left.
        """
        left = [i for i, grid in enumerate(self.grids[name]) if grid not in grids]
        if not left:
            raise BadInput(f"choice {name} needs an operation to keep")
        kept = [
            self._first(name, self.grids[name][i]) + side
            for i in left
            for side in range(len(self.window(name, self.grids[name][i]).sides))
        ]
        old = self.logits(name)
        for place in self.space[name].places:
            self.operation(place).keep(left)
        self.grids[name] = tuple(self.grids[name][i] for i in left)
        self._realign(name)
        return Succession(old, self._replace(name, old[kept].clone()), kept, [])

    def prune(self, name: str, keep: Sequence[str]) -> None:
        """Delete operations of a choice; a grid stays whole while one of its widths is named.

        Raises:
            BadInput: Nothing would be left, or an operation is not there.
        """
        named = [self._grid_of(name, operation) for operation in keep]
        self.drop(name, [grid for grid in self.grids[name] if grid not in named])

    def structure(self) -> dict[str, Any]:
        """Return, as JSON, the grids that are left with their windows."""
        return {
            name: [[grid.operations[0], *_plain(self.window(name, grid))] for grid in own]
            for name, own in self.grids.items()
        }  # fmt: skip

    def restructure(self, structure: Mapping[str, Sequence[Any]]) -> None:
        """Prune a fresh supernet, and set its windows, as another one's are."""
        for name, rows in structure.items():
            windows = {int(row[0]): [int(v) for v in row[1:]] for row in rows}
            gone = [g for g in self.grids[name] if g.operations[0] not in windows]
            if gone:
                self.drop(name, gone)
            for grid in self.grids[name]:
                for path in self.paths(name, grid):
                    lo, hi, step = windows[grid.operations[0]]
                    path.adopt(Window(lo, hi, step, len(grid.operations)))
            self._realign(name)
            self._replace(name, torch.zeros(len(self.alive[name])))

    def _inherited(self, place: str, name: str, operation: str) -> Mapping[str, Tensor]:
        grid = self._grid_of(name, operation)
        found = self.operation(place).candidates[self.grids[name].index(grid)]
        if not isinstance(found, BiPath):
            return found.state_dict()
        names = [self.space[name].operations[i].name for i in grid.operations]
        return found.state_at(names.index(operation))

    def _grid_of(self, name: str, operation: str) -> HiddenGrid:
        names = [o.name for o in self.space[name].operations]
        for grid in self.grids[name]:
            if operation in [names[i] for i in grid.operations]:
                return grid
        left = [names[i] for grid in self.grids[name] for i in grid.operations]
        raise BadInput(f"choice {name} has no operation {operation!r}", f"left: {left}")

    def _index(self, name: str) -> int:
        return [c.name for c in self.space].index(name)

    def _first(self, name: str, grid: HiddenGrid) -> int:
        """Return the position of a grid's first side among the logits of its choice."""
        before = self.grids[name][: self.grids[name].index(grid)]
        return sum(len(self.window(name, one).sides) for one in before)

    def paths(self, name: str, grid: HiddenGrid) -> list[BiPath]:
        """Return the blocks of a grid at all places of its choice; of a single operation none."""
        index = self.grids[name].index(grid)
        found = [self.operation(p).candidates[index] for p in self.space[name].places]
        return [path for path in found if isinstance(path, BiPath)]

    def _realign(self, name: str) -> None:
        """Let ``alive`` name the operations that have a logit, in the order of the candidates."""
        self.alive[name] = tuple(
            grid.operations[side]
            for grid in self.grids[name]
            for side in self.window(name, grid).sides
        )
        for place in self.space[name].places:
            self.operation(place).mixture = None

    def _replace(self, name: str, values: Tensor) -> nn.Parameter:
        new = nn.Parameter(values.to(self.logits(name)))
        self._logits[self._index(name)] = new
        return new


def _plain(window: Window) -> tuple[int, int, int]:
    return window.lo, window.hi, window.step


def _narrowed(choice: BlockChoice, grids: Sequence[HiddenGrid]) -> BlockChoice:
    """Return the choice with the narrowest operation of every grid alone."""
    operations = tuple(choice.operations[grid.operations[0]] for grid in grids)
    return BlockChoice(choice.name, choice.places, operations)


def _bi_path(choice: BlockChoice, grid: HiddenGrid, p: int, old: nn.Module, seed: int) -> BiPath:
    widths, swap = [w[p] for w in grid.widths], grid.swaps[p]
    widest = choice.operations[grid.operations[-1]].name
    block = drawn(swap, stream_seed(seed, swap.module, widest), old)
    path = BiPath(block, widths, [block_shapes(swap, width) for width in widths])
    for position, i in enumerate(grid.operations):
        if not choice.operations[i].swaps:
            path.start_from(old, position)
    return path
