# SPDX-License-Identifier: Apache-2.0
"""``distil_blocks``: train replacements of a network's blocks to do what the blocks do.

Molchanov et al., "LANA: Latency Aware Network Acceleration", ECCV 2022, arXiv 2107.10624, phase 1:
every candidate reads the teacher's activation that enters the block and is to return the one that
leaves it, ``min_w E || t_i(h) - a_ij(h; w) ||^2``. The teacher is frozen and runs once for all
candidates of all blocks. Optimiser, schedule and the division by the variance are ours.

Candidates do not see each other: whichever are trained together, each ends in the same weights.
Memory is therefore a matter of how many are given at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.supernet.blockwise_student import Replacement, Student, relative_error
from chipfit.supernet.blockwise_taps import tapped
from chipfit.tasks.base import Task
from chipfit.train.batches import endless_batches
from chipfit.train.checkpoint import (
    read_checkpoint,
    require_equal,
    tensors_sha256,
    write_checkpoint,
)
from chipfit.train.contexts import channels_last, frozen, laid_out
from chipfit.train.randomness import private_global_stream


@dataclass(frozen=True)
class BlockwiseSettings:
    """How replacements are trained.

    Args:
        steps: Of every replacement.
        batch_size: Images in a batch.
        learning_rate: AdamW's, at the start of a cosine to 0.
        weight_decay: AdamW's, on kernels and matrices.
        calibration: Training images for batch-norm statistics and for the errors at the end.
        checkpoint_steps: Steps between two checkpoints.

    Raises:
        BadInput: A setting is out of range.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.02
    weight_decay: float = 1e-4
    calibration: int = 512
    checkpoint_steps: int = 100

    def __post_init__(self) -> None:
        positive = (self.steps, self.batch_size, self.calibration, self.checkpoint_steps)
        if min(positive) < 1 or not 0 < self.learning_rate < math.inf or self.weight_decay < 0:
            raise BadInput(f"a setting of the block-wise distillation is out of range: {self}")

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Distilled:
    """A replacement after its training.

    Args:
        modules: By place, in evaluation mode, batch norms calibrated on the teacher's activations.
        error: Mean over places of the squared error on the calibration images, relative to the
            variance of the teacher's output: 0 is the teacher's own block, 1 a constant; infinite
            where training diverged.
    """

    modules: tuple[nn.Module, ...]
    error: float


def distil_blocks(
    net: nn.Module,
    task: Task,
    replacements: Sequence[Replacement],
    settings: BlockwiseSettings,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Distilled]:
    """Train replacements with the network as teacher, which is not changed.

    With a checkpoint file, what was cut off at any moment ends in the same weights, bit by bit,
    when it is called again with the same arguments and number of threads.

    Args:
        net: The trained network.
        task: Its training images; labels are not used.
        replacements: What to train, all held in memory at once; operations that keep the teacher's
            block are only compared with it.
        settings: How.
        seed: Of new weights and of the order of the images.
        checkpoint: File to keep the state in.
        on_step: Called after every step with the number of those done.

    Raises:
        BadInput: The network lacks a place, or a replacement cannot be built.
        RunMismatch: The checkpoint belongs to another training.
        StorageError: The checkpoint cannot be written or read.
    """
    students = [
        [Student(r, p, net, seed, settings.learning_rate, settings.weight_decay)
         for p in range(len(r.choice.places))]
        for r in replacements
    ]  # fmt: skip
    every = [student for own in students for student in own]
    with ExitStack() as stack:
        stack.enter_context(private_global_stream())
        stack.enter_context(frozen(net))
        for module in (net, *(s.module for s in every)):
            stack.enter_context(channels_last(module))
        training = _Training(net, task, every, settings, seed, checkpoint)
        training.run(on_step)
        errors = _calibrate(net, every, task, settings)
    for student in every:
        student.module.eval()
    return [
        Distilled(tuple(s.module for s in own), sum(errors[s.key] for s in own) / len(own))
        for own in students
    ]


