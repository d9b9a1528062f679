# SPDX-License-Identifier: Apache-2.0
"""What came of the searches of a run: as JSON, and as a table of their steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chipfit.errors import BadInput
from chipfit.report.data import ORIGINAL, Member, RunData
from chipfit.report.front import best
from chipfit.report.quantity import UNKNOWN, Quantity, quantity, show
from chipfit.report.read import read_run
from chipfit.report.search import Search, SearchStep

NUMBER = Quantity("number", "Number", "number", "number")


def derived_members(run: RunData, search: Search) -> list[Member]:
    """Return the members that decide every choice of a search; the original is none of them."""
    return [m for m in run.members if m.id != ORIGINAL and search.covers(m.architecture)]


def derived_member(run: RunData, search: Search) -> Member | None:
    """Return the derived member to show first: the best of the run, else the last one."""
    members = derived_members(run, search)
    chosen = best(run)
    return chosen if chosen in members else members[-1] if members else None


def search_facts(run: RunData) -> list[dict[str, Any]]:
    """Return the searches of a run as JSON-able objects: where each stands, what it decided."""
    return [_facts(run, search) for search in run.journal.searches]


def _facts(run: RunData, search: Search) -> dict[str, Any]:
    last, member = search.last, derived_member(run, search)
    derived = None
    if member is not None:
        derived = {
            "member": member.id,
            "choices": {
                decision.choice: {"operation": option.name, "probability": option.probability}
                for decision in search.decisions(member.architecture)
                for option in decision.options
                if option.chosen
            },
        }
    return {
        "name": search.name,
        "method": search.method,
        "choices": {choice: list(names) for choice, names in search.choices.items()},
        "recorded_steps": len(search.steps),
        "seconds": search.seconds,
        "collapsing": search.collapsing,
        "last": None if last is None else _last(last),
        "pruned": {
            choice: gone
            for choice in search.choices
            if (gone := [n for n, p in search.probabilities(choice).items() if p == 0.0])
        },
        "derived": derived,
    }


def _last(step: SearchStep) -> dict[str, Any]:
    return {
        "step": step.step,
        "steps": step.steps,
        "loss": step.loss,
        "val_loss": step.val_loss,
        **step.metrics,
        "expected": dict(step.expected),
        "budget": dict(step.budget),
        "entropy": step.entropy,
        "temperature": step.temperature,
        "skip_share": step.skip_share,
    }


#: Keys, heads and figures of a table of steps.
_Columns = dict[str, tuple[str, Quantity, Any]]


def step_columns(steps: Sequence[SearchStep]) -> _Columns:
    """Return the columns that a table of steps needs: by key, head, quantity and reader."""
    metrics = dict.fromkeys(key for step in steps for key in step.metrics)
    expected = dict.fromkeys(key for step in steps for key in step.expected)
    bounds = dict.fromkeys(key for step in steps for key in step.budget)
    columns: _Columns = {
        "loss": ("Loss", NUMBER, lambda s: s.loss),
        "val_loss": ("Validation loss", NUMBER, lambda s: s.val_loss),
    }
    for key in metrics:
        q = quantity(key, metric=True)
        columns[key] = (q.label, q, lambda s, key=key: s.metrics.get(key))
    for key in expected:
        q = quantity(key)
        columns[f"expected_{key}"] = (
            f"{q.label}, expected", q, lambda s, key=key: s.expected.get(key)
        )  # fmt: skip
        if key in bounds:
            columns[f"budget_{key}"] = (
                f"{q.label}, budget", q, lambda s, key=key: s.budget.get(key)
            )  # fmt: skip
    columns |= {
        "entropy": ("Entropy", NUMBER, lambda s: s.entropy),
        "temperature": ("Temperature", NUMBER, lambda s: s.temperature),
        "skip_share": ("Skip share", quantity("accuracy"), lambda s: s.skip_share),
    }
    return {k: c for k, c in columns.items() if any(c[2](step) is not None for step in steps)}


def search_table(run_dir: str | Path, format: str = "markdown") -> str:
    """Return the recorded steps of the searches of a run as text.

    Args:
        run_dir: A run directory, finished or not.
        format: ``"markdown"``, or ``"csv"`` (full precision, units in the heads, and the
            probability of every operation as ``probability:CHOICE:OPERATION``).

    Raises:
        BadInput: The format is unknown, or it is not a run directory.
    """
    if format not in ("markdown", "csv"):
        raise BadInput(f"unknown table format {format!r}", "known: markdown, csv")
    searches = read_run(run_dir).journal.searches
    return _csv(searches) if format == "csv" else _markdown(searches)


def _markdown(searches: Sequence[Search]) -> str:
    columns = step_columns([step for search in searches for step in search.steps])
    lines = [["Search", "Step", *(head for head, _, _ in columns.values())]]
    lines.append(["---", *["---:"] * (len(columns) + 1)])
    for search in searches:
        name = search.name.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
        for step in search.steps:
            figures = [show(read(step), q) for _, q, read in columns.values()]
            lines.append([name, str(step.step), *figures])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _csv(searches: Sequence[Search]) -> str:
    columns = step_columns([step for search in searches for step in search.steps])
    operations = list(
        dict.fromkeys((c, o) for s in searches for c, names in s.choices.items() for o in names)
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["search", "method", "step", "steps", "seconds", *columns, "collapsing"]
        + [f"probability:{choice}:{operation}" for choice, operation in operations]
    )
    for search in searches:
        for step in search.steps:
            verdict = {None: "", True: "yes", False: "no"}[step.collapsing]
            probabilities = [step.probabilities.get(c, {}).get(o) for c, o in operations]
            figures = [read(step) for _, _, read in columns.values()]
            row = [step.steps, step.seconds, *figures, verdict, *probabilities]
            writer.writerow([search.name, search.method, step.step, *map(_blank, row)])
    return text.getvalue()


def _blank(value: Any) -> Any:
    return "" if value is None else value


def search_lines(run: RunData) -> list[str]:
    """Return one line for each search: how far it is, and a warning where skips take over."""
    lines = []
    for search in run.journal.searches:
        last = search.last
        if last is None:
            lines.append(f"search {search.name}: no step recorded yet")
            continue
        shown = step_columns([last])
        figures = ", ".join(
            f"{head if head[1:2].isupper() else head[:1].lower() + head[1:]} {show(read(last), q)}"
            for head, q, read in shown.values()
        )
        steps = f" of {last.steps}" if last.steps is not None else ""
        lines.append(f"search {search.name}: step {last.step}{steps}, {figures or UNKNOWN}")
        if search.collapsing:
            lines.append(f"search {search.name}: skips are taking over; see the report")
    return lines
