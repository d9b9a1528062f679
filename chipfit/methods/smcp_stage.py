# SPDX-License-Identifier: Apache-2.0
"""One stage of SMCP: from one budget to the next, and the network that comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.cost.budget import Budget
from chipfit.errors import InfeasibleBudget
from chipfit.files import write_state
from chipfit.graph.capture import trace
from chipfit.graph.norms_behind import norms_behind
from chipfit.methods.base import Problem
from chipfit.methods.smcp_groups import largest_difference, maskable_groups
from chipfit.methods.smcp_rewiring import Rewiring, Solver, knapsack
from chipfit.methods.smcp_schedule import PruningSchedule
from chipfit.methods.width_table import WidthTable, thinned_widths, width_table
from chipfit.rewrite.slice import slice_channels
from chipfit.runs.run import Run
from chipfit.supernet.soft_masks import SoftMasks
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import training_lines
from chipfit.train.loop import fit_model
from chipfit.train.randomness import stream_seed

NAME = "smcp"
#: Training images that batch norms are recalibrated with.
BATCHES, BATCH = 8, 64
#: A stage beyond those planned, for a budget that became tighter, is this share of a planned one.
EXTRA = 0.25
#: Optimizer steps between two checkpoints.
CHECKPOINT_STEPS = 200
#: How much lower the limits of a repair are than of the one before, and how many there are.
TIGHTER, REPAIRS = 0.995, 40


@dataclass(frozen=True)
class Opened:
    """A problem with its widths and their costs.

    Args:
        settings: Of the method.
        table: Costs of the widths of all groups that are pruned.
        norms: The batch norm behind each layer.
        solver: Chooses widths.
    """

    settings: Mapping[str, Any]
    table: WidthTable
    norms: Mapping[str, str]
    solver: Solver = knapsack

    def masks(self, problem: Problem) -> SoftMasks:
        """Return open masks on a copy of the network."""
        return SoftMasks(
            problem.net, self.table.groups, mode=str(self.settings["mode"]),
            scaling=str(self.settings["scaling"]), norms=self.norms,
        )  # fmt: skip


def open_widths(problem: Problem, settings: Mapping[str, Any], solver: Solver = knapsack) -> Opened:
    """Find the groups that can be masked, and price their widths.

    Args:
        problem: Gives network, target and table.
        settings: Of the method.
        solver: Chooses widths.

    Raises:
        BadInput: There are none.
    """
    groups = maskable_groups(problem)
    space = thinned_widths(groups, problem.target.alignment, int(settings["widths"]))
    norms = norms_behind(problem.net, trace(problem.net, problem.example))
    return Opened(settings, width_table(problem, groups, space), norms, solver)


def take_stage(
    problem: Problem, run: Run, opened: Opened, step: int, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Train down to ``limits``, slice, judge and record.

    Raises:
        TrainingDiverged: The loss became NaN or infinite.
        InfeasibleBudget: No widths within the limits were found.
    """
    table, settings = opened.table, opened.settings
    masks = opened.masks(problem)
    for earlier in range(1, step):
        done = run.recall(f"{NAME}/step/{earlier}") or {}
        # The checkpoint of a finished stage is its end: this only loads it.
        _train(problem, run, opened, masks, earlier, done["limits"], done["start"])
    widths = {name: len(own) for name, own in masks.kept.items()}
    now = table.networks([tuple(table.rows([widths])[0])])[0]
    start = {key: now[key] for key in limits}
    rewiring = _train(problem, run, opened, masks, step, limits, start)
    kept, row, predicted = _within(problem, opened, masks, rewiring, limits)
    net = slice_channels(masks.finished(), table.pricer.edits(kept))
    batches = problem.task.calibration_batches(BATCHES, BATCH)
    error = largest_difference(masks.net.eval(), net, batches[0])
    recalibrate_batchnorm(net, batches)
    images = int(settings["val_images"]) or None
    value = problem.task.evaluate(net, "val", limit=images)[problem.task.metric]
    write_state(run.candidate_folder(f"{NAME}-{step:02}") / "short.safetensors", net.state_dict())
    gone = sum(group.channels - len(kept[group.name]) for group in table.groups)
    return run.record(
        "step", f"{NAME}/step/{step}", step=step, row=list(row),
        kept={name: list(own) for name, own in kept.items()}, group=f"{gone} channels removed",
        width=sum(map(len, kept.values())), limits=dict(limits), start=start,
        predicted=dict(predicted), revived=rewiring.revived, masked_to_sliced_error=error,
        **{problem.val_metric: value},
    )  # fmt: skip


