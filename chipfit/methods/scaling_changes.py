# SPDX-License-Identifier: Apache-2.0
"""What scaling changed, stage by stage, and what each stage bought."""

from __future__ import annotations

from typing import Any

from chipfit.methods.scaling_prices import NN_MASS, NON_LINEAR_UNITS, ScalingPricer
from chipfit.methods.scaling_search import Answer


def stage_changes(pricer: ScalingPricer, answer: Answer, step: int) -> list[dict[str, Any]]:
    """Return one change per stage that differs from the original, as candidates carry them.

    Stages change one after the other, from the first to the last, so that what they save adds up to
    the whole; a stage's share includes the transition to its new width.

    Args:
        pricer: Of the original.
        answer: The scaled network.
        step: Position in the search.
    """
    stages = range(len(answer.widths) + 1)
    shapes = [
        (
            (*answer.widths[:s], *pricer.widths[s:]),
            (*answer.depths[:s], *pricer.depths[s:]),
        )
        for s in stages
    ]
    figures = pricer.figures(shapes)
    found = []
    for s in stages[:-1]:
        before, after = figures[s], figures[s + 1]
        old, new = (f"{w} x {d}" for w, d in ((pricer.widths[s], pricer.depths[s]),
                                              (answer.widths[s], answer.depths[s])))  # fmt: skip
        if old == new:
            continue
        change: dict[str, Any] = {"step": step, "group": f"stage {s + 1}", "from": old, "to": new}
        for name, value in after.items():
            if name in (NN_MASS, NON_LINEAR_UNITS):
                change |= {f"{name}_before": before[name], f"{name}_after": value}
            else:
                change[f"{name}_saved"] = before[name] - value
        found.append(change)
    return found