class _Training:
    """Students under way, and their checkpoint."""

    def __init__(
        self, net: nn.Module, task: Task, students: Sequence[Student], settings: BlockwiseSettings,
        seed: int, checkpoint: Path | None,
    ) -> None:  # fmt: skip
        self.net, self.task, self.students = net, task, students
        self.settings, self.seed, self.checkpoint = settings, seed, checkpoint
        self.step = 0
        self.identity: dict[str, Any] = {}
        if checkpoint is not None:
            self.identity = {
                "seed": seed, "task": task.name, "settings": asdict(settings),
                "students": [s.key for s in students],
                "start": tensors_sha256(
                    {f"{s.key}:{n}": v for s in students for n, v in s.module.state_dict().items()}
                ),
                "teacher": tensors_sha256(net.state_dict()),
            }  # fmt: skip
            self._restore(checkpoint)

    def run(self, on_step: Callable[[int], None] | None) -> None:
        """Take the steps that are left."""
        learners = [s for s in self.students if s.optimizer is not None]
        steps = self.settings.steps
        if not learners:
            return
        batches = endless_batches(self.task, self.settings.batch_size, self.seed, self.step)
        by_place = _by_place(learners)

        def learn(place: str, x: Tensor, wanted: Tensor) -> None:
            for student in by_place[place]:
                student.learn(x, wanted, self.step, self.settings.rate(self.step))

        with tapped(self.net, list(by_place), learn):
            while self.step < steps:
                batch = next(batches)
                with torch.no_grad():
                    self.task.forward(self.net, batch)
                self.step += 1
                if on_step is not None:
                    on_step(self.step)
                due = self.step == steps or self.step % self.settings.checkpoint_steps == 0
                if self.checkpoint is not None and due:
                    self._save(self.checkpoint)

    def _save(self, path: Path) -> None:
        tensors = {
            f"{i}:{name}": value
            for i, student in enumerate(self.students)
            for name, value in student.tensors().items()
        }
        losses = [str(student.loss) for student in self.students]  # JSON has no infinity
        write_checkpoint(
            path, tensors, {"identity": self.identity, "step": self.step, "losses": losses}
        )

    def _restore(self, path: Path) -> None:
        saved = read_checkpoint(path)
        if saved is None:
            return
        tensors, facts = saved
        wanted = json.loads(json.dumps(self.identity))
        require_equal(path, facts.get("identity", {}), wanted)
        for i, student in enumerate(self.students):
            own = {k.partition(":")[2]: v for k, v in tensors.items() if k.startswith(f"{i}:")}
            student.restore(own, float(facts["losses"][i]))
        self.step = facts["step"]


def _calibrate(
    net: nn.Module, students: Sequence[Student], task: Task, settings: BlockwiseSettings
) -> dict[str, float]:
    """Set batch-norm statistics from the teacher's activations; return errors by student."""
    batches = [
        laid_out(x)
        for x in task.calibration_batches(-(-settings.calibration // 64), 64)
    ]  # fmt: skip
    by_place = _by_place(students)
    totals = {student.key: 0.0 for student in students}

    def observe(place: str, x: Tensor, wanted: Tensor) -> None:
        for student in by_place[place]:
            if student.norms():
                student.module(x)

    def compare(place: str, x: Tensor, wanted: Tensor) -> None:
        for student in by_place[place]:
            error = math.inf
            if not student.diverged:
                error = float(relative_error(student.module(x), wanted))
            totals[student.key] += error if math.isfinite(error) else math.inf

    momenta: list[tuple[Any, float | None]] = []
    for student in students:
        student.module.eval()
        for norm in student.norms():
            momenta.append((norm, norm.momentum))
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
    with torch.no_grad():
        with tapped(net, list(by_place), observe):
            for x in batches:
                net(x)
        for norm, momentum in momenta:
            norm.momentum = momentum
            norm.eval()
        with tapped(net, list(by_place), compare):
            for x in batches:
                net(x)
    return {key: total / len(batches) for key, total in totals.items()}


def _by_place(students: Sequence[Student]) -> dict[str, list[Student]]:
    found: dict[str, list[Student]] = {}
    for student in students:
        found.setdefault(student.place, []).append(student)
    return found
