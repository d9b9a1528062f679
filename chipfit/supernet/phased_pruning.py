# SPDX-License-Identifier: Apache-2.0
"""``PhasedPruning``: single-path training in phases, between which operations are pruned.

Our reading of PAD-NAS (Xia et al., WACV 2022): what goes is decided choice by choice, by how often
good architectures take each operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from chipfit.supernet.mixture import OneHot
from chipfit.supernet.search_rule import SearchRule
from chipfit.supernet.search_state import SearchState
from chipfit.supernet.supernet import Supernet


@dataclass(frozen=True)
class Pruning:
    """What a pruning decides.

    Args:
        kept: By choice, the option indices of operations that stay.
        shares: By choice, how often each operation was met, ``(operations,)``; they sum to 1.
    """

    kept: Sequence[Sequence[int]]
    shares: Sequence[NDArray[np.float64]]


class PhasedPruning(SearchRule):
    """Evenly drawn single paths; operations are pruned where a phase ends.

    Args:
        phases: Relative lengths of the phases; after the last there is no pruning.
        decide: From the state and the number of the phase, from 1, to the pruning.
    """

    told: ClassVar[tuple[str, ...]] = ("decide",)

    def __init__(
        self, phases: Sequence[float], decide: Callable[[SearchState, int], Pruning | None]
    ) -> None:
        super().__init__(OneHot())
        self.phases, self.decide = tuple(phases), decide

    def after(self, state: SearchState) -> None:
        """Prune where a phase but the last ends with this step."""
        lengths = np.cumsum(self.phases)
        ends = [round(state.settings.steps * end / lengths[-1]) for end in lengths[:-1]]
        if state.step + 1 in ends:
            pruning = self.decide(state, ends.index(state.step + 1) + 1)
            if pruning is not None:
                prune(state.supernet, pruning.kept, pruning.shares)
                state.rebuild_optimizers()


def operation_shares(
    rows: Sequence[Sequence[int]], sizes: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Return by choice the share of architectures that take each operation.

    Args:
        rows: Option indices, ``(N, choices)``; at least one.
        sizes: Operations of every choice.
    """
    codes = np.array(rows, np.int64)
    return [np.bincount(codes[:, c], minlength=size) / len(codes) for c, size in enumerate(sizes)]


def surviving(
    shares: Sequence[NDArray[np.float64]], threshold: float, best: Sequence[int]
) -> list[list[int]]:
    """Return by choice the operations whose share is above the threshold, and the best one's."""
    return [
        [i for i, value in enumerate(share) if value > threshold or i == own]
        for share, own in zip(shares, best, strict=True)
    ]


def prune(
    supernet: Supernet, kept: Sequence[Sequence[int]], shares: Sequence[NDArray[np.float64]]
) -> None:
    """Delete all other operations, and let probabilities be the shares among those that stay.

    Args:
        supernet: Changed in place; optimisers of it have to be made anew.
        kept: By choice, option indices of the whole space.
        shares: By choice, positive for those that are kept.
    """
    for choice, own, share in zip(supernet.space, kept, shares, strict=True):
        supernet.prune(choice.name, [choice.operations[i].name for i in own])
        logits = supernet.logits(choice.name)
        with torch.no_grad():
            logits.copy_(torch.as_tensor(np.log(share[list(own)]), dtype=logits.dtype))
