# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a search: everything that its next step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from chipfit.train.checkpoint import read_checkpoint, require_equal, write_checkpoint

if TYPE_CHECKING:
    from chipfit.supernet.search_rule import SearchRule
    from chipfit.supernet.search_state import SearchState

_OPTIMIZERS = ("weight_optimizer", "architecture_optimizer")


def write_search(
    path: Path, identity: Mapping[str, Any], state: SearchState, rule: SearchRule
) -> None:
    """Write the state of a search, atomically.

    Raises:
        StorageError: It cannot be written.
    """
    tensors = {f"net:{n}": v for n, v in state.supernet.state_dict().items()}
    tensors |= {f"pressure:{n}": v for n, v in state.pressure.state_dict().items()}
    tensors |= {f"rule:{n}": v for n, v in rule.tensors().items()}
    for optimizer in _OPTIMIZERS:
        tensors |= {f"{optimizer}:{n}": v for n, v in _slots(getattr(state, optimizer)).items()}
    facts = {
        "identity": dict(identity), "step": state.step, "losses": state.losses,
        "structure": state.supernet.structure(), "rule": rule.facts(),
    }  # fmt: skip
    write_checkpoint(path, tensors, facts)


def read_search(
    path: Path, identity: Mapping[str, Any], state: SearchState, rule: SearchRule
) -> None:
    """Continue from a checkpoint, if there is one.

    Raises:
        RunMismatch: It belongs to another search.
        StorageError: It is damaged.
    """
    found = read_checkpoint(path)
    if found is None:
        return
    tensors, facts = found
    identity = {k: _plain(v) for k, v in identity.items()}
    require_equal(path, facts.get("identity", {}), identity)

    def group(name: str) -> dict[str, Tensor]:
        return {k.partition(":")[2]: v for k, v in tensors.items() if k.startswith(f"{name}:")}

    state.step, state.losses = facts["step"], dict(facts["losses"])
    rule.restore(facts["rule"])
    state.supernet.restructure(facts["structure"])
    state.supernet.load_state_dict(group("net"))
    state.pressure.load_state_dict(group("pressure"))
    rule.restore_tensors(group("rule"))
    state.rebuild_optimizers()
    for optimizer in _OPTIMIZERS:
        _restore(getattr(state, optimizer), group(optimizer))


def _plain(value: Any) -> Any:
    """Return what JSON makes of tuples inside mappings."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for g in optimizer.param_groups for p in g["params"]]


def _slots(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{i}/{slot}": value
        for i, p in enumerate(_parameters(optimizer))
        for slot, value in optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def _restore(optimizer: torch.optim.Optimizer, slots: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in slots.items():
        i, _, slot = key.partition("/")
        p = parameters[int(i)]
        if value.shape == p.shape:
            value = torch.empty_like(p).copy_(value)
        optimizer.state[p][slot] = value
