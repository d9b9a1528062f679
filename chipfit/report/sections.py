# SPDX-License-Identifier: Apache-2.0
"""The headline of a report and the table of the family, as HTML.

Every string that comes from the run goes through :func:`html.escape`.
"""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from chipfit.report.data import Member, RunData
from chipfit.report.facts import is_text
from chipfit.report.front import best, choosing_metric, default_axes, front, metric_keys
from chipfit.report.quantity import NBSP, UNKNOWN, change, quantity, show
from chipfit.report.table import Column, Row, columns, family_rows
from chipfit.report.view import link


def headline(run: RunData) -> str:
    """Return network, device, verdict on the budget, and the best member against the original."""
    chosen = best(run)
    pills = [_verdict(run, chosen)]
    if not run.journal.finished:
        pills.append('<span class="pill warn">Run not finished: figures so far</span>')
    if run.journal.unreadable_lines:
        count = run.journal.unreadable_lines
        pills.append(f'<span class="pill warn">{count} damaged journal line(s) left out</span>')
    facts = [str(run.config[key]) for key in ("method", "task") if is_text(run.config.get(key))]
    shape = run.config.get("input_shape")
    if isinstance(shape, list):
        facts.append("input " + "×".join(str(size) for size in shape))
    return (
        f'<p class="eyebrow">{escape(" · ".join(facts))}</p>'
        f'<h1><span class="network">{escape(run.network)}</span>'
        f' <span class="arrow" aria-label="fitted to">→</span>'
        f' <span class="device">{escape(run.target)}</span></h1>'
        f'<p class="pills">{"".join(pills)}</p>'
        f"{_tiles(run, chosen)}"
    )


def _bounds(run: RunData) -> str:
    return ", ".join(
        f"{quantity(key).inline} ≤ {show(bound, quantity(key))}"
        for key, bound in run.budget.items()
    )


def _verdict(run: RunData, chosen: Member | None) -> str:
    if not run.budget:
        return '<span class="pill">No budget was set</span>'
    bounds = escape(_bounds(run))
    met = run.meets_budget(chosen) if chosen else None
    if chosen is None or met is None:
        return f'<span class="pill warn">Budget not judged yet: {bounds}</span>'
    if met:
        return f'<span class="pill good"><b>Budget met</b> {bounds}</span>'
    return (
        f'<span class="pill bad"><b>Budget not met</b> {bounds}; '
        f"{escape(chosen.id)} comes closest</span>"
    )


def _tiles(run: RunData, chosen: Member | None) -> str:
    if chosen is None:
        return '<p class="note">No member can be put forward yet.</p>'
    axes = default_axes(run)
    costs = [axes[1]] if axes else []
    costs += [k for k in ("latency_ms", "macs", "params", "peak_sram_bytes") if k not in costs]
    metric = axes[0] if axes else None
    tiles = [_tile(run, chosen, key) for key in (costs[0], metric, *costs[1:]) if key]
    why = choosing_metric(run)
    reason = f"chosen by {quantity(why, metric=True).inline}" if why else ""
    if run.budget:
        within = run.meets_budget(chosen)
        reason = f"{reason} among the members within the budget" if within else "nearest the budget"
    note = f'<a href="#member={escape(_hash(chosen.id))}">{escape(chosen.id)}</a>, {escape(reason)}'
    reference = (
        "Change is against the original." if run.original else "No original to compare with."
    )
    return (
        f'<p class="chosen">Best member: {note}. {reference}</p>'
        f'<dl class="tiles">{"".join(tiles)}</dl>'
    )


def _tile(run: RunData, chosen: Member, key: str) -> str:
    q = quantity(key, metric=key in metric_keys(run))
    value = chosen.values.get(key)
    before = run.original.values.get(key) if run.original else None
    label = q.label
    if key in ("latency_ms", "cycles") and chosen.provenance:
        label += f", {chosen.provenance}"
    lines = ""
    if before is not None and value is not None and chosen is not run.original:
        delta = change(value, before, q)
        tone = "" if value == before else _tone(value, before, q.direction)
        lines = f'<dd class="sub">from {show(before, q)} <b class="{tone}">{delta}</b></dd>'
    return f"<div><dt>{escape(label)}</dt><dd>{escape(show(value, q))}</dd>{lines}</div>"


def _tone(value: float, before: float, direction: str) -> str:
    return "up" if (value < before) == (direction == "min") else "down"


def _hash(name: str) -> str:
    return quote(name, safe="")


def family(run: RunData) -> str:
    """Return the table of the family; every cell carries what it is sorted by."""
    rows = family_rows(run)
    shown = columns(run)
    axes = default_axes(run)
    on_front = {m.id for m in front(run, *axes)} if axes else set()
    chosen = best(run)
    head = "".join(
        f'<th scope="col" class="{"" if c.text else "num"}" aria-sort="none">'
        f'<button type="button">{escape(c.head)}<span class="unit">{escape(c.note(run))}</span>'
        "</button></th>"
        for c in shown
    )
    body = "".join(
        f'<tr data-id="{escape(row.member.id)}"'
        + (' class="front">' if row.member.id in on_front else ">")
        + "".join(_cell(run, row, column, chosen) for column in shown)
        + f"{_files(row.member)}</tr>"
        for row in rows
    )
    if not rows:
        body = f'<tr><td colspan="{len(shown) + 1}">No member has been recorded yet.</td></tr>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Family table">'
        f'<table id="family"><thead><tr>{head}'
        '<th scope="col">Files<span class="unit"></span></th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(run: RunData, row: Row, column: Column, chosen: Member | None) -> str:
    value = column.value(row)
    if column.head != "Member":
        sort = "" if value is None else escape(str(value))
        return f'<td class="num" data-sort="{sort}">{_bare(column.bare(row))}</td>'
    member = row.member
    order = run.members.index(member)
    within = run.meets_budget(member)
    tag = ""
    if member is chosen:
        tag = f' <span class="tag">{"nearest" if within is False else "best"}</span>'
    if within is not None:
        text = "within budget" if within else "over budget"
        name, sign = ("yes", "✓") if within else ("no", "✗")
        tag += f' <span class="fit {name}" title="{text}">{sign}'
        tag += f'<span class="hidden">{text}</span></span>'
    return (
        f'<th scope="row" data-sort="{order}"><span class="mark" aria-hidden="true"></span>'
        f'<a href="#member={escape(_hash(member.id))}">{escape(member.id)}</a>{tag}</th>'
    )


def _bare(text: str) -> str:
    figure, mark, spread = escape(text).partition(" ± ")
    return f'{figure} <span class="spread">±{NBSP}{spread}</span>' if mark else figure


def _files(member: Member) -> str:
    links = []
    for file in member.files:
        if file.size_bytes is None:
            links.append(f'<span class="gone" title="not in the run">{escape(file.format)}</span>')
        else:
            size = show(file.size_bytes, quantity("weight_bytes"))
            links.append(
                f'<a class="file" href="{escape(link(file))}" download '
                f'title="{escape(file.path)}, {escape(size)}">{escape(file.format)}</a>'
            )
    return f'<td class="files">{" ".join(links) or UNKNOWN}</td>'