def _train(
    problem: Problem, run: Run, opened: Opened, masks: SoftMasks, step: int,
    limits: Mapping[str, float], start: Mapping[str, float],
) -> Rewiring:  # fmt: skip
    """Train one stage, or load its end; ``masks`` are those of the stage before."""
    settings = opened.settings
    levels = int(settings["levels"])
    recipe = problem.task.recipe
    recipe = recipe.replace(
        epochs=float(settings["search_epochs"]), steps=int(settings["search_steps"]) or None,
        learning_rate=float(settings["rate"]) * recipe.learning_rate, schedule="cosine",
        warmup=0.1, ema_decay=0.0, distillation_weight=float(settings["distillation"]),
    )  # fmt: skip
    steps = recipe.total_steps(problem.task.steps_per_epoch(recipe.batch_size)) / levels
    recipe = recipe.replace(steps=max(1, round(steps * (1 if step <= levels else EXTRA))))
    schedule = PruningSchedule(
        recipe.steps or 1, int(settings["every"]),
        float(settings["warmup"]) if step == 1 else 0.0, float(settings["cooldown"]),
        str(settings["schedule"]),
    )  # fmt: skip
    before = round(steps * min(step - 1, levels) + EXTRA * steps * max(0, step - 1 - levels))

    def record(facts: Mapping[str, Any]) -> None:
        at = before + facts["step"] + 1
        run.record(
            "search", f"{NAME}/search/{at}", method=NAME, step=at, stage=step,
            steps=before + schedule.steps, expected=facts["cost"], budget=facts["limits"],
            widths=facts["widths"], revived=facts["revived"], masked=facts["masked"],
        )  # fmt: skip
        costs = ", ".join(f"{key}={value:.4g}" for key, value in facts["cost"].items())
        problem.progress(
            f"step {at}/{before + schedule.steps}: {facts['masked']} channels masked, "
            f"{facts['revived']} back, {costs}"
        )

    rewiring = Rewiring(
        masks, opened.table, schedule, start, limits, decay=float(settings["decay"]),
        average=str(settings["average"]), importance=str(settings["importance"]),
        revival=float(settings["revival"]), solver=opened.solver, on_rewired=record,
    )  # fmt: skip
    fit_model(
        masks.net, problem.task, recipe, seed=stream_seed(problem.seed, NAME, "stage", step),
        checkpoint=_checkpoint(run, step), checkpoint_steps=CHECKPOINT_STEPS, on_gradients=rewiring,
        teacher=problem.net if recipe.distils else None,
        on_progress=training_lines(f"{NAME} stage {step}", problem.progress),
    )  # fmt: skip
    return rewiring


def _checkpoint(run: Run, step: int) -> Path:
    return run.checkpoint_folder(NAME) / f"stage-{step:02}.safetensors"


def _within(
    problem: Problem, opened: Opened, masks: SoftMasks, rewiring: Rewiring,
    limits: Mapping[str, float],
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...], dict[str, float]]:  # fmt: skip
    """Return kept channels, option indices and predicted cost, surely within the limits.

    The knapsack's costs and a network's predicted as a whole differ at most by rounding; where that
    is too much, masks are chosen once more for slightly lower limits.
    """
    wanted, table = Budget(dict(limits)), opened.table
    tighter = dict(limits)
    for _ in range(REPAIRS):
        kept = masks.kept
        row = tuple(int(i) for i in table.rows([{n: len(own) for n, own in kept.items()}])[0])
        cost = table.networks([row])[0]
        if wanted.met(cost):
            return kept, row, dict(cost.values)
        tighter = {key: TIGHTER * value for key, value in tighter.items()}
        rewiring.rewire(tighter)
    raise InfeasibleBudget(
        f"no widths were found that cost {wanted} as a whole network",
        "raise the budget a little",
    )
