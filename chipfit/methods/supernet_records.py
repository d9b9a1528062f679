# SPDX-License-Identifier: Apache-2.0
"""What a search on a supernet tells the journal while it runs."""

from __future__ import annotations

import torch

from chipfit.methods.base import Problem
from chipfit.runs.run import Run
from chipfit.space.blocks import BlockSpace
from chipfit.supernet.loop import Record
from chipfit.supernet.monitor import collapsed, mean_entropy, search_line, skip_share
from chipfit.supernet.search_state import SearchState

#: Records between two evaluations of the most probable architecture, and images of each.
EVERY, IMAGES = 5, 250


def recorder(method: str, problem: Problem, run: Run, blocks: BlockSpace) -> Record:
    """Return the function that records one event ``search`` and says one line of it."""
    names = {c.name: [o.name for o in c.operations] for c in blocks}

    def shares_before(step: int) -> list[float]:
        # A search that was killed does some steps again: the last record of each counts.
        found = {
            e["step"]: e.get("skip_share") for e in run.journal.events
            if e.get("event") == "search" and e["method"] == method and e["step"] < step
        }  # fmt: skip
        return [share for at in sorted(found) if (share := found[at]) is not None]

    def record(state: SearchState, seconds: float) -> None:
        key = f"{method}/search/{state.step}"
        with torch.no_grad():
            probabilities = {
                # Significant digits: 0 would read as pruned.
                name: [float(f"{float(v):.6g}") for v in p]
                for name, p in zip(names, state.supernet.probabilities(), strict=True)
            }
            expected = state.pressure.expected(state.supernet.probabilities())
        share = skip_share(probabilities, names)
        history = [*shares_before(state.step), *([] if share is None else [share])]
        event = {
            "method": method, "step": state.step, "steps": state.settings.steps, **state.losses,
            "expected": expected, "budget": dict(state.pressure.bounds),
            "entropy": mean_entropy(probabilities), "temperature": state.temperature,
            "skip_share": share, "collapsing": collapsed(history), "seconds": round(seconds, 3),
            "probabilities": probabilities,
        }  # fmt: skip
        number = state.step // state.settings.record_steps
        if number % EVERY == 0 or state.step == state.settings.steps:
            state.supernet.fix(state.supernet.most_probable())
            found = problem.task.evaluate(state.supernet, "val", limit=IMAGES)
            event[problem.val_metric] = found[problem.task.metric]
        run.record("search", key, **event)
        problem.progress(search_line(event))

    return record
