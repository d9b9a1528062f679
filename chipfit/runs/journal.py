# SPDX-License-Identifier: Apache-2.0
"""The journal: one JSON object a line, appended and flushed to disk; never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chipfit.errors import StorageError
from chipfit.files import storage_error
from chipfit.interrupts import raise_if_asked


class Journal:
    """Append-only events; an event with a ``key`` can be recalled by it after a restart.

    A last line that a kill left half written is cut off when the journal is opened.

    Raises:
        StorageError: A line before the last is damaged, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._by_key: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole, _, rest = data.rpartition(b"\n")
        if rest:
            with self.path.open("r+b") as file:
                file.truncate(len(data) - len(rest))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError("it is no JSON object")
            except (ValueError, RecursionError) as error:
                raise StorageError(
                    f"{self.path}, line {number}, is damaged",
                    "the file was edited or the disk failed; start a new run directory",
                ) from error
            self._remember(event)

    def _remember(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if "key" in event:
            self._by_key[event["key"]] = event

    def append(self, event: str, **data: Any) -> dict[str, Any]:
        """Add an event and flush it to disk before returning it.

        Raises:
            StorageError: It cannot be written.
            KeyboardInterrupt: One came before and was swallowed; the event is written.
        """
        entry = {"event": event, **data}
        line = json.dumps(entry, separators=(",", ":")) + "\n"
        start = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            # A full disk may have taken half a line; later lines must not be glued to it.
            if self.path.exists():
                os.truncate(self.path, start)
            raise storage_error(self.path, error) from error
        self._remember(entry)
        raise_if_asked()
        return entry

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return the latest event with ``key``, or ``None``."""
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.events)
