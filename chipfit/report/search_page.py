# SPDX-License-Identifier: Apache-2.0
"""The part of the page that shows a search on a supernet, as HTML and as data for its script.

Every string that comes from the run goes through :func:`html.escape`.
"""

from __future__ import annotations

from html import escape
from typing import Any

from chipfit.report.data import RunData
from chipfit.report.facts import duration
from chipfit.report.quantity import NBSP, quantity, show
from chipfit.report.search import SKIP_WARNING, Decision, Option, Search, SearchStep, thinned
from chipfit.report.search_facts import NUMBER, derived_member, step_columns

#: Most steps that a curve, a heat map and the table of steps show, evenly spread.
CURVE_STEPS, MAP_STEPS, TABLE_STEPS = 400, 48, 40


def searches(run: RunData) -> str:
    """Return one card for each search of the run; nothing where there was none."""
    return "".join(_card(run, search, i) for i, search in enumerate(run.journal.searches))


def _card(run: RunData, search: Search, number: int) -> str:
    key = f"supernet-{number}"
    charts = (
        f'<div class="multiples" id="{key}-curves"></div>'
        f'<div id="{key}-maps" hidden><h3>Architecture parameters</h3>'
        '<p class="note">Probability of each operation from the first step to the last: the '
        "fuller the colour, the more probable; on the right what it ended at.</p>"
        '<div class="multiples maps"></div></div>'
    )
    return (
        f'<section class="card supernet" id="{key}" aria-labelledby="{key}-title">'
        f'<div class="head"><h2 id="{key}-title">Supernet search: {escape(search.name)}</h2></div>'
        f'<p class="lead">{escape(_lead(search))}</p>{_warning(search)}{charts}'
        f"{_derived(run, search, key)}{_steps(search)}</section>"
    )


def _lead(search: Search) -> str:
    sizes = [len(names) for names in search.choices.values()]
    parts = []
    if sizes:
        span = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
        parts.append(f"{len(sizes)} choice{'s' * (len(sizes) > 1)} of {span} operations.")
    last = search.last
    if last is None:
        parts.append("No step recorded yet.")
    else:
        of = f" of {last.steps}" if last.steps is not None else ""
        time = f", {duration(search.seconds)}" if search.seconds is not None else ""
        parts.append(f"Step {last.step}{of}{time}.")
    return " ".join(parts)


def _warning(search: Search) -> str:
    if not search.collapsing:
        return ""
    share = [step.skip_share for step in search.steps if step.skip_share is not None]
    figure = f" ({show(share[-1], quantity('accuracy'))})" if share else ""
    return (
        '<p class="alarm" role="note"><b>Skips are taking over.</b> Their share'
        f"{escape(figure)} is above {100 * SKIP_WARNING:.0f}{NBSP}%, higher than at the start, and "
        "did not fall over the last quarter of the recorded steps: what was derived may be too "
        "shallow. More steps of the weights before the architecture is searched, or fewer choices "
        "that offer a skip, help.</p>"
    )


def _derived(run: RunData, search: Search, key: str) -> str:
    member = derived_member(run, search)
    if member is None:
        return ""
    decided = "".join(_decision(d) for d in search.decisions(member.architecture))
    return (
        f'<div class="derived" id="{key}-derived"><h3>Derived network: '
        f'<span class="member">{escape(member.id)}</span></h3>'
        '<p class="note">In the order of execution, each choice with its operations and their '
        "probability at the end; the chosen one is filled, pruned ones are struck out.</p>"
        f"<ol>{decided}</ol></div>"
    )


def _decision(decision: Decision) -> str:
    options = "".join(_option(option) for option in decision.options)
    return (
        f'<li data-choice="{escape(decision.choice)}"><span class="place">'
        f"{escape(decision.choice)}</span><ul>{options}</ul></li>"
    )


def _option(option: Option) -> str:
    name = escape(option.name)
    text = f"<s>{name}</s>" if option.pruned else f"<span>{name}</span>"
    if option.probability is not None and not option.pruned:
        text += f" <small>{escape(_rounded(option.probability))}</small>"
    kind = "pruned" if option.pruned else "option"
    current = ' aria-current="true"' if option.chosen else ""
    return f'<li class="{kind}" data-option="{name}"{current}>{text}</li>'


