# SPDX-License-Identifier: Apache-2.0
"""A training that the task does itself: started, checked and remembered as any other."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from chipfit.errors import TrainingDiverged
from chipfit.train.checkpoint import (
    read_checkpoint,
    require_equal,
    tensors_sha256,
    write_checkpoint,
)
from chipfit.train.progress import TrainResult
from chipfit.train.recipe import Recipe

if TYPE_CHECKING:
    from chipfit.tasks.base import Task


def train_by_task(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None,
    teacher: nn.Module | None,
) -> TrainResult:
    """Let ``task.own_training`` train ``model`` in place for the recipe's number of steps.

    The checkpoint is written at the end: a training that was cut off starts again, with the same
    seed.

    Returns:
        How many steps it was; images and loss are not known (0 and NaN).

    Raises:
        TrainingDiverged: The weights became NaN or infinite.
        RunMismatch: The checkpoint belongs to another training.
    """
    started = time.perf_counter()
    steps = recipe.total_steps(task.steps_per_epoch(recipe.batch_size))
    identity = {
        "seed": seed, "task": task.name, "steps": steps,
        "start": tensors_sha256(model.state_dict()),
        "teacher": tensors_sha256(teacher.state_dict()) if teacher is not None else "",
    }  # fmt: skip
    saved = read_checkpoint(checkpoint) if checkpoint is not None else None
    if checkpoint is not None and saved is not None:
        require_equal(checkpoint, saved[1].get("identity", {}), identity)
        model.load_state_dict(saved[0])
        return TrainResult(steps, 0, math.nan, steps, time.perf_counter() - started)
    if task.own_training is not None:
        model.train()
        task.own_training(model, steps, seed, teacher)
    state = model.state_dict()
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise TrainingDiverged(
            f"finetune() of {task.name!r} left weights that are not finite after {steps} steps",
            "lower its learning rate",
        )
    if checkpoint is not None:
        write_checkpoint(checkpoint, state, {"identity": identity})
    return TrainResult(steps, 0, math.nan, 0, time.perf_counter() - started)
