# SPDX-License-Identifier: Apache-2.0
"""``auto``: widths by several criteria under the device's prices; trainings decide between them.

chipfit's own default. From SMCP and LANA it takes the knapsack over all groups under the target's
prices, Taylor importance, and the score of a change measured alone; how trainings decide is
successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.methods.auto_criteria import CRITERIA
from chipfit.methods.auto_stage import look, take_step
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.width_table import WidthTable, thinned_widths, width_table
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run


@METHODS.register(
    "auto",
    summary="widths by several criteria at once; short trainings decide between them",
    source="chipfit",
)
class Auto:
    """The method, with the options below.

    Every member of the family (``levels`` budgets, evenly from the original's cost to the one asked
    for) starts from the original. Each of ``criteria``
    (:mod:`~chipfit.methods.auto_criteria`) proposes the best widths within the budget by its own
    measure, of at most ``widths`` per group; ``measured`` looks at up to ``points`` of them on
    ``score_images`` images, ``taylor`` at ``importance_batches`` batches. The proposals are trained
    with the original as teacher, in ``rounds`` of so many iterations; after each the better half on
    ``val_images`` held-out images goes on.
    """

    defaults: Mapping[str, Any] = {
        "levels": 1, "criteria": CRITERIA, "widths": 12, "points": 4, "score_images": 256,
        "importance_batches": 8, "rounds": (40, 80, 160), "val_images": 2000,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where the narrowest network is over budget; needs no trained weights."""
        self._open(problem)[2].check()

    def _open(self, problem: Problem) -> tuple[dict[str, Any], list[ChannelGroup], WidthTable]:
        options = {**self.defaults, **problem.options}
        criteria, rounds = list(options["criteria"]), list(options["rounds"])
        ranges = {
            "levels": int(options["levels"]) >= 1,
            "criteria": bool(criteria) and set(criteria) <= set(CRITERIA),
            "points": int(options["points"]) >= 1,
            "score_images": int(options["score_images"]) >= 1,
            "importance_batches": int(options["importance_batches"]) >= 1,
            "rounds": bool(rounds) and min(int(r) for r in rounds) >= 1,
            "val_images": int(options["val_images"]) >= 1,
        }
        require_in_range("auto", options, ranges)
        groups = channel_groups(problem.net, problem.example, problem.keep)
        space = thinned_widths(groups, problem.target.alignment, int(options["widths"]))
        return options, groups, width_table(problem, groups, space)

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget, with its weights after the last round."""
        options, groups, table = self._open(problem)
        table.check()
        cost, step = problem.original_cost, 0
        levels = family_levels(problem, run, "auto", int(options["levels"]), cost)
        known = look(problem, run, options, groups, table)
        while step == 0 or not problem.budget.met(cost):
            step += 1
            done = run.recall(f"auto/step/{step}") or take_step(
                problem, run, options, table, step, known, next_limits(problem, levels, cost)
            )
            cost = Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: {done['group']}, {cost_text(cost)}, validation"
                f" {done[problem.val_metric]:.4f}"
            )
            yield _candidate(problem, table, step, done)


def _candidate(
    problem: Problem, table: WidthTable, step: int, done: Mapping[str, Any]
) -> Candidate:
    """Return the network of a step; its changes say group by group what each saved."""
    name = f"auto-{step:02}"
    kept = {group: tuple(own) for group, own in done["kept"].items()}
    now = {group: len(own) for group, own in kept.items()}
    return Candidate(
        id=name, edits=table.pricer.edits(kept), step=step, architecture=now, parent=ORIGINAL,
        weights=f"candidates/{name}/short.safetensors", predicted=dict(done["predicted"]),
        metrics={problem.val_metric: done[problem.val_metric]},
        changes=table.changes(step, table.rows([now])[0].tolist()),
    )  # fmt: skip
