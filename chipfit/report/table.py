# SPDX-License-Identifier: Apache-2.0
"""The family as a table: Markdown, CSV, or text for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipfit.errors import BadInput
from chipfit.report.data import Member, RunData
from chipfit.report.front import best, default_axes, front, metric_keys
from chipfit.report.quantity import NBSP, UNKNOWN, quantity, show
from chipfit.report.read import read_run

if TYPE_CHECKING:
    from rich.table import Table

#: Metrics of a member before it was finished; they stand in its details, not in the table.
STAGES = ("short_", "long_")


@dataclass(frozen=True)
class Row:
    """One member beside the original, which may not be there."""

    member: Member
    original: Member | None


@dataclass(frozen=True)
class Column:
    """One column: its heads for people and for scripts, and its figure of a row.

    Args:
        head: For people.
        key: For CSV, with the unit in the name.
        value: The figure that is sorted by and written as CSV; ``None`` where it is unknown.
        show: The text of a cell.
        text: Whether it holds text rather than figures.
    """

    head: str
    key: str
    value: Callable[[Row], Any]
    show: Callable[[Row], str]
    text: bool = False

    def note(self, run: RunData) -> str:
        """Return what stands small under the head."""
        notes = [self.unit]
        if self.key == "latency_ms":
            notes += sorted({m.provenance for m in run.members if m.provenance})
        return ", ".join(note for note in notes if note)

    @property
    def unit(self) -> str:
        """Unit that all cells share; empty where every cell carries its own."""
        q = quantity(self.key)
        return {"percent": "%", "number": q.unit}.get(q.kind, "")

    def bare(self, row: Row) -> str:
        """Return the text of a cell without the unit that stands in the head."""
        text = self.show(row)
        return text.removesuffix(f"{NBSP}{self.unit}") if self.unit else text


def _figure(key: str, head: str) -> Column:
    q = quantity(key)

    def text(row: Row) -> str:
        return show(row.member.values.get(key), q, row.member.spreads.get(key))

    return Column(head, key, lambda row: row.member.values.get(key), text)


def _speedup(row: Row) -> float | None:
    before = row.original.cost.get("latency_ms") if row.original else None
    after = row.member.cost.get("latency_ms")
    return before / after if before is not None and after else None


def _show_speedup(row: Row) -> str:
    value = _speedup(row)
    return UNKNOWN if value is None else f"{value:.2f}×"


def _error(row: Row) -> float | None:
    return row.member.prediction_error("latency_ms")


def _show_error(row: Row) -> str:
    value = _error(row)
    return UNKNOWN if value is None else f"{100 * value:+.2f}\u00a0%".replace("-", "−")


_ACCURACIES = (
    _figure("int8_test_accuracy", "Accuracy int8"),
    _figure("test_accuracy", "Accuracy float"),
    _figure("val_accuracy", "Validation"),
)
_COSTS = (
    _figure("latency_ms", "Latency"),
    Column("Speedup", "speedup", _speedup, _show_speedup),
    _figure("cpu_latency_ms", "CPU latency"),
    _figure("macs", "MACs"),
    _figure("params", "Params"),
    _figure("peak_sram_bytes", "Peak SRAM"),
)
_NAME = Column("Member", "id", lambda row: row.member.id, lambda row: row.member.id, text=True)
_ERROR = Column("Prediction error", "latency_prediction_error", _error, _show_error)


def columns(run: RunData) -> list[Column]:
    """Return the columns of a run: its metrics, the costs that all runs show, and its budget's.

    The prediction error has a column where a member has one.
    """
    metrics = metric_keys(run)
    known = {c.key for c in _ACCURACIES}
    others = [
        _figure(k, quantity(k, metric=True).label)
        for k in metrics
        if k not in known and not k.startswith(STAGES)
    ]
    accuracies = [c for c in _ACCURACIES if c.key in metrics or not others]
    costs = {c.key for c in _COSTS}
    bounds = [_figure(key, quantity(key).label) for key in run.budget if key not in costs]
    errors = [_ERROR] if any(_error(row) is not None for row in family_rows(run)) else []
    return [_NAME, *accuracies, *others, *_COSTS, *bounds, *errors]


def family_rows(run: RunData) -> list[Row]:
    """Return one row for the original and one for every member."""
    return [Row(member, run.original) for member in run.members]


def family_table(run_dir: str | Path, format: str = "markdown") -> str:
    """Return the family of a run as text.

    Args:
        run_dir: A run directory, finished or not.
        format: ``"markdown"``, ``"csv"`` (all figures, full precision, units in the heads) or
            ``"rich"`` (a box for the terminal; :func:`rich_table` gives it in colour).

    Raises:
        BadInput: The format is unknown, or it is not a run directory.
    """
    formats: dict[str, Callable[[RunData], str]] = {
        "markdown": _markdown,
        "csv": _csv,
        "rich": _rich_text,
    }
    if format not in formats:
        raise BadInput(f"unknown table format {format!r}", f"known: {', '.join(formats)}")
    return formats[format](read_run(run_dir))


def _markdown(run: RunData) -> str:
    shown = columns(run)
    lines = [[c.head for c in shown], ["---" if c.text else "---:" for c in shown]]
    for row in family_rows(run):
        lines.append([_markdown_text(c.show(row)) for c in shown])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _markdown_text(text: str) -> str:
    for char, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(char, written)
    return text


def _csv(run: RunData) -> str:
    shown = columns(run)
    keys = {c.key for c in shown}
    more = [k for m in run.members for k in m.values if k not in keys]
    extra = list(dict.fromkeys(more))
    axes = default_axes(run)
    on_front = {m.id for m in front(run, *axes)} if axes else set()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    formats = list(dict.fromkeys(f.format for m in run.members for f in m.files))
    writer.writerow(
        [c.key for c in shown]
        + ["cpu_spread_ms", *extra, "provenance", "within_budget", "on_front"]
        + [f"{name}_file" for name in formats]
    )
    for row in family_rows(run):
        member = row.member
        paths = {f.format: f.path for f in member.files}
        writer.writerow(
            [_blank(c.value(row)) for c in shown]
            + [_blank(member.cpu_spread_ms), *(_blank(member.values.get(k)) for k in extra)]
            + [member.provenance, _flag(run.meets_budget(member)), _flag(member.id in on_front)]
            + [paths.get(name, "") for name in formats]
        )
    return text.getvalue()


def _blank(value: Any) -> Any:
    return "" if value is None else value


def _flag(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def rich_table(run: RunData) -> Table:
    """Return the family as a table for ``rich``, with the best member in bold."""
    from rich.console import JustifyMethod
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{run.network} → {run.target}"), title_justify="left")
    shown = columns(run)
    for column in shown:
        side: JustifyMethod = "left" if column.text else "right"
        table.add_column(Text(column.head), justify=side, no_wrap=column is shown[0])
    chosen = best(run)
    for row in family_rows(run):
        style = "bold" if row.member is chosen else ""
        table.add_row(*(Text(c.show(row), style=style) for c in shown))
    return table


def _rich_text(run: RunData) -> str:
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=160, color_system=None).print(rich_table(run))
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())