def _rounded(probability: float) -> str:
    return f"<1{NBSP}%" if 0 < probability < 0.005 else f"{100 * probability:.0f}{NBSP}%"


def _steps(search: Search) -> str:
    if not search.steps:
        return ""
    columns = step_columns(search.steps)
    heads = "".join(f'<th scope="col" class="num">{escape(c[0])}</th>' for c in columns.values())
    shown = thinned(search.steps, TABLE_STEPS)
    rows = "".join(
        f'<tr><th scope="row" class="num">{step.step}</th>'
        + "".join(
            f'<td class="num">{escape(show(read(step), q))}</td>' for _, q, read in columns.values()
        )
        + "</tr>"
        for step in shown
    )
    few = len(shown) < len(search.steps)
    title = f"{len(shown)} of {len(search.steps)} recorded steps" if few else "Steps"
    return (
        f'<details><summary>{title} as a table</summary><div class="scroll" tabindex="0" '
        f'role="region" aria-label="Steps of the search"><table><thead><tr>'
        f'<th scope="col" class="num">Step</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></details>"
    )


def search_view(run: RunData) -> list[dict[str, Any]]:
    """Return what the script draws of each search, as JSON-able values."""
    return [_view(search) for search in run.journal.searches]


def _view(search: Search) -> dict[str, Any]:
    return {
        "name": search.name,
        "warning": SKIP_WARNING,
        "charts": _charts(search),
        "maps": [
            {
                "choice": choice,
                "steps": [step.step for step in pictures],
                "rows": [
                    {
                        "name": name,
                        "values": [round(s.probabilities[choice][name], 4) for s in pictures],
                        "last": search.probabilities(choice)[name],
                    }
                    for name in names
                ],
            }
            for choice, names in search.choices.items()
            if (
                pictures := thinned(
                    [s for s in search.pictures if choice in s.probabilities], MAP_STEPS
                )
            )
        ],
    }


def _charts(search: Search) -> list[dict[str, Any]]:
    """Return the small charts: one or more lines of figures over the steps each."""
    steps = thinned(search.steps, CURVE_STEPS)
    percent = quantity("accuracy")
    columns = step_columns(search.steps)

    def line(key: str, name: str, kind: str) -> dict[str, Any] | None:
        if key not in columns:
            return None
        read = columns[key][2]
        return {"name": name, "kind": kind, "values": [read(step) for step in steps]}

    def chart(
        title: str, q: Any, *lines: dict[str, Any] | None, unit_range: bool = False, key: str = ""
    ) -> dict[str, Any] | None:
        known = [item for item in lines if item is not None]
        if not known:
            return None
        return {
            "title": title, "key": key or title, "steps": [step.step for step in steps],
            "lines": known, "unit_range": unit_range,
            "quantity": {"kind": q.kind, "unit": q.unit},
        }  # fmt: skip

    metrics = dict.fromkeys(key for step in search.steps for key in step.metrics)
    costs = dict.fromkeys(key for step in search.steps for key in step.expected)
    charts = [
        chart(
            "Loss", NUMBER, line("loss", "training", "first"),
            line("val_loss", "validation", "second"),
        ),
        *(
            chart(columns[key][0], columns[key][1], line(key, columns[key][0], "first"), key=key)
            for key in metrics
        ),
        *(
            chart(
                f"{quantity(key).label}, expected", quantity(key),
                line(f"expected_{key}", "expected", "first"),
                line(f"budget_{key}", "budget", "bound"), key=f"expected_{key}",
            )
            for key in costs
        ),
        chart("Entropy", NUMBER, line("entropy", "entropy", "first"), unit_range=True),
        chart("Temperature", NUMBER, line("temperature", "temperature", "first")),
        _skips(chart("Skip share", percent, line("skip_share", "skips", "first"),
                     unit_range=True), steps),
    ]  # fmt: skip
    return [item for item in charts if item is not None]


def _skips(chart: dict[str, Any] | None, steps: list[SearchStep]) -> dict[str, Any] | None:
    """Add the line above which skips may be taking over, and where the run judged that they do."""
    if chart is None:
        return None
    chart["lines"].append(
        {"name": "warning", "kind": "bound", "values": [SKIP_WARNING] * len(steps)}
    )
    chart["marked"] = [step.collapsing is True for step in steps]
    return chart
