# SPDX-License-Identifier: Apache-2.0
"""A named collection that a decorator fills: nets, targets, methods and data sets."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from chipfit.errors import ChipfitError, UnknownName

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered thing: its name, a summary of one line, and where it comes from."""

    name: str
    value: T
    summary: str
    source: str = ""


@dataclass
class Registry(Generic[T]):
    """Entries by name; the modules of ``package`` are imported on first use.

    Args:
        what: The noun for error messages, for instance ``"target"``.
        package: The dotted package whose modules register entries.
    """

    what: str
    package: str
    _entries: dict[str, Entry[T]] = field(default_factory=dict)
    _loaded: bool = False

    def register(self, name: str, *, summary: str, source: str = "") -> Callable[[T], T]:
        """Return a decorator that adds its subject under ``name``.

        Raises:
            ChipfitError: The name is taken.
        """

        def add(value: T) -> T:
            if name in self._entries:
                raise ChipfitError(f"{self.what} {name!r} is registered twice")
            self._entries[name] = Entry(name, value, summary, source)
            return value

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")

    def get(self, name: str) -> Entry[T]:
        """Return the entry called ``name``.

        Raises:
            UnknownName: There is none; near matches are in the hint.
        """
        self._load()
        if name not in self._entries:
            raise UnknownName(self.what, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[T]]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries
