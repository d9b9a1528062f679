# SPDX-License-Identifier: Apache-2.0
"""What LANA does in worker processes: distil replacements, score them, recover what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chipfit.files import write_state
from chipfit.supernet.blockwise import BlockwiseSettings, distil_blocks
from chipfit.supernet.blockwise_score import held_out_batches, mean_loss, replacement_losses
from chipfit.supernet.blockwise_store import ReplacementStore
from chipfit.supernet.blockwise_student import Replacement
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import Bench, TuneJob, tune
from chipfit.workers import tell

#: Training images that batch norms of a whole network are recalibrated with.
BATCHES, BATCH = 8, 64
#: Steps between two lines of progress.
TOLD_STEPS = 200


@dataclass(frozen=True)
class DistilJob:
    """Replacements to train together, on the first half of the training data.

    Args:
        store: Where their weights go.
        operations: Choice and operation of each.
        settings: Of the training.
        seed: Of weights and data.
        halves: Seed of the halves of the training data.
        checkpoint: File to keep the state in.
        label: What progress is told about.
    """

    store: ReplacementStore
    operations: tuple[tuple[str, str], ...]
    settings: BlockwiseSettings
    seed: int
    halves: int
    checkpoint: Path
    label: str


def distil(bench: Bench, job: DistilJob) -> dict[str, dict[str, str]]:
    """Train, keep the weights, and return errors by choice and operation, as text.

    Errors are those of :class:`~chipfit.supernet.blockwise.Distilled`; JSON has no infinity.
    """

    def told(step: int) -> None:
        if step % TOLD_STEPS == 0:
            tell(f"{job.label}: step {step} of {job.settings.steps}")

    space = job.store.space
    replacements = [Replacement(space[choice], name) for choice, name in job.operations]
    found = distil_blocks(
        bench.net, bench.task.halves(job.halves)[0], replacements, job.settings, seed=job.seed,
        checkpoint=job.checkpoint, on_step=told,
    )  # fmt: skip
    errors: dict[str, dict[str, str]] = {}
    for (choice, name), result in zip(job.operations, found, strict=True):
        job.store.write(choice, name, result.modules)
        errors.setdefault(choice, {})[name] = repr(result.error)
    return errors


@dataclass(frozen=True)
class ScoreJob:
    """Operations of one choice to score, on the second half of the training data.

    Args:
        store: Their weights.
        choice: Name of the choice; ``""`` for the original network alone.
        operations: Names.
        images: To score with.
        halves: Seed of the halves of the training data.
    """

    store: ReplacementStore
    choice: str
    operations: tuple[str, ...]
    images: int
    halves: int


def score(bench: Bench, job: ScoreJob) -> list[str]:
    """Return the network's loss with each operation in place, as text; JSON has no infinity."""
    task = bench.task.halves(job.halves)[1]
    batches = held_out_batches(task, job.images)
    if not job.choice:
        return [repr(mean_loss(bench.net, task, batches))]
    found = replacement_losses(bench.net, task, job.store, job.choice, job.operations, batches)
    return [repr(loss) for loss in found]


@dataclass(frozen=True)
class AssembleJob:
    """A network to put together and recover shortly.

    Args:
        store: The trained operations.
        architecture: An operation by choice.
        tuning: The recovery; its ``weights_before`` is written here, and ``steps`` of its recipe
            are not taken where ``recover`` is false.
        recover: Whether to fine-tune before judging.
    """

    store: ReplacementStore
    architecture: Mapping[str, str]
    tuning: TuneJob
    recover: bool = True


def assemble(bench: Bench, job: AssembleJob) -> dict[str, Any]:
    """Put together, recalibrate, recover and judge; the better weights of the two are kept.

    Returns:
        What :func:`chipfit.train.jobs.tune` returns, and ``assembled``: the metric before.
    """
    task, tuning = bench.task, job.tuning
    metric = f"val_{task.metric}"
    net = job.store.assemble(bench.net, job.architecture)
    if job.store.space.edits(job.architecture):
        recalibrate_batchnorm(net, task.calibration_batches(BATCHES, BATCH))
    before = task.evaluate(net, "val", limit=tuning.images)[task.metric]
    assert tuning.weights_before is not None  # where the assembled weights go
    write_state(tuning.weights_before, net.state_dict())
    result: dict[str, Any] = {"images": 0, metric: before}
    if job.recover:
        result = tune(bench, tuning)
    if metric not in result or not task.better(result[metric], before):
        result = {**result, metric: before}
        tuning.weights_before.replace(tuning.weights_after)
    tuning.weights_before.unlink(missing_ok=True)
    return {**result, "assembled": before}


def dealt(pool: Mapping[str, Sequence[str]], together: int) -> list[tuple[tuple[str, str], ...]]:
    """Deal the operations of every choice into trainings of at most ``together`` of each choice."""
    rounds = max((-(-len(names) // together) for names in pool.values()), default=0)
    return [
        tuple((choice, name) for choice, names in pool.items()
              for name in names[i * together : (i + 1) * together])
        for i in range(rounds)
    ]  # fmt: skip
