# SPDX-License-Identifier: Apache-2.0
"""Read the ``supernet`` and ``search`` events of a journal, tolerant of repeats and gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chipfit.report.finite import finite, finite_numbers
from chipfit.report.search import Search, SearchStep

_MARKS = ("/search/", "/supernet")


def read_searches(events: Iterable[Mapping[str, Any]]) -> tuple[Search, ...]:
    """Return the searches of a journal in the order they began.

    A continued run may repeat steps; the last record of a step counts. Where a supernet was
    recorded again with fewer operations, those that it lost have probability 0 from then on.

    Args:
        events: Of the journal, in order. Events with keys ``NAME/supernet`` and
            ``NAME/search/STEP`` are of one search; without a key the method is the name.
    """
    methods: dict[str, str] = {}
    choices: dict[str, dict[str, tuple[str, ...]]] = {}
    current: dict[str, Mapping[str, tuple[str, ...]]] = {}
    steps: dict[str, dict[int, SearchStep]] = {}
    for event in events:
        kind = event.get("event")
        if kind not in ("supernet", "search"):
            continue
        name = _name(event)
        if kind == "supernet":
            current[name] = _choices(event.get("choices"))
            known = choices.setdefault(name, {})
            for choice, operations in current[name].items():
                known[choice] = tuple(dict.fromkeys((*known.get(choice, ()), *operations)))
        else:
            number = finite(event.get("step"))
            if number is None:
                continue
            step = _step(int(number), event, current.get(name, {}))
            steps.setdefault(name, {})[step.step] = step
        methods.setdefault(name, str(event.get("method") or name))
    searches = []
    for name, method in methods.items():
        known, found = choices.get(name, {}), steps.get(name, {})
        ordered = tuple(_completed(found[number], known) for number in sorted(found))
        searches.append(Search(name, method, known, ordered))
    return tuple(searches)


def _name(event: Mapping[str, Any]) -> str:
    key = str(event.get("key") or "")
    for mark in _MARKS:
        head, found, _ = key.rpartition(mark)
        if found and head:
            return head
    return str(event.get("method") or "search")


def _choices(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        return {}
    lists = {str(choice): names for choice, names in value.items() if isinstance(names, list)}
    return {choice: tuple(map(str, names)) for choice, names in lists.items() if names}


def _step(
    number: int, event: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]]
) -> SearchStep:
    steps, collapsing = finite(event.get("steps")), event.get("collapsing")
    metrics = {k: v for k, v in event.items() if k.startswith("val_") and k != "val_loss"}
    return SearchStep(
        step=number,
        steps=None if steps is None else int(steps),
        loss=finite(event.get("loss")),
        val_loss=finite(event.get("val_loss")),
        metrics=finite_numbers(metrics),
        expected=finite_numbers(event.get("expected")),
        budget=finite_numbers(event.get("budget")),
        entropy=finite(event.get("entropy")),
        temperature=finite(event.get("temperature")),
        skip_share=finite(event.get("skip_share")),
        collapsing=collapsing if isinstance(collapsing, bool) else None,
        seconds=finite(event.get("seconds")),
        probabilities=_probabilities(event.get("probabilities"), choices),
    )


def _probabilities(
    value: Any, choices: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, float]]:
    if not isinstance(value, Mapping):
        return {}
    found = {}
    for choice, operations in choices.items():
        row = value.get(choice)
        if not isinstance(row, list) or len(row) != len(operations):
            continue
        figures = [finite(item) for item in row]
        known = [figure for figure in figures if figure is not None]
        if len(known) == len(row):
            found[choice] = dict(zip(operations, known, strict=True))
    return found


def _completed(step: SearchStep, choices: Mapping[str, tuple[str, ...]]) -> SearchStep:
    """Give operations that the supernet did not have at this step the probability 0."""
    for choice, row in step.probabilities.items():
        if len(row) < len(choices[choice]):
            break
    else:
        return step
    full = {
        choice: {name: row.get(name, 0.0) for name in choices[choice]}
        for choice, row in step.probabilities.items()
    }
    return replace(step, probabilities=full)
