# SPDX-License-Identifier: Apache-2.0
"""``auto``: all widths at once under the device's prices; what is left stands for what went.

chipfit's own default. Channels go in the order of a structured Optimal Brain Surgeon
(:mod:`chipfit.scores.channel_elimination`), which says for every width of every group what is lost
once the other channels make up for it as well as they can. A knapsack over all groups under the
target's prices, as in SMCP and LANA, chooses the widths; the weights left are solved layer by
layer to make what the original makes (:mod:`chipfit.rewrite.reconstruct`), which is layer-wise
distillation in closed form. Blocks may also go altogether, become one convolution that is solved in
the same way, or have their dense convolutions split into depthwise and pointwise ones. How much a
group's loss counts is found by trying (:mod:`chipfit.methods.auto_step`): it is the whole network
that has to be near the original. No label is looked at and nothing is trained before the fine-tune
at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from chipfit.cost.cost import Cost
from chipfit.errors import BadInput
from chipfit.graph.capture import trace
from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.graph.norms_behind import norms_behind
from chipfit.methods.auto_blocks import (
    BATCH,
    SOLVED,
    BlockErrorJob,
    block_errors,
    images_that_fit,
    replacements,
    shares_left,
)
from chipfit.methods.auto_step import Known, take_step
from chipfit.methods.base import METHODS, Problem
from chipfit.methods.joint_space import BLOCK, JointSpace
from chipfit.methods.joint_table import JointTable
from chipfit.methods.levels import family_levels, next_limits
from chipfit.methods.ranges import require_in_range
from chipfit.methods.reach import cost_text
from chipfit.methods.width_table import thinned_widths
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.scores.channel_elimination import eliminate, input_moments, readers_of
from chipfit.space.choice import SearchSpace

#: Where the search may begin.
FIRST = ("losses", "both", "capacity", "alike")


@METHODS.register(
    "auto",
    summary="all widths at once by what the network loses; what is left is solved to stand for it",
    source="chipfit",
)
class Auto:
    """The method, with the options below.

    Every member of the family (``levels`` budgets, evenly from the original's cost to the one asked
    for) starts from the original. The first allocations are by each of ``first``: ``losses`` of the
    groups, ``capacity`` (the sum of the logarithms of widths), ``both``, and all groups ``alike``.
    Then, at most ``rounds`` times, up to ``tries`` allocations around the best are added, by losses
    weighed as fits all networks so far. Each is put together from ``images`` images, fewer where
    activations are so large that memory would not do, and judged on as many others by the distance
    of its outputs from the original's. There are at most ``widths``
    widths of each group (0: all that the target likes), and for each block what ``replace`` names:
    ``skip``, ``conv``, ``separable``, or nothing. With ``solve`` off, weights stay as they were
    sliced. The member's metric is that on ``val_images`` held-out images (0: all).
    """

    own_loops = True
    defaults: Mapping[str, Any] = {
        "levels": 3, "first": FIRST, "rounds": 6, "tries": 8, "widths": 8,
        "replace": SOLVED, "images": 512, "solve": True, "val_images": 2000,
    }  # fmt: skip

    def check(self, problem: Problem) -> None:
        """Raise where the narrowest network is over budget, or there are no inputs to solve from.

        Needs no trained weights.
        """
        if not problem.task.calibrates:
            raise BadInput(
                f"auto solves weights from training inputs, and {problem.task.name} gives none",
                "define calibration() that returns training inputs (N, C, H, W), or use --method"
                " netadapt",
            )
        self._open(problem)[1].check()

    def _open(self, problem: Problem) -> tuple[dict[str, Any], JointTable]:
        options = {**self.defaults, **problem.options}
        first = options["first"]
        options["first"] = (first,) if isinstance(first, str) else tuple(first)
        kinds = options["replace"]
        options["replace"] = tuple(kinds.split()) if isinstance(kinds, str) else tuple(kinds)
        ranges = {
            "levels": int(options["levels"]) >= 1,
            "first": bool(options["first"]) and set(options["first"]) <= set(FIRST),
            "replace": set(options["replace"]) <= set(SOLVED),
            "rounds": int(options["rounds"]) >= 0,
            "tries": int(options["tries"]) >= 1,
            "images": int(options["images"]) >= 1,
            "val_images": int(options["val_images"]) >= 0,
        }
        require_in_range("auto", options, ranges)
        fitting = images_that_fit(trace(problem.net, problem.example))
        options["images"] = min(int(options["images"]), fitting)
        groups = channel_groups(problem.net, problem.example, problem.keep)
        widths = thinned_widths(groups, problem.target.alignment, int(options["widths"]))
        return options, _table(problem, groups, widths, options["replace"])

    def search(self, problem: Problem, run: Run) -> Iterator[Candidate]:
        """Yield one network per budget, with its weights solved from the original's."""
        options, table = self._open(problem)
        table.check()
        cost, step = problem.original_cost, 0
        levels = family_levels(problem, run, "auto", int(options["levels"]), cost)
        known: Known | None = None
        while step == 0 or not problem.budget.met(cost):
            step += 1
            done = run.recall(f"auto/step/{step}")
            if done is None:
                known = known or _look(problem, options, table)
                limits = next_limits(problem, levels, cost)
                done = take_step(problem, run, options, table, step, known, limits)
            cost = Cost(done["predicted"], "predicted")
            problem.progress(
                f"step {step}: by {done['group']}, {cost_text(cost)}, validation"
                f" {done[problem.val_metric]:.4f} before any training"
            )
            known = known or _look(problem, options, table)
            yield _candidate(problem, table, known, step, done)


