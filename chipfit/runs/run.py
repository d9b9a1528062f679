# SPDX-License-Identifier: Apache-2.0
"""``Run``: a directory that remembers everything; the same command continues it."""

from __future__ import annotations

import fcntl
import json
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from chipfit.errors import BadInput, RunMismatch, StorageError
from chipfit.files import write_json
from chipfit.rewrite.replay import rewrite_from_json
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.environment import environment
from chipfit.runs.journal import Journal
from chipfit.workers import WorkerPool

_DAMAGED = "the file was edited or the disk failed; start a new run directory"


class Run:
    """An open run directory.

    Use :meth:`open` to start or continue one, :meth:`read` to look at one.

    Args:
        folder: The directory.
        config: The settings that decide its results.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], lock: IO[bytes] | None) -> None:
        self.folder = folder
        self.config = dict(config)
        self.journal = Journal(folder / "journal.jsonl")
        self._lock = lock

    @classmethod
    def open(
        cls, folder: str | Path, config: Mapping[str, Any], target: Mapping[str, Any] | None = None
    ) -> Run:
        """Start a run in ``folder``, or continue the one that is there.

        Args:
            folder: The run directory; made where absent.
            config: The settings that decide the results; a JSON-able mapping.
            target: Defaults of the target, written to ``environment.json``.

        Raises:
            RunMismatch: The folder holds a run of other settings; the message names them.
            StorageError: It cannot be written, or another process is working in it.
        """
        folder = Path(folder)
        config = json.loads(json.dumps(config))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("wb")
        except OSError as error:
            raise StorageError(f"cannot use {folder} as a run directory: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StorageError(
                f"another process is working in {folder}", "wait for it, or choose another --run"
            ) from error
        path = folder / "config.json"
        if path.exists():
            _check_same(folder, _read_json(path), config)
        else:
            write_json(path, config)
        run = cls(folder, config, lock)
        write_json(folder / "environment.json", environment(target))
        run.journal.append("started" if not run.journal.events else "continued", time=time.time())
        return run

    @classmethod
    def read(cls, folder: str | Path) -> Run:
        """Open an existing run to read it.

        Raises:
            BadInput: ``folder`` is not a run directory.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise BadInput(
                f"{folder} is not a run directory", "give the folder that chipfit fit --run made"
            )
        return cls(folder, _read_json(folder / "config.json"), None)

    def close(self) -> None:
        """Let other processes work in the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def recall(self, key: str) -> dict[str, Any] | None:
        """Return what was recorded under ``key``, or ``None``."""
        return self.journal.recall(key)

    def record(self, event: str, key: str, **data: Any) -> dict[str, Any]:
        """Remember ``data`` under ``key``, durably."""
        return self.journal.append(event, key=key, **data)

    @contextmanager
    def stage(self, name: str, pool: WorkerPool | None = None) -> Iterator[None]:
        """Record how long a stage takes, and the peak memory of this process and of ``pool``.

        Peaks are those since each process started, so they never fall from stage to stage.
        """
        start = time.monotonic()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if pool is not None:
            peak += pool.peak_rss_bytes()
        self.journal.append(
            "stage", name=name, seconds=round(time.monotonic() - start, 3),
            peak_rss_bytes=peak,
        )  # fmt: skip

    def candidate_folder(self, name: str) -> Path:
        """Return the folder of the candidate ``name``."""
        return self.folder / "candidates" / name

    def checkpoint_folder(self, name: str) -> Path:
        """Return the folder in which the stage ``name`` may keep checkpoints."""
        return self.folder / "checkpoints" / name

    def save(self, candidate: Candidate) -> None:
        """Write a candidate's JSON files, durably; its weights are already there."""
        folder = self.candidate_folder(candidate.id)
        write_json(folder / "edits.json", [edit.to_json() for edit in candidate.edits])
        write_json(folder / "candidate.json", candidate.to_json())

    def candidates(self) -> list[Candidate]:
        """Return the saved candidates, the original first, then by step."""
        found = []
        for path in sorted((self.folder / "candidates").glob("*/candidate.json")):
            edits = [rewrite_from_json(e) for e in _read_json(path.with_name("edits.json"), list)]
            try:
                found.append(Candidate.from_json(_read_json(path), edits))
            except (TypeError, ValueError) as error:
                raise StorageError(f"{path} is damaged: {error}", _DAMAGED) from error
        return sorted(found, key=lambda c: (c.id != ORIGINAL, c.step, c.id))

    def candidate(self, name: str) -> Candidate:
        """Return the candidate ``name``.

        Raises:
            BadInput: The run has none of that name; the hint lists them.
        """
        found = {c.id: c for c in self.candidates()}
        if name not in found:
            raise BadInput(f"run {self.folder} has no candidate {name!r}", ", ".join(found))
        return found[name]


def _read_json(path: Path, kind: type = dict) -> Any:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"cannot read {path}: {error}", _DAMAGED) from error
    if not isinstance(data, kind):
        raise StorageError(f"{path} does not hold a JSON {kind.__name__}", _DAMAGED)
    return data


def _check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    differing = [key for key in differing if key != "command"]
    if differing:
        lines = "; ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} now" for k in differing)
        raise RunMismatch(
            f"{folder} holds a run of other settings ({lines})",
            "repeat the settings it was started with, or choose another --run",
        )


def peek(folder: str | Path) -> dict[str, Any] | None:
    """Return the settings of the run in ``folder``, or ``None`` where there is none."""
    with suppress(OSError, ValueError):
        data = json.loads((Path(folder) / "config.json").read_text())
        return data if isinstance(data, dict) else None
    return None
