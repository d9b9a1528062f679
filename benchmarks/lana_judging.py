# SPDX-License-Identifier: Apache-2.0
"""Networks put together from trained replacements: their loss before and after short distillation.

Every result is a file, so that a benchmark that was cut off goes on with the next network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from chipfit.blocks.conv_bn_act import ConvBNAct
from chipfit.files import write_bytes
from chipfit.methods.lana_jobs import BATCH, BATCHES
from chipfit.supernet.blockwise_score import held_out_batches, mean_loss
from chipfit.supernet.blockwise_store import ReplacementStore
from chipfit.tasks import Task
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import Bench
from chipfit.train.loop import fit_model
from chipfit.train.recipe import Recipe
from chipfit.workers import WorkerPool

#: Output channels and stride of the teacher's blocks, each a 3x3 convolution.
TEACHER = ((16, 1), (24, 2), (24, 1), (24, 1), (48, 2), (48, 1), (48, 1), (48, 1))


def teacher_of(task: Task) -> nn.Module:
    """Return an untrained network of eight plain convolutions for a task."""
    layers: list[nn.Module] = []
    channels = task.input_shape[1]
    for out, stride in TEACHER:
        layers.append(ConvBNAct(channels, out, 3, stride, act="relu"))
        channels = out
    return nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, task.num_classes),
    )  # fmt: skip


@dataclass(frozen=True)
class JudgeJob:
    """A network to judge.

    Args:
        store: The trained replacements.
        architecture: An operation by choice.
        halves: Seed of the halves of the training data; replacements learnt from the first.
        images: Of the second half, for the loss.
        recipe: Of the short distillation; ``None`` to judge without.
        seed: Of the distillation.
        file: Where the result is kept.
    """

    store: ReplacementStore
    architecture: Mapping[str, str]
    halves: int
    images: int
    recipe: Recipe | None
    seed: int
    file: Path


def judge(bench: Bench, job: JudgeJob) -> dict[str, float]:
    """Return ``loss`` (second half of the training data), ``val_loss`` and ``val`` (accuracy).

    With a recipe also ``val_loss_after``, ``val_after`` and ``images`` trained on.
    """
    task = bench.task
    net = job.store.assemble(bench.net, job.architecture)
    if job.store.space.edits(job.architecture):
        recalibrate_batchnorm(net, task.calibration_batches(BATCHES, BATCH))
    batches = held_out_batches(task.halves(job.halves)[1], job.images)
    before = task.evaluate(net, "val")
    found = {
        "loss": mean_loss(net, task, batches), "val_loss": before["loss"],
        "val": before[task.metric],
    }  # fmt: skip
    if job.recipe is not None:
        trained = fit_model(net, task, job.recipe, seed=job.seed, teacher=bench.net)
        after = task.evaluate(net, "val")
        found |= {
            "val_loss_after": after["loss"], "val_after": after[task.metric],
            "images": float(trained.images),
        }  # fmt: skip
    write_bytes(job.file, (json.dumps(found) + "\n").encode())
    return found


def judge_all(
    pool: WorkerPool, jobs: Sequence[JudgeJob], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the results of all jobs, in order; what is there already is not judged again."""
    waiting = list({job.file: job for job in jobs if not job.file.is_file()}.values())
    for number, (at, _) in enumerate(pool.map(judge, waiting), 1):
        say(f"judged {waiting[at].file.stem} ({number} of {len(waiting)})")
    return [json.loads(job.file.read_text()) for job in jobs]
