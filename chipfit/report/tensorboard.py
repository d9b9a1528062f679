# SPDX-License-Identifier: Apache-2.0
"""Event files for TensorBoard, made from the journal; one of its "runs" for each search."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput, MissingBackend, StorageError
from chipfit.files import storage_error, write_bytes
from chipfit.interrupts import raise_if_asked
from chipfit.report.data import Journal
from chipfit.report.journal import read_journal
from chipfit.report.read import read_run
from chipfit.report.search import Search, SearchStep

#: How the names of our event files end; others in the same folder are left alone.
SUFFIX = ".chipfit"
_NAME = f"events.out.tfevents.0{SUFFIX}"


def scalars(step: SearchStep) -> Iterator[tuple[str, float]]:
    """Yield tag and value of everything that a step recorded.

    Tags are ``loss/training``, ``loss/validation``, ``metric/KEY``, ``cost/KEY expected``,
    ``cost/KEY budget``, ``search/entropy``, ``search/temperature``, ``search/skip_share``,
    ``search/collapsing`` (0 or 1) and ``probability CHOICE/OPERATION``.
    """
    single = {
        "loss/training": step.loss,
        "loss/validation": step.val_loss,
        **{f"metric/{key}": value for key, value in step.metrics.items()},
        **{f"cost/{key} expected": value for key, value in step.expected.items()},
        **{f"cost/{key} budget": value for key, value in step.budget.items()},
        "search/entropy": step.entropy,
        "search/temperature": step.temperature,
        "search/skip_share": step.skip_share,
        "search/collapsing": step.collapsing,
    }
    yield from ((tag, float(value)) for tag, value in single.items() if value is not None)
    for choice, row in step.probabilities.items():
        yield from ((f"probability {choice}/{name}", value) for name, value in row.items())


def write_tensorboard(run_dir: str | Path, directory: str | Path) -> list[Path]:
    """Write the searches of a run as event files; what was written before is replaced.

    Scalars are single precision, as TensorBoard keeps them; times are those of the journal.

    Args:
        run_dir: A run directory, finished or not.
        directory: Holds a folder for each search afterwards; give it to ``tensorboard --logdir``.

    Returns:
        The event files, one for each search.

    Raises:
        BadInput: It is not a run directory, or holds no search on a supernet.
        MissingBackend: The package ``tensorboard`` is not installed.
        StorageError: A file cannot be read or written.
    """
    _tensorboard()
    run = read_run(run_dir)
    searches = [search for search in run.journal.searches if search.steps]
    if not searches:
        raise BadInput(
            f"{run.directory} has recorded no step of a search on a supernet",
            "wait for the first, or add --follow" if not run.journal.finished
            else "methods such as fbnet and darts record them",
        )  # fmt: skip
    files = []
    for search, folder in zip(searches, _folders(searches, Path(directory)), strict=True):
        with tempfile.TemporaryDirectory() as scratch:
            writer = _SearchWriter(Path(scratch))
            writer.update(search, run.journal)
            writer.close()
            data = next(Path(scratch).iterdir()).read_bytes()
        _clear(folder)
        write_bytes(folder / _NAME, data)
        files.append(folder / _NAME)
    return files


def follow_tensorboard(
    run_dir: str | Path, directory: str | Path, *, poll_s: float = 5.0,
    waiting: Callable[[float], None] = time.sleep,
) -> list[Path]:  # fmt: skip
    """Write event files while a run goes on, until it has finished or ``waiting`` raises.

    What was written for the run before is replaced at the start; then files only grow. A step
    that a continued run repeats is written once.

    Args:
        run_dir: A run directory.
        directory: As for :func:`write_tensorboard`.
        poll_s: Seconds between two looks at the journal.
        waiting: Called with ``poll_s`` between them.

    Returns:
        The folders of the searches.

    Raises:
        BadInput: It is not a run directory.
        MissingBackend: The package ``tensorboard`` is not installed.
        StorageError: A file cannot be read or written.
    """
    _tensorboard()
    run = read_run(run_dir)
    writers: dict[str, _SearchWriter] = {}
    try:
        while True:
            journal = read_journal(run.directory / "journal.jsonl")
            folders = _folders(journal.searches, Path(directory))
            for search, folder in zip(journal.searches, folders, strict=True):
                if search.name not in writers:
                    _clear(folder)
                    writers[search.name] = _SearchWriter(folder)
                writers[search.name].update(search, journal)
            if journal.finished:
                return [writer.folder for writer in writers.values()]
            raise_if_asked()
            waiting(poll_s)
    finally:
        for writer in writers.values():
            writer.close()


class _SearchWriter:
    """The event file of one search; steps that it has are not written again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: int | None = None
        writer, self._summary = _tensorboard()
        self._value = self._summary.Value
        try:
            self._writer = writer(str(folder), filename_suffix=SUFFIX)
        except OSError as error:
            raise storage_error(folder, error) from error

    def update(self, search: Search, journal: Journal) -> None:
        """Add the steps that came since the last call."""
        for step, elapsed_s in zip(search.steps, search.elapsed_s, strict=True):
            if self._last is not None and step.step <= self._last:
                continue
            at = (journal.started_s or 0.0) + (step.step if elapsed_s is None else elapsed_s)
            # One event holds all values of a step; one for each takes several times as long.
            values = [self._value(tag=t, simple_value=v) for t, v in scalars(step)]
            self._writer.add_summary(self._summary(value=values), step.step, at)
            self._last = step.step
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _tensorboard() -> tuple[Any, Any]:
    """Return PyTorch's writer of event files and the message that holds scalars."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import FileWriter
    except ImportError as error:
        raise MissingBackend(
            "event files need the package tensorboard", "pip install 'chipfit[tensorboard]'"
        ) from error
    return FileWriter, Summary


def _folders(searches: list[Search] | tuple[Search, ...], directory: Path) -> list[Path]:
    """Return a folder of its own inside ``directory`` for each search, whatever its name."""
    found: list[Path] = []
    for search in searches:
        plain = name = re.sub(r"[^\w-]+", "-", search.name).strip("-") or "search"
        number = 1
        while directory / name in found:
            number += 1
            name = f"{plain}-{number}"
        found.append(directory / name)
    return found


def _clear(folder: Path) -> None:
    try:
        for path in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            path.unlink()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from error
