# SPDX-License-Identifier: Apache-2.0
"""``TieredPruning``: PruNet's search, which makes its supernet smaller while it runs.

Kierat et al., "Tiered Pruning for Efficient Differentiable Inference-Aware Neural Architecture
Search", arXiv 2209.11785: widths, blocks and layers are the tiers. Thresholds, and that the best
architecture within the budget is never pruned, are our variant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from chipfit.errors import BadInput
from chipfit.space.blocks import BlockChoice
from chipfit.supernet.hidden_grid import HiddenGrid
from chipfit.supernet.mixture import GumbelSoftmax
from chipfit.supernet.monitor import SKIPS
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.supernet.windowed_search import drop_grids, move_window
from chipfit.supernet.windowed_supernet import WindowedSupernet

#: Score that a width outside of a window has less than the nearer side, by step of the grid.
STEP = 1.0
#: Probability of a layer under which it may go, the checks that it has to be there, and the weight
#: of the latest check in the average.
LAYER, CHECKS, WEIGHT = 0.3, 3, 0.5
#: Probabilities are at least this, so that they have a logarithm.
_TINY = 1e-300

Values = NDArray[np.float64]
#: From scores by choice to the best architecture within the budget, if there is any.
Witness = Callable[[Sequence[Values]], Sequence[int] | None]


@dataclass(frozen=True)
class Tiers:
    """When the tiers act.

    Args:
        checks: Times between the warm-up and the end.
        move_start: Share of a window's probability at which a side wins, at first.
        move_end: The same at the end; between 0.5 and 1.
        prune: Share of the mean probability of a choice's blocks under which one goes, at the end.

    Raises:
        BadInput: A value is out of range.
    """

    checks: int = 40
    move_start: float = 0.6
    move_end: float = 0.7
    prune: float = 0.5

    def __post_init__(self) -> None:
        if not 0.5 < self.move_start <= self.move_end < 1.0:
            raise BadInput(
                f"move_start={self.move_start} and move_end={self.move_end} are to rise in (0.5, 1)"
            )
        if not 0.0 <= self.prune < 1.0 or self.checks < 1:
            raise BadInput(f"prune={self.prune} is to lie in [0, 1), checks={self.checks} above 0")


def scores_of(supernet: WindowedSupernet) -> list[Values]:
    """Return by choice a score of every operation; ``-inf`` for those that are gone.

    It is the logarithm of the probability of the block, both sides together, less that of the
    side's share relative to the likelier side. A width that has no side yet, or no longer, has the
    score of the nearer one less :data:`STEP` for every step of the grid between them.
    """
    found = []
    with torch.no_grad():
        probabilities = supernet.probabilities()
    for choice, p in zip(supernet.space, probabilities, strict=True):
        scores = np.full(len(choice.operations), -np.inf)
        for grid, mass in zip(
            supernet.grids[choice.name], supernet.masses(choice.name), strict=True
        ):
            sides = supernet.window(choice.name, grid).sides
            own = {side: float(p[grid.operations[side]]) for side in sides}
            for position, operation in enumerate(grid.operations):
                near = min(sides, key=lambda side: abs(side - position))
                relative = math.log(max(own[near], _TINY) / max(*own.values(), _TINY))
                away = STEP * abs(near - position)
                scores[operation] = math.log(max(mass, _TINY)) + relative - away
        found.append(scores)
    return found


class TieredPruning(SearchRule):
    """Gumbel-softmax steps, with moves of windows and prunings between them.

    Args:
        tiers: When they act.
        witness: Finds the best architecture within the budget, which is then not pruned.
        say: Told a line about every change.
    """

    told: ClassVar[tuple[str, ...]] = ("witness", "say")

    def __init__(
        self, tiers: Tiers, witness: Witness, say: Callable[[str], None] = lambda line: None
    ) -> None:
        super().__init__(GumbelSoftmax())
        self.tiers, self.witness, self.say = tiers, witness, say
        #: By choice, the running average of a layer's probability, and checks it has been low.
        self.average: dict[str, float] = {}
        self.low: dict[str, int] = {}

    def after(self, state: SearchState) -> None:
        """Move windows, prune blocks and drop layers where it is time for a check."""
        warm = state.settings.warmup * state.settings.steps
        every = max(1, int((state.settings.steps - warm) / self.tiers.checks))
        past = state.step + 1 - math.ceil(warm)
        if past <= 0 or past % every:
            return
        done = min(1.0, past / (state.settings.steps - warm))
        self._move(state, done)
        self._prune(state, done)

    def _move(self, state: SearchState, done: float) -> None:
        start, end = self.tiers.move_start, self.tiers.move_end
        threshold = start + (end - start) * done
        supernet = _windowed(state)
        for name, grids in supernet.grids.items():
            for grid in grids:
                if supernet.window(name, grid).settled:
                    continue
                wider = supernet.share(name, grid)
                if max(wider, 1 - wider) >= threshold:
                    move_window(state, name, grid, wider > 0.5)
                    sides = supernet.window(name, grid).sides
                    operations = supernet.space[name].operations
                    names = " to ".join(operations[grid.operations[s]].name for s in sides)
                    self.say(f"step {state.step + 1}: {name} searches {names}")

    def _prune(self, state: SearchState, done: float) -> None:
        """Drop one block or the layer of every choice where it is due."""
        supernet = _windowed(state)
        due: dict[str, list[HiddenGrid]] = {}
        stages: dict[int, str] = {}
        stage = 0
        for choice in supernet.space:
            name, grids = choice.name, supernet.grids[choice.name]
            skips = [g for g in grids if _is_skip(choice, g)]
            stage += not any(o.name in SKIPS for o in choice.operations)
            if len(grids) == 1:
                continue
            masses = supernet.masses(name)
            least = min(range(len(grids)), key=lambda i: masses[i])
            if masses[least] < self.tiers.prune * done / len(grids):
                due[name] = [grids[least]]
            if skips:
                here = 1.0 - sum(masses[grids.index(g)] for g in skips)
                before = self.average.get(name, here)
                self.average[name] = before + WEIGHT * (here - before)
                low = self.average[name] < LAYER
                self.low[name] = self.low.get(name, 0) + 1 if low else 0
                if self.low[name] >= CHECKS:
                    stages[stage] = name
        for name in stages.values():
            due[name] = [g for g in supernet.grids[name] if not _is_skip(supernet.space[name], g)]
        row = self.witness(scores_of(supernet)) if due else None
        for choice, kept in zip(supernet.space, row or (), strict=False):
            gone = due.get(choice.name, [])
            if gone and not any(kept in grid.operations for grid in gone):
                drop_grids(state, choice.name, gone)
                names = [choice.operations[g.operations[0]].name for g in gone]
                self.say(f"step {state.step + 1}: {choice.name} loses {', '.join(names)}")

    def facts(self) -> dict[str, Any]:
        """Return the averages of the layers' probabilities, and for how long they have been low."""
        return {"average": self.average, "low": self.low}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`facts` returned."""
        self.average, self.low = dict(facts["average"]), dict(facts["low"])


def _windowed(state: SearchState) -> WindowedSupernet:
    assert isinstance(state.supernet, WindowedSupernet)  # the method made it
    return state.supernet


def _is_skip(choice: BlockChoice, grid: HiddenGrid) -> bool:
    return choice.operations[grid.operations[0]].name in SKIPS
