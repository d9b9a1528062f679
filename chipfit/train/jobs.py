# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning as a job for a worker process: a candidate in, weights and metrics out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.errors import TrainingDiverged
from chipfit.files import read_state, write_state
from chipfit.rewrite.replay import Rewrite, remaining, replay, replay_
from chipfit.tasks.base import Task
from chipfit.train.loop import Progress, fit_model
from chipfit.train.recipe import Recipe
from chipfit.workers import tell


@dataclass(frozen=True)
class Bench:
    """What every fine-tuning job of a run shares; workers receive it once.

    Args:
        net: The original network, trained; it also teaches where a recipe distils.
        task: Data, loss and metric.
    """

    net: nn.Module
    task: Task


@dataclass(frozen=True)
class TuneJob:
    """Edit a network further, fine-tune it, evaluate it on validation data.

    Args:
        before: Edits of the network whose weights are inherited.
        weights_before: Its weights; ``None`` for the original's own.
        after: Edits of the network to fine-tune; they go on from ``before``.
        weights_after: Where the fine-tuned weights are written, atomically.
        recipe: How to train.
        seed: Decides the order of the data.
        checkpoint: File for the checkpoint of a long training; ``None`` for a short one.
        images: Validation images to evaluate on; ``None`` for all.
        label: What progress is told about; ``""`` for none.
    """

    before: tuple[Rewrite, ...]
    weights_before: Path | None
    after: tuple[Rewrite, ...]
    weights_after: Path
    recipe: Recipe
    seed: int
    checkpoint: Path | None = None
    images: int | None = None
    label: str = ""


def training_lines(
    label: str, say: Callable[[str], None], every_s: float = 5.0
) -> Callable[[Progress], None]:
    """Return a callback that turns the progress of a training into lines, now and then."""
    last = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            say(
                f"{label}: step {progress.step}/{progress.steps}, loss {progress.loss:.3f}, "
                f"{progress.images_per_s:.0f} images/s, {progress.eta_s:.0f} s left"
            )

    return show


def tune(bench: Bench, job: TuneJob) -> dict[str, Any]:
    """Run one job in this process.

    Returns:
        ``val_<metric>`` (``val_accuracy`` for classification) and ``images`` trained on; a
        training that diverges returns ``diverged`` with the reason instead.
    """
    net = replay(bench.net, job.before)
    if job.weights_before is not None:
        net.load_state_dict(read_state(job.weights_before))
    net = replay_(net, remaining(job.before, job.after))
    try:
        result = fit_model(
            net, bench.task, job.recipe, seed=job.seed, checkpoint=job.checkpoint,
            teacher=bench.net if job.recipe.distils else None,
            on_progress=training_lines(job.label, tell) if job.label else None,
        )  # fmt: skip
    except TrainingDiverged as error:
        return {"diverged": error.message}
    metrics = bench.task.evaluate(net, "val", limit=job.images)
    write_state(job.weights_after, net.state_dict())
    return {f"val_{bench.task.metric}": metrics[bench.task.metric], "images": result.images}
