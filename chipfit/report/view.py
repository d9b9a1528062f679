# SPDX-License-Identifier: Apache-2.0
"""The data that a report embeds for its script, as plain JSON-able values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from chipfit.report.data import ORIGINAL, Change, ExportedFile, Member, Proposal, RunData, Step
from chipfit.report.front import best, cost_keys, default_axes, front, metric_keys
from chipfit.report.quantity import quantity
from chipfit.report.search_page import search_view

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def view(run: RunData) -> dict[str, Any]:
    """Return everything that the script draws, with all Pareto fronts worked out."""
    metrics, costs = metric_keys(run), cost_keys(run)
    axes = default_axes(run)
    chosen = best(run)
    made = {m.step: dict(m.cost) for m in run.members if m.step is not None and m.id != ORIGINAL}
    return {
        "network": run.network,
        "target": run.target,
        "budget": dict(run.budget),
        "metrics": metrics,
        "costs": costs,
        "axes": list(axes) if axes else None,
        "quantities": _quantities(run, metrics, costs),
        "fronts": {f"{m}|{c}": [x.id for x in front(run, m, c)] for m in metrics for c in costs},
        "best": chosen.id if chosen else None,
        "members": [_member(run, member) for member in run.members],
        "proposals": [
            {
                "step": p.step,
                "group": p.group,
                "width": p.width,
                "predicted": dict(p.predicted),
                "metrics": dict(p.metrics),
            }
            for p in run.journal.proposals
        ],
        "steps": [
            {
                "step": s.step,
                "group": s.group,
                "width": s.width,
                "predicted": dict(s.predicted),
                "compiled": dict(s.compiled) or made.get(s.step, {}),
                "metrics": dict(s.metrics),
                "budget_ms": s.budget_ms,
            }
            for s in run.journal.steps
        ],
        "searches": search_view(run),
    }


def embed(data: Any) -> str:
    """Return JSON that is safe inside a ``<script>`` element."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return "".join(_ESCAPES.get(char, char) for char in text)


def link(file: ExportedFile) -> str:
    """Return the address of an exported file relative to the report."""
    return quote(file.path)


def _quantities(run: RunData, metrics: list[str], costs: list[str]) -> dict[str, Any]:
    def more(items: Iterable[Member]) -> Iterable[str]:
        for member in items:
            yield from member.predicted
            for layer in member.layers:
                yield from layer.cost
            for item in member.changes:
                yield from item.saved

    named = {key: quantity(key, metric=True) for key in metrics}
    for change in (c for m in run.members for c in m.changes):
        changed = (*change.metrics_before, *change.metrics_after)
        named |= {key: quantity(key, metric=True) for key in changed}
    events: list[Proposal | Step] = [*run.journal.proposals, *run.journal.steps]
    for event in events:
        named |= {key: quantity(key, metric=True) for key in event.metrics}
        named |= {key: quantity(key) for key in event.predicted}
    named |= {key: quantity(key) for key in (*costs, *run.budget, *more(run.members))}
    named.setdefault("latency_ms", quantity("latency_ms"))
    return {
        key: {"label": q.label, "kind": q.kind, "unit": q.unit, "direction": q.direction}
        for key, q in named.items()
    }


def _member(run: RunData, member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "step": member.step,
        "parent": member.parent,
        "within": run.meets_budget(member),
        "architecture": dict(member.architecture),
        "values": member.values,
        "spreads": member.spreads,
        "provenance": member.provenance,
        "predicted": dict(member.predicted),
        "files": [
            {"format": f.format, "href": link(f), "bytes": f.size_bytes} for f in member.files
        ],
        "verify": {name: dict(figures) for name, figures in member.verify.items()},
        "layers": [
            {"name": x.name, "kind": x.kind, "output": list(x.output), "cost": dict(x.cost)}
            for x in member.layers
        ],
        "changes": [_change(item) for item in member.changes],
    }


def _change(item: Change) -> dict[str, Any]:
    return {
        "step": item.step,
        "group": item.group,
        "from": item.before,
        "to": item.after,
        "saved": dict(item.saved),
        "before": dict(item.metrics_before),
        "after": dict(item.metrics_after),
    }
