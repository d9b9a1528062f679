# SPDX-License-Identifier: Apache-2.0
"""Printing: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from chipfit.errors import ChipfitError


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
        if not self.quiet:
            minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
            self.err.print(f"[dim]{minutes:3}:{seconds:02}[/dim]  {_plain(line)}", soft_wrap=True)

    def document(self, data: Any) -> None:
        """Print the JSON document of a command."""
        sys.stdout.write(json.dumps(data, indent=2, default=_number) + "\n")

    def table(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = ""
    ) -> None:
        """Print rows as a table; a missing value is a dash."""
        table = Table(title=title or None, header_style="bold", title_justify="left")
        for column in columns:
            numeric = any(isinstance(row.get(column), int | float) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
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
