# SPDX-License-Identifier: Apache-2.0
"""SMCP: prune channels while training, so softly that they can come back, by a knapsack.

Humble et al., "Soft Masking for Cost-Constrained Channel Pruning", ECCV 2022, arXiv 2211.02206:
channels are masked where they are read and go on receiving gradients; every few steps the masks are
chosen anew, of all groups at once, so that the channels kept have the highest total importance
within a budget that falls to the target's; at the end the masked channels are removed for real.

Our variant: the costs are those of whole networks, from the target's look-up table, with widths of
neighbours taken together (:func:`chipfit.allocate.solve_coupled`); a masked channel is worth what
its return would take off the loss; several budgets are stages of one training, each with a
cool-down of its own, so a family costs no more than one network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chipfit.cost.cost import Cost
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.smcp_rewiring import AVERAGES, IMPORTANCES, Solver, knapsack
from chipfit.methods.smcp_schedule import KINDS
from chipfit.methods.smcp_stage import NAME, Opened, open_widths, take_stage
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.supernet.soft_masks import MODES, SCALINGS


@METHODS.register(
    NAME,
    summary="mask channels softly while training, chosen by a knapsack under the device's costs",
    source="Humble et al., ECCV 2022, arXiv 2211.02206",
)
class Smcp:
    """The method, with the options below.

    Training takes ``search_epochs`` (or ``search_steps`` where positive) at ``rate`` times the
    recipe's learning rate, with the original as teacher of weight ``distillation``. Of these steps
    the first ``warmup`` share prunes nothing; then the budget falls as ``schedule`` says
    (``exponential``, ``force``, ``linear``) and masks are chosen anew ``every`` so many steps; in
    the last ``cooldown`` share they stay.

    ``mode`` is ``soft``, ``hard`` or ``permanent``; ``scaling`` what a batch norm behind a masked
    layer is scaled by (``channels``, ``importance``, ``none``); ``average`` how importances of
    batches become one (``momentum``, ``mean``, ``latest``); ``decay`` that of masked weights.
    With ``importance`` ``absolute`` masked channels are judged like others, as in the paper; with
    ``signed`` by ``revival`` times what their return would take off the loss. A group chooses of at
    most ``widths`` widths (0: of all that the target likes). ``val_images`` limits the held-out
    images (0: all).

    With ``levels`` above 1 the training is cut into as many stages, one per budget from the
    original's cost to the one asked for. Each goes on from the masked network of the one before, so
    channels can still come back, and its member is trained with fixed masks last.
    """

    defaults: Mapping[str, Any] = {
        "search_epochs": 4.0, "search_steps": 0, "rate": 0.3, "distillation": 0.0,
        "warmup": 0.11, "cooldown": 0.28, "every": 20, "schedule": "exponential",
        "mode": "soft", "scaling": "channels", "average": "momentum", "decay": 2e-4,
        "importance": "signed", "revival": 0.5,
        "widths": 12, "levels": 1, "val_images": 2000,
    }  # fmt: skip

    #: Chooses the widths of a rewiring.
    solver: Solver = staticmethod(knapsack)

    def check(self, problem: Problem) -> None:
        """Raise where the narrowest network is over budget, or an option is out of range."""
        self._open(problem)

    def _open(self, problem: Problem) -> Opened:
        settings = {**self.defaults, **problem.options}
        ranges = {
            "search_epochs": float(settings["search_epochs"]) > 0,
            "search_steps": int(settings["search_steps"]) >= 0,
            "rate": float(settings["rate"]) > 0,
            "distillation": 0 <= float(settings["distillation"]) <= 1,
            "warmup": 0 <= float(settings["warmup"]) < 1,
            "cooldown": 0 <= float(settings["cooldown"]) < 1 - float(settings["warmup"]),
            "every": int(settings["every"]) >= 1,
            "schedule": settings["schedule"] in KINDS,
            "mode": settings["mode"] in MODES,
            "scaling": settings["scaling"] in SCALINGS,
            "average": settings["average"] in AVERAGES,
            "importance": settings["importance"] in IMPORTANCES,
            "revival": float(settings["revival"]) >= 0,
            "decay": float(settings["decay"]) >= 0,
            "widths": int(settings["widths"]) == 0 or int(settings["widths"]) >= 2,
            "levels": int(settings["levels"]) >= 1,
            "val_images": int(settings["val_images"]) >= 0,
        }
        require_in_range(NAME, settings, ranges)
        opened = open_widths(problem, settings, self.solver)
        opened.table.check()
        return opened

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget, with the weights that it was masked with."""
        opened = self._open(problem)
        cost, step = problem.original_cost, 0
        count = int(opened.settings["levels"])
        levels = family_levels(problem, run, NAME, count, problem.original_cost)
        while step == 0 or not problem.budget.met(cost):
            step += 1
            done = run.recall(f"{NAME}/step/{step}")
            if done is None:
                limits = next_limits(problem, levels, cost)
                done = take_stage(problem, run, opened, step, limits)
            cost = Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: {cost_text(cost)}, {done['revived']} channels came back, validation "
                f"{done[problem.val_metric]:.4f}"
            )
            yield _candidate(problem, opened, step, done)


def _candidate(problem: Problem, opened: Opened, step: int, done: Mapping[str, Any]) -> Candidate:
    """Return the member of a stage; its changes say group by group what it saved."""
    name, row = f"{NAME}-{step:02}", [int(i) for i in done["row"]]
    return Candidate(
        id=name, edits=opened.table.pricer.edits(done["kept"]), step=step, parent=ORIGINAL,
        weights=f"candidates/{name}/short.safetensors", predicted=dict(done["predicted"]),
        architecture=opened.table.widths(row), changes=opened.table.changes(step, row),
        metrics={problem.val_metric: done[problem.val_metric]},
    )  # fmt: skip
