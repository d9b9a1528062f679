# SPDX-License-Identifier: Apache-2.0
"""Read ``journal.jsonl``: proposals, kept steps, searches and stages, despite interruptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chipfit.errors import StorageError
from chipfit.report.data import Journal, Proposal, Stage, Step
from chipfit.report.finite import finite, finite_numbers
from chipfit.report.search_journal import read_searches


def read_journal(path: Path) -> Journal:
    """Read a journal; a run without one has an empty journal.

    A continued run may repeat what an interruption cut off: the last record of a proposal or of
    a step counts, and the seconds of a stage add up.

    Raises:
        StorageError: The file cannot be read.
    """
    events, unreadable = _events(path)
    proposals: dict[tuple[int, str, str], Proposal] = {}
    steps: dict[int, Step] = {}
    stages: dict[str, Stage] = {}
    limits: dict[str, float] = {}
    for event in events:
        kind = event.get("event")
        if kind == "budget":
            limits = finite_numbers(event.get("limits")) or limits
        elif kind == "stage":
            stage = _stage(event)
            stages[stage.name] = _merged(stages.get(stage.name), stage)
        elif kind in ("proposal", "step") and finite(event.get("step")) is not None:
            number, group = int(event["step"]), str(event.get("group") or "?")
            if kind == "proposal":
                proposal = Proposal(
                    step=number,
                    group=group,
                    width=event.get("width"),
                    predicted=finite_numbers(event.get("predicted")),
                    metrics=_metrics(event),
                )
                proposals[number, group, str(proposal.width)] = proposal
            else:
                steps[number] = Step(
                    step=number,
                    group=group,
                    width=event.get("width"),
                    predicted=finite_numbers(event.get("predicted")),
                    compiled=finite_numbers(event.get("compiled")),
                    metrics=_metrics(event),
                    budget_ms=finite(event.get("budget_ms")),
                )
    return Journal(
        proposals=tuple(proposals.values()),
        steps=tuple(steps[number] for number in sorted(steps)),
        stages=tuple(stages.values()),
        finished=any(event.get("event") == "finished" for event in events),
        unreadable_lines=unreadable,
        limits=limits,
        searches=read_searches(events),
        started_s=next(
            (finite(e.get("time")) for e in events if e.get("event") == "started"), None
        ),
    )


def _events(path: Path) -> tuple[list[dict[str, Any]], int]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    events, unreadable = [], 0
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            unreadable += i < len(lines) - 1
            continue
        if isinstance(event, dict):
            events.append(event)
        else:
            unreadable += 1
    return events, unreadable


def _stage(event: Mapping[str, Any]) -> Stage:
    return Stage(
        str(event.get("name") or "?"),
        finite(event.get("seconds")),
        finite(event.get("peak_rss_bytes")),
    )


def _merged(old: Stage | None, new: Stage) -> Stage:
    if old is None:
        return new
    seconds = [s for s in (old.seconds, new.seconds) if s is not None]
    memory = [m for m in (old.peak_rss_bytes, new.peak_rss_bytes) if m is not None]
    return Stage(
        new.name, sum(seconds) if seconds else None, max(memory, default=None), old.times + 1
    )


def _metrics(event: Mapping[str, Any]) -> dict[str, float]:
    return finite_numbers({key: value for key, value in event.items() if key.startswith("val_")})
