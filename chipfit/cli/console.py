# SPDX-License-Identifier: Apache-2.0
"""Printing: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from chipfit.errors import ChipfitError
from chipfit.interrupts import raise_if_asked

_results: TextIO | None = None


@contextlib.contextmanager
def only_documents() -> Iterator[None]:
    """Keep standard output for documents: what libraries print goes to standard error."""
    global _results
    _results = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results = None


class Terminal:
    """Where a command prints.

    Args:
        as_json: Print exactly one JSON document on standard output, and nothing else there.
        quiet: Print no progress.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        self._start = time.monotonic()

    def progress(self, line: str) -> None:
        """Print one line of progress with the time since the start."""
        raise_if_asked()
        if not self.quiet:
            minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
            self.err.print(f"[dim]{minutes:3}:{seconds:02}[/dim]  {_plain(line)}", soft_wrap=True)

    def say(self, line: str) -> None:
        """Print one line of a result as it is."""
        self.out.print(_plain(line), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a warning to standard error."""
        self.err.print(f"[bold yellow]warning[/bold yellow]: {_plain(line)}", soft_wrap=True)

    def document(self, data: Any) -> None:
        """Print the JSON document of a command."""
        stream = _results or sys.stdout
        stream.write(json.dumps(data, indent=2, default=_number) + "\n")
        stream.flush()

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "",
        dense: bool = False,
    ) -> None:  # fmt: skip
        """Print rows as a table; a missing value is a dash. A dense one has no lines between."""
        table = Table(
            title=title or None, header_style="bold", title_justify="left",
            box=box.SIMPLE_HEAD if dense else box.HEAVY_HEAD, pad_edge=not dense,
            padding=(0, 1, 0, 0) if dense else (0, 1),
        )  # fmt: skip
        for column in columns:
            numeric = any(isinstance(row.get(column), int | float) for row in rows)
            # A name cut in pieces cannot be read, and not be copied.
            table.add_column(
                column, justify="right" if numeric else "left", overflow="fold",
                no_wrap=column == columns[0],
            )  # fmt: skip
        for row in rows:
            table.add_row(*[_cell(row.get(column)) for column in columns])
        self.out.print(table)

    def error(self, error: ChipfitError) -> None:
        """Print an error: JSON on standard output, or text on standard error."""
        if self.as_json:
            fields = {
                "type": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
            }
            self.document({"error": fields})
            return
        self.err.print(f"[bold red]error[/bold red]: {_plain(error.message)}", soft_wrap=True)
        if error.hint:
            self.err.print(f"[bold]hint[/bold]: {_plain(error.hint)}", soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return _plain(f"{value:,}" if isinstance(value, int) else str(value))
