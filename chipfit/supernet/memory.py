# SPDX-License-Identifier: Apache-2.0
"""``saved_activation_bytes``: what a training step keeps for its backward passes, at its peak.

Counted, not measured: the same on every machine, and free of what allocators round and cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def saved_activation_bytes(fn: Callable[[], Any], *modules: nn.Module) -> int:
    """Run ``fn`` and return the largest number of bytes held for backward at any time.

    Tensors that share a storage, such as a channel slice and the whole, count it once. Parameters
    and their views do not count, nor do the modules' buffers; the network's input does, where a
    layer keeps it. What an operation needs while it runs is not in it.

    Args:
        fn: One training step, forward and backward, or several.
        modules: Whose parameters and buffers do not count; parameters that are kept as a whole are
            left out anyway.
    """
    held = _Held(t for module in modules for t in [*module.parameters(), *module.buffers()])
    with saved_tensors_hooks(lambda tensor: _Handle(tensor, held), lambda handle: handle.tensor):
        fn()
    return held.peak


class _Held:
    """The storages that are held now, and the most bytes there were."""

    def __init__(self, excluded: Iterable[Tensor]) -> None:
        self.excluded = {_address(t) for t in excluded}
        self.users: dict[int, int] = {}
        self.now = self.peak = 0

    def take(self, tensor: Tensor) -> int | None:
        key = _address(tensor)
        if key in self.excluded or isinstance(tensor, nn.Parameter):
            return None
        self.users[key] = self.users.get(key, 0) + 1
        if self.users[key] == 1:
            self.now += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self.now)
        return key

    def release(self, key: int, tensor: Tensor) -> None:
        self.users[key] -= 1
        if self.users[key] == 0:
            self.now -= tensor.untyped_storage().nbytes()


class _Handle:
    """Keeps a saved tensor until autograd lets it go."""

    def __init__(self, tensor: Tensor, held: _Held) -> None:
        self.tensor, self.held = tensor, held
        self.key = held.take(tensor)

    def __del__(self) -> None:
        if self.key is not None:
            self.held.release(self.key, self.tensor)


def _address(tensor: Tensor) -> int:
    # Held tensors stay alive, so that no two storages have one address.
    return tensor.untyped_storage().data_ptr() if not tensor.is_meta else id(tensor)
