# SPDX-License-Identifier: Apache-2.0
"""What it took to make a run, and what it takes to make it again, as HTML.

Every string that comes from the run goes through :func:`html.escape`.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from chipfit.report.data import RunData
from chipfit.report.quantity import NBSP, UNKNOWN, quantity, show


def stages(run: RunData) -> str:
    """Return the stages of the run with their seconds and their peak memory."""
    items = run.journal.stages
    if not items:
        return '<p class="note">The journal has no finished stage yet.</p>'
    memory = quantity("peak_rss_bytes")
    longest = max((s.seconds or 0.0 for s in items), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(s.name)}'
        + (f' <span class="unit">in {s.times} parts</span>' if s.times > 1 else "")
        + f'</th><td class="bar">{_bar((s.seconds or 0.0) / longest)}</td>'
        f'<td class="num">{duration(s.seconds)}</td>'
        f'<td class="num">{escape(show(s.peak_rss_bytes, memory))}</td></tr>'
        for s in items
    )
    known = [s.seconds for s in items if s.seconds is not None]
    peak = max((s.peak_rss_bytes for s in items if s.peak_rss_bytes is not None), default=None)
    return (
        '<div class="scroll"><table id="stages"><thead><tr><th scope="col">Stage</th>'
        '<th scope="col"><span class="hidden">Share</span></th>'
        '<th scope="col" class="num">Time</th><th scope="col" class="num">Peak memory</th></tr>'
        f'</thead><tbody>{rows}</tbody><tfoot><tr><th scope="row">Total</th><td></td>'
        f'<td class="num">{duration(sum(known) if known else None)}</td>'
        f'<td class="num">{escape(show(peak, memory))}</td></tr></tfoot></table></div>'
    )


def _bar(share: float) -> str:
    return (
        '<svg aria-hidden="true" viewBox="0 0 100 8" preserveAspectRatio="none">'
        '<rect class="track" width="100" height="8"/>'
        f'<rect class="fill" width="{100 * share:.2f}" height="8"/></svg>'
    )


def duration(value: float | None) -> str:
    """Write a time in seconds as people say it; ``None`` is a dash."""
    if value is None:
        return UNKNOWN
    if value < 60:
        return f"{value:.1f}{NBSP}s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {seconds:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def is_text(value: Any) -> bool:
    """Return whether a value of a JSON file is a text that says something."""
    return isinstance(value, str) and bool(value)


def settings(run: RunData) -> str:
    """Return the command that makes the run again, its settings, machine and versions."""
    command = run.config.get("command")
    if is_text(command):
        shown = (
            f'<div class="command"><pre id="command"><code>{escape(str(command))}</code></pre>'
            '<button type="button" id="copy">Copy</button></div>'
        )
    else:
        shown = '<p class="note">The run did not record its command.</p>'
    config = {k: v for k, v in run.config.items() if k != "command"}
    machine = {k: v for k, v in run.environment.items() if k not in ("packages", "target")}
    lists = [
        ("Settings", config),
        ("Target", run.environment.get("target")),
        ("Machine and versions", machine),
        ("Packages", run.environment.get("packages")),
    ]
    return shown + '<div class="facts">' + "".join(_facts(*item) for item in lists) + "</div>"


def _facts(title: str, facts: Any) -> str:
    if not isinstance(facts, dict) or not facts:
        return ""
    rows = "".join(
        f"<div><dt>{escape(str(key))}</dt><dd>{escape(_value(value))}</dd></div>"
        for key, value in facts.items()
    )
    return f"<section><h3>{escape(title)}</h3><dl>{rows}</dl></section>"


def _value(value: Any) -> str:
    if value is None or value == {} or value == []:
        return UNKNOWN
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def footer(run: RunData) -> str:
    """Return the line at the end: the version that made the run."""
    version = run.environment.get("chipfit")
    made = f"chipfit {version}" if is_text(version) else "chipfit"
    fingerprint = run.config.get("fingerprint")
    mark = f" · target fingerprint {fingerprint}" if is_text(fingerprint) else ""
    return f"{escape(made + mark)}"
