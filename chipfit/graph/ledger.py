# SPDX-License-Identifier: Apache-2.0
"""Which tensors of a running network are known, under which name, and what they came from.

Tensors are held weakly: once the network lets go of one, so does the ledger, and watching a
network takes no more memory than running it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch


@dataclass
class Entry:
    """What is known of one tensor object.

    Args:
        tensor: The object, weakly.
        name: Of the value it holds, where that depends on the network's input.
        expanded: The smaller tensor that it repeats without holding copies.
        sources: Names of the parameters that a constant was computed from.
        writer: Name of the value written over it through another view; ``""`` for none.
        whole: Whether that other view held the same elements in the same order.
    """

    tensor: weakref.ref[torch.Tensor]
    name: str = ""
    expanded: torch.Tensor | None = None
    sources: frozenset[str] = field(default_factory=frozenset)
    writer: str = ""
    whole: bool = False

    @property
    def active(self) -> bool:
        """Whether the tensor depends on the network's input."""
        return bool(self.name) or self.expanded is not None


Place = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


def _place(tensor: torch.Tensor) -> Place | None:
    """Return where and how a tensor lies in memory; ``None`` where it lies nowhere."""
    if tensor.layout is not torch.strided or tensor.device.type == "meta" or not tensor.numel():
        return None
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _storage(tensor: torch.Tensor) -> int:
    if tensor.layout is not torch.strided or tensor.device.type == "meta":
        return 0
    return int(tensor.untyped_storage().data_ptr())


class Ledger:
    """Tensors by identity, and by place for those that return as new objects (``autograd``)."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._places: dict[Place, int] = {}
        self._storages: dict[int, set[int]] = {}

    def find(self, tensor: torch.Tensor) -> Entry | None:
        """Return the entry of a tensor, also where another object stands for the same memory."""
        entry = self._entries.get(id(tensor))
        if entry is not None:
            return entry
        place = _place(tensor)
        twin = self._entries.get(self._places.get(place, -1)) if place else None
        if twin is not None and twin.name:
            return self.add(tensor, name=twin.name)
        return None

    def add(self, tensor: torch.Tensor, **facts: object) -> Entry:
        """Make, or replace, the entry of a tensor."""
        key = id(tensor)
        place, storage = _place(tensor), _storage(tensor)

        def forget(gone: weakref.ref[torch.Tensor]) -> None:
            entry = self._entries.get(key)
            if entry is not None and entry.tensor is gone:
                del self._entries[key]
                if place is not None and self._places.get(place) == key:
                    del self._places[place]
                self._storages.get(storage, set()).discard(key)

        entry = Entry(weakref.ref(tensor, forget), **facts)  # type: ignore[arg-type]
        self._entries[key] = entry
        if entry.active:
            if place is not None:
                self._places[place] = key
            if storage:
                self._storages.setdefault(storage, set()).add(key)
        return entry

    def overwritten(self, tensor: torch.Tensor, by: str) -> None:
        """Note that ``tensor`` was written in place, so that its other views are out of date."""
        for key in self._storages.get(_storage(tensor), set()) - {id(tensor)}:
            entry = self._entries[key]
            other = entry.tensor()
            if other is None or entry.name == by:
                continue
            entry.writer = by
            entry.whole = (
                other.data_ptr() == tensor.data_ptr() and other.numel() == tensor.numel()
                and other.is_contiguous() and tensor.is_contiguous()
            )  # fmt: skip

    def sources(self, tensors: Iterable[torch.Tensor]) -> frozenset[str]:
        """Return the names of the parameters that constants were computed from."""
        found = [self._entries.get(id(tensor)) for tensor in tensors]
        return frozenset().union(*[entry.sources for entry in found if entry is not None])
