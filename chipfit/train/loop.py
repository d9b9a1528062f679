# SPDX-License-Identifier: Apache-2.0
"""``fit_model``: the training loop; a killed training continues to bit-identical weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput, TrainingDiverged
from chipfit.train.checkpoint import (
    read_checkpoint,
    require_equal,
    tensors_sha256,
    write_checkpoint,
)
from chipfit.train.contexts import channels_last, cpu_threads, frozen, laid_out
from chipfit.train.ema import MovingAverage
from chipfit.train.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from chipfit.train.own_training import train_by_task
from chipfit.train.progress import Progress, TrainResult
from chipfit.train.randomness import private_global_stream, seed_global_stream
from chipfit.train.recipe import Recipe

if TYPE_CHECKING:
    from chipfit.tasks.base import Batch, Task

#: Steps over which the reported loss is averaged (time constant).
_LOSS_WINDOW = 50
#: Seconds between two reports of progress.
_REPORT_EVERY_S = 0.5


def fit_model(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 200,
    on_progress: Callable[[Progress], None] | None = None,
    teacher: nn.Module | None = None,
    threads: int | None = None,
    on_gradients: Callable[[int], None] | None = None,
) -> TrainResult:
    """Train ``model`` in place and leave it in evaluation mode.

    All randomness comes from ``(seed, epoch, step)``. With a checkpoint file, a training that was
    cut off at any moment ends in the same weights, bit by bit, when it is called again with the
    same model, settings and number of threads; one that was complete only loads its weights.

    Args:
        model: The network; parameters without ``requires_grad`` stay.
        task: Data and loss.
        recipe: Settings.
        seed: Of order, augmentation and dropout.
        checkpoint: File to keep the state in.
        checkpoint_steps: Optimizer steps between two checkpoints.
        on_progress: Called about twice a second, and at the end.
        teacher: Network to distil from, where ``recipe.distillation_weight`` is positive.
        threads: CPU threads for this training; as they are where ``None``.
        on_gradients: Called with the number of the step, from 0, when its gradients are there and
            its update is not made yet. What it remembers must stand in buffers of the model,
            which the checkpoint holds.

    Raises:
        TrainingDiverged: The loss or the weights became NaN or infinite; the checkpoint keeps the
            last good state.
        RunMismatch: The checkpoint belongs to another training.
        StorageError: The checkpoint cannot be written or read.
        BadInput: Distillation without a teacher, or a setting out of range.
    """
    if recipe.distils and teacher is None:
        raise BadInput("distillation_weight is positive, but there is no teacher")
    if checkpoint_steps < 1:
        raise BadInput(f"checkpoint_steps={checkpoint_steps} must be positive")
    if task.own_training is not None and on_gradients is None:
        with ExitStack() as stack:
            stack.enter_context(cpu_threads(threads))
            if teacher is not None:
                stack.enter_context(frozen(teacher))
            done = train_by_task(model, task, recipe, seed, checkpoint, teacher)
        model.eval()
        return done
    with ExitStack() as stack:
        stack.enter_context(private_global_stream())
        stack.enter_context(cpu_threads(threads))
        stack.enter_context(channels_last(model))
        if teacher is not None:
            stack.enter_context(channels_last(teacher))
            stack.enter_context(frozen(teacher))
        training = _Training(model, task, recipe, seed, teacher, checkpoint, on_gradients)
        result = training.run(checkpoint_steps, on_progress)
    model.eval()
    return result


class _Training:
    """One training: its state, its checkpoint and its steps."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        seed: int,
        teacher: nn.Module | None,
        checkpoint: Path | None,
        on_gradients: Callable[[int], None] | None,
    ) -> None:
        self.on_gradients = on_gradients
        self.model, self.task, self.recipe, self.seed = model, task, recipe, seed
        self.teacher = teacher if recipe.distils else None
        self.checkpoint = checkpoint
        self.per_epoch = task.steps_per_epoch(recipe.batch_size)
        self.steps = recipe.total_steps(self.per_epoch)
        self.optimizer = build_optimizer(model, recipe)
        self.average = MovingAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        self.step, self.images, self.loss = 0, 0, math.nan
        self.identity: dict[str, Any] = {}
        if checkpoint is not None:
            self.identity = {
                "recipe": recipe.to_json(),
                "seed": seed,
                "task": task.name,
                "steps": self.steps,
                "start": tensors_sha256(model.state_dict()),
                "teacher": tensors_sha256(self.teacher.state_dict()) if self.teacher else "",
            }
            self._restore(checkpoint)

    def run(
        self, checkpoint_steps: int, on_progress: Callable[[Progress], None] | None
    ) -> TrainResult:
        started = reported = time.perf_counter()
        resumed_at, images_before = self.step, self.images
        self.model.train()
        while self.step < self.steps:
            epoch, first = divmod(self.step, self.per_epoch)
            batches = self.task.train_batches(
                self.recipe.batch_size, self.seed, epoch, start=first, augment=self.recipe.augment
            )
            before = self.step
            for batch in batches:
                rate = self._take_step(batch)
                if self.step % checkpoint_steps == 0 or self.step == self.steps:
                    self._finish_if_last()
                    self._save()
                now = time.perf_counter()
                if on_progress and (now - reported > _REPORT_EVERY_S or self.step == self.steps):
                    reported = now
                    speed = (self.images - images_before) / max(now - started, 1e-9)
                    left = (self.steps - self.step) * self.recipe.batch_size
                    on_progress(
                        Progress(self.step, self.steps, epoch, self.loss, rate, speed, left / speed)
                    )
                if self.step == self.steps:
                    break
            if self.step == before:
                raise BadInput(
                    f"task {self.task.name!r} yields no batch {first} in epoch {epoch}, "
                    f"though steps_per_epoch says {self.per_epoch}"
                )
        return TrainResult(
            self.steps, self.images, self.loss, resumed_at, time.perf_counter() - started
        )

    def _take_step(self, batch: Batch) -> float:
        rate = self.recipe.learning_rate_at(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed_global_stream(self.seed, self.step)
        batch = batch._replace(inputs=laid_out(batch.inputs))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", rate)
        loss.backward()
        if self.on_gradients is not None:
            self.on_gradients(self.step)
        if self.recipe.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        self.optimizer.step()
        self.step += 1
        self.images += len(batch.inputs)
        weight = 1.0 / min(_LOSS_WINDOW, self.step)
        self.loss = value if self.step == 1 else self.loss + weight * (value - self.loss)
        if self.average is not None:
            self.average.update(self.model, self.step)
        return rate

    def _loss(self, batch: Batch) -> Tensor:
        outputs = self.task.forward(self.model, batch)
        share = self.recipe.distillation_weight if self.teacher is not None else 0.0
        loss = outputs.new_zeros(())
        if share < 1.0:
            hard = self.task.criterion(outputs, batch, self.recipe.label_smoothing)
            loss = loss + (1.0 - share) * hard
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.task.forward(self.teacher, batch)
            soft = self.task.distillation(outputs, wanted, self.recipe.temperature)
            loss = loss + share * soft
        return loss

    def _finish_if_last(self) -> None:
        state = self.model.state_dict().values()
        if not all(bool(torch.isfinite(v).all()) for v in state if v.is_floating_point()):
            rate = self.recipe.learning_rate_at(self.step - 1, self.steps)
            raise self._diverged("weights or statistics are not finite", rate)
        if self.step == self.steps and self.average is not None:
            self.average.apply_(self.model)

    def _diverged(self, what: str, rate: float) -> TrainingDiverged:
        kept = (
            f"; the last good state is in {self.checkpoint}"
            if self.checkpoint is not None and self.checkpoint.exists()
            else ""
        )
        return TrainingDiverged(
            f"training on {self.task.name!r} diverged at step {self.step} of {self.steps}: {what} "
            f"at learning rate {rate:.3g}{kept}",
            "lower the learning rate, or set gradient_clip",
        )

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        groups = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.model, self.optimizer),
            "average": self.average.values if self.average is not None else {},
        }
        tensors = {f"{g}:{name}": v for g, named in groups.items() for name, v in named.items()}
        write_checkpoint(
            self.checkpoint,
            tensors,
            {
                "identity": self.identity,
                "step": self.step,
                "images": self.images,
                "loss": self.loss,
            },
        )

    def _restore(self, path: Path) -> None:
        saved = read_checkpoint(path)
        if saved is None:
            return
        tensors, facts = saved
        require_equal(path, facts.get("identity", {}), self.identity)

        def group(name: str) -> dict[str, Tensor]:
            return {k.partition(":")[2]: v for k, v in tensors.items() if k.startswith(f"{name}:")}

        self.model.load_state_dict(group("model"))
        restore_optimizer(self.model, self.optimizer, group("optimizer"))
        if self.average is not None:
            self.average.restore(group("average"))
        self.step, self.images, self.loss = facts["step"], facts["images"], facts["loss"]
