# SPDX-License-Identifier: Apache-2.0
"""``CostTable``: the prices of a target's units in SQLite, safe with several writers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput, StaleCostTable, StorageError

if TYPE_CHECKING:
    from chipfit.targets.base import Target, Unit
    from chipfit.workers import WorkerPool

#: Raised whenever the meaning of a row changes; a table of another version is refused.
SCHEMA_VERSION = 1
_APPLICATION_ID = 0x63686970  # "chip": tells a cost table from any other SQLite file
_BUSY_SECONDS = 60.0
#: Name of the fact that :func:`chipfit.cost.calibrate.calibrate` stores.
CALIBRATION = "calibration"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS costs (
    fingerprint TEXT NOT NULL, unit TEXT NOT NULL, cost TEXT NOT NULL,
    description TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (fingerprint, unit)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (
    fingerprint TEXT NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (fingerprint, name)
) WITHOUT ROWID;
"""
#: One stored row: fingerprint, unit key, cost, description, time of creation (Unix seconds).
Row = tuple[str, str, Cost, str, float]


class CostTable:
    """Costs by target fingerprint and unit key.

    Every write is one transaction. Reads go through a cache in memory, so that asking again for
    all units of a network takes microseconds.

    >>> with CostTable() as table:
    ...     table.put_many("device 1.0", [("unit-a", Cost({"cycles": 7}, "compiled"), "a conv")])
    ...     table.get_many("device 1.0", ["unit-a", "unit-b"])["unit-a"]["cycles"]
    7

    Args:
        path: The file, created with its folder where absent; ``None`` keeps the table in memory.

    Raises:
        StaleCostTable: The file is no cost table, or one of another schema version.
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._cached: dict[str, dict[str, Cost]] = {}
        self._facts: dict[str, dict[str, float]] = {}
        self._lock = threading.RLock()
        self._connection = self._connect()

    def __enter__(self) -> CostTable:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the table cannot be used afterwards."""
        self._connection.close()

    def get_many(self, fingerprint: str, keys: Iterable[str]) -> dict[str, Cost]:
        """Return the known ones of ``keys`` with their costs."""
        known = self._cached.setdefault(fingerprint, {})
        wanted = list(keys)
        missing = {key for key in wanted if key not in known}
        if missing:
            self._load(fingerprint, sorted(missing))
        return {key: known[key] for key in wanted if key in known}

    def _load(self, fingerprint: str, keys: Sequence[str]) -> None:
        known = self._cached[fingerprint]
        with self._guard("read"):
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                query = f"SELECT unit, cost FROM costs WHERE fingerprint = ? AND unit IN ({marks})"
                for key, text in self._connection.execute(query, (fingerprint, *some)):
                    known[key] = self._cost(key, text)

    def put_many(self, fingerprint: str, rows: Iterable[tuple[str, Cost, str]]) -> None:
        """Store ``(unit key, cost, description)`` rows in one transaction.

        A row that is already there stays: the first writer wins, so that two processes that
        measure the same unit agree afterwards.

        Raises:
            StorageError: The file cannot be written, for instance because the disk is full.
        """
        now = time.time()
        self.restore((fingerprint, key, cost, text, now) for key, cost, text in rows)

    def restore(self, rows: Iterable[Row]) -> None:
        """Store complete rows, as :meth:`rows` gives them, in one transaction."""
        values = [
            (print_, key, json.dumps(cost.to_json(), sort_keys=True), text, created)
            for print_, key, cost, text, created in rows
        ]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO costs VALUES (?, ?, ?, ?, ?)", values)
        for print_ in {value[0] for value in values}:
            self._cached.setdefault(print_, {})
            self._load(print_, [value[1] for value in values if value[0] == print_])

    def rows(self, fingerprint: str | None = None) -> Iterator[Row]:
        """Yield all rows, of one fingerprint where given, in the order of their keys."""
        query = "SELECT fingerprint, unit, cost, description, created FROM costs"
        query += " ORDER BY fingerprint, unit"
        with self._guard("read"):
            found = self._connection.execute(query).fetchall()
        for print_, key, text, description, created in found:
            if fingerprint in (None, print_):
                yield print_, key, self._cost(key, text), description, created

    def _cost(self, key: str, text: str) -> Cost:
        try:
            cost = Cost.from_json(json.loads(text))
            if all(math.isfinite(float(v)) for v in (*cost.values.values(), *cost.spread.values())):
                return cost
            raise ValueError("a figure is not finite")
        except (BadInput, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StaleCostTable(
                f"the row {key} of {self.path or 'the cost table in memory'} is damaged: {error}",
                "delete the file or name another; it is filled again on demand",
            ) from error

    def facts(self, fingerprint: str) -> dict[str, float]:
        """Return figures that hold for all rows of a fingerprint (see ``Target.anchors``)."""
        with self._guard("read"):
            query = "SELECT name, value FROM facts WHERE fingerprint = ?"
            if fingerprint not in self._facts:
                found = dict(self._connection.execute(query, (fingerprint,)))
                if not all(isinstance(value, int | float) for value in found.values()):
                    raise sqlite3.DatabaseError("a fact is no number")
                self._facts[fingerprint] = found
        return dict(self._facts[fingerprint])

    def set_facts(
        self, fingerprint: str, facts: Mapping[str, float], replace: bool = False
    ) -> dict[str, float]:
        """Store figures and return all of them; without ``replace`` the first writer wins."""
        verb = "INSERT OR REPLACE" if replace else "INSERT OR IGNORE"
        values = [(fingerprint, name, float(value)) for name, value in facts.items()]
        with self._transaction() as connection:
            connection.executemany(f"{verb} INTO facts VALUES (?, ?, ?)", values)
        self._facts.pop(fingerprint, None)
        return self.facts(fingerprint)

    def anchor(self, target: Target) -> None:
        """Give ``target`` the figures that its rows in this table share, measuring absent ones."""
        stored = self.facts(target.fingerprint)
        wanted = target.anchors(stored)
        if any(name not in stored for name in wanted):
            target.anchors(self.set_facts(target.fingerprint, wanted))

    def fill(
        self,
        target: Target,
        units: Sequence[Unit],
        pool: WorkerPool | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Cost]:
        """Return the cost of every unit, in order, after costing the absent ones.

        Finished chunks are committed at once: a killed fill continues where it stopped. The
        results do not depend on the pool.

        Args:
            target: Prices the absent units.
            units: May repeat keys.
            pool: Worker processes, used where ``target.parallel``; this process where ``None``.
            on_progress: Called with the numbers of absent units done and in all.

        Raises:
            UnsupportedOp: The target refuses a unit.
            StorageError: The table cannot be written.
        """
        from chipfit.cost.fill import fill

        return fill(self, target, units, pool, on_progress)

    def _connect(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot create the folder of {self.path}: {error}") from error
        with self._guard("open"):
            connection = sqlite3.connect(
                ":memory:" if self.path is None else self.path,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._owner = os.getpid()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and (application, version) != (_APPLICATION_ID, SCHEMA_VERSION):
            found = f"version {version}" if application == _APPLICATION_ID else "another format"
            connection.execute("ROLLBACK")
            raise StaleCostTable(
                f"{self.path} holds {found}, this chipfit writes version {SCHEMA_VERSION}",
                "delete it or name another file; it is filled again on demand",
            )
        if empty:
            for statement in _SCHEMA.split(";")[:-1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        # Readers and a writer need not wait for each other. Where the mode cannot be had (some
        # network drives, or another process holds the file), the rollback journal is as safe.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    @contextlib.contextmanager
    def _guard(self, verb: str) -> Iterator[None]:
        """Serialise threads, reconnect after a fork, and translate SQLite's errors."""
        place = self.path or "the cost table in memory"
        with self._lock:
            try:
                if verb != "open" and self._owner != os.getpid() and self.path is not None:
                    self._connection = self._connect()
                yield
            except (sqlite3.OperationalError, sqlite3.ProgrammingError, OSError) as error:
                raise StorageError(f"cannot {verb} {place}: {error}", _fix(error)) from error
            except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError) as error:
                hint = "delete it or name another file; it is filled again on demand"
                raise StaleCostTable(f"{place} is not a cost table: {error}", hint) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard("write"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise


def _fix(error: Exception) -> str:
    text = str(error)
    if "full" in text:
        return "free some space and run again; all earlier rows are kept"
    if "locked" in text:
        return "another process held the table for a minute; run again"
    return "check that the folder exists and may be written"