def _table(
    problem: Problem, groups: list[ChannelGroup], widths: SearchSpace, kinds: tuple[str, ...]
) -> JointTable:
    """Return the costs of all choices, the same object wherever the same is asked again."""

    def make() -> JointTable:
        blocks = replacements(problem, kinds)
        joint = JointSpace(problem.net, problem.example, groups, widths, blocks)
        return JointTable(problem, groups, joint)

    wanted = (tuple(groups), widths, kinds, problem.calibration)
    return problem.once("joint_tables", wanted, make)


def _look(problem: Problem, options: Mapping[str, Any], table: JointTable) -> Known:
    """Return the order in which channels go, and what every option loses; found again each time."""
    images = int(options["images"])
    batches = problem.task.calibration_batches(max(1, images // BATCH), BATCH)
    problem.progress(
        f"looking at what {len(table.groups)} groups of channels are read for, on {images} images"
    )
    moments = input_moments(problem.net, readers_of(problem.net, table.groups), batches)
    found = {group.name: eliminate(problem.net, group, moments) for group in table.groups}
    norms = norms_behind(problem.net, trace(problem.net, problem.example))
    lost, shares = {}, {}
    for choice in table.space:
        if choice.ordered:
            lost[choice.name] = [found[choice.name].lost_at(width) for width in choice.options]
            shares[choice.name] = np.array(choice.options) / choice.options[-1]
    blocks = tuple(table.joint.blocks or ())
    jobs = [BlockErrorJob(choice.operations[:-1], images, norms) for choice in blocks]
    for at, errors in problem.pool.map(block_errors, jobs):
        lost[BLOCK + blocks[at].name] = [*errors, 0.0]
    shares |= shares_left(table.joint, table.names(table.full))
    order = [choice.name for choice in table.space]
    return Known(found, norms, [np.array(lost[n]) for n in order], [shares[n] for n in order])


def _candidate(
    problem: Problem, table: JointTable, known: Known, step: int, done: Mapping[str, Any]
) -> Candidate:
    """Return the network of a step; its changes say choice by choice what each saved."""
    name, row = f"auto-{step:02}", tuple(done["row"])
    return Candidate(
        id=name, edits=table.edits(row, known.kept(table.widths(row))), step=step,
        architecture=table.names(row), parent=ORIGINAL,
        weights=f"candidates/{name}/short.safetensors", predicted=dict(done["predicted"]),
        metrics={problem.val_metric: done[problem.val_metric]},
        changes=table.changes(step, list(row)),
    )  # fmt: skip
