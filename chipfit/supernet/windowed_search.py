# SPDX-License-Identifier: Apache-2.0
"""Changes of a windowed supernet in the middle of a search: the optimisers follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from chipfit.supernet.bi_path import first
from chipfit.supernet.hidden_grid import HiddenGrid
from chipfit.supernet.search_state import SearchState
from chipfit.supernet.windowed_supernet import Succession, WindowedSupernet


def move_window(state: SearchState, name: str, grid: HiddenGrid, up: bool) -> None:
    """Move a window (:meth:`WindowedSupernet.move`) of the supernet under search.

    The two logits lose their momentum and keep the scale of their steps. The loser's batch norm
    takes over the winner's momentum; channels outside of the window lose theirs, so that all that
    moves them until a window comes back is weight decay.
    """
    supernet = _supernet(state)
    succession, copies = supernet.move(name, grid, up)
    weights = state.weight_optimizer
    for winner, loser in copies:
        if winner in weights.state:
            weights.state[loser] = {
                slot: v.clone() if isinstance(v, torch.Tensor) else v
                for slot, v in weights.state[winner].items()
            }
    for path in supernet.paths(name, grid):
        for parameter, shape in path.active_shapes():
            for slot, value in weights.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    rested = torch.zeros_like(value)
                    first(rested, shape).copy_(first(value, shape))
                    weights.state[parameter][slot] = rested
    _hand_over(state, succession)


def drop_grids(state: SearchState, name: str, grids: Sequence[HiddenGrid]) -> None:
    """Delete operations of a choice (:meth:`WindowedSupernet.drop`) with their momenta."""
    _hand_over(state, _supernet(state).drop(name, grids))


def _supernet(state: SearchState) -> WindowedSupernet:
    assert isinstance(state.supernet, WindowedSupernet)  # the method made it
    return state.supernet


def _hand_over(state: SearchState, succession: Succession) -> None:
    """Give new logits the optimiser's state of those that they follow; rebuild the optimisers."""
    old, new = succession.old, succession.new
    adam = state.architecture_optimizer
    if old in adam.state:
        found = {}
        for slot, value in adam.state[old].items():
            if isinstance(value, torch.Tensor) and value.shape == old.shape:
                value = value[succession.source].clone()
                if slot == "exp_avg":
                    value[succession.fresh] = 0.0
            found[slot] = value
        adam.state[new] = found
    state.rebuild_optimizers()
