# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: the machine, medians with their spread, tables, result files."""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chipfit.cli.console import Terminal
from chipfit.errors import ChipfitError
from chipfit.files import write_bytes
from chipfit.runs.environment import environment

RESULTS = Path(__file__).parent / "results"


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest of ``values`` and how many there were."""
    return {
        "median": statistics.median(values), "min": min(values), "max": max(values),
        "n": len(values),
    }  # fmt: skip


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def cell(value: Any) -> str:
    """Return one cell as text; a spread reads ``median (min..max)``."""
    if value is None:
        return "—"
    if isinstance(value, Mapping):
        middle, low, high = (cell(value[key]) for key in ("median", "min", "max"))
        return middle if low == high else f"{middle} ({low}..{high})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass
class Report:
    """Tables of one benchmark, printed as they are added and written together.

    Args:
        name: Of the benchmark; names its files.
        settings: The arguments it was run with.
        folder: Where the files go.
    """

    name: str
    settings: Mapping[str, Any]
    folder: Path = RESULTS
    tables: list[dict[str, Any]] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    console: Console = field(default_factory=lambda: _console())

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> None:
        """Print and keep a table; the keys of the first row are the columns."""
        columns = list(rows[0])
        shown = Table(title=title, title_justify="left", header_style="bold")
        for name in columns:
            words = any(isinstance(row.get(name), str) for row in rows)
            shown.add_column(name, justify="left" if words else "right", overflow="fold")
        for row in rows:
            shown.add_row(*[escape(cell(row.get(name))) for name in columns])
        self.console.print(shown)
        if note:
            self.console.print(note, style="dim", markup=False)
        self.tables.append({"title": title, "note": note, "rows": [dict(row) for row in rows]})

    def machine(self) -> dict[str, Any]:
        """Return processor, cores, versions and the load that was there at the start."""
        return {**environment(), "load_1min_at_start": round(self.load, 2)}

    def write(self) -> None:
        """Name the machine and write the JSON and Markdown files."""
        facts = self.machine()
        self.console.print(_machine_line(facts), style="dim", markup=False)
        data = {
            "benchmark": self.name, "settings": dict(self.settings), "machine": facts,
            "tables": self.tables,
        }  # fmt: skip
        text = json.dumps(data, indent=1, default=str) + "\n"
        write_bytes(self.folder / f"{self.name}.json", text.encode())
        write_bytes(self.folder / f"{self.name}.md", self._markdown(facts).encode())
        self.console.print(f"written: {self.folder / self.name}.json, .md", soft_wrap=True)

    def _markdown(self, facts: Mapping[str, Any]) -> str:
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        lines = [f"# {self.name}", "", f"Settings: `{settings}`", "", _machine_line(facts), ""]
        for table in self.tables:
            columns = list(table["rows"][0])
            lines += [f"## {table['title']}", "", _markdown_row(columns)]
            lines.append("|" + " --- |" * len(columns))
            lines += [_markdown_row([cell(row.get(c)) for c in columns]) for row in table["rows"]]
            lines += ["", *([table["note"], ""] if table["note"] else [])]
        return "\n".join(lines)


def _console() -> Console:
    console = Console(highlight=False)
    # A file has no width: what is read later should not be folded to 80 columns.
    return console if console.is_terminal else Console(highlight=False, width=200)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _machine_line(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{facts['cpu']}, {facts['cores']} cores (load {facts['load_1min_at_start']} at the start),"
        f" Python {facts['python']}, chipfit {facts['chipfit']}, {versions}"
    )


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that has ``--out`` already."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    return made


def command(work: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Turn errors of chipfit into a message and an exit code."""

    @functools.wraps(work)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            return work(argv)
        except ChipfitError as error:
            Terminal().error(error)
            return error.exit_code

    return main
