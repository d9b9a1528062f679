# SPDX-License-Identifier: Apache-2.0
"""``Architecture``: one point of a search space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


class Architecture(Mapping[str, Any]):
    """An immutable mapping from the names of choices to the options taken.

    >>> Architecture({"stem": 16}).replace(stem=8)["stem"]
    8
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Architecture({self._values})"

    def replace(self, **changes: Any) -> Architecture:
        """Return a copy with some options changed."""
        return self.with_options(changes)

    def with_options(self, changes: Mapping[str, Any]) -> Architecture:
        """Return a copy with some options changed, for names that are no identifiers."""
        return Architecture({**self._values, **changes})

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return dict(self._values)

    @property
    def id(self) -> str:
        """A stable identity (hex) of the options taken."""
        text = json.dumps(self._values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
