# SPDX-License-Identifier: Apache-2.0
"""The trainings of RAN-e: gates, the worth of each option, and short recoveries of proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chipfit.files import read_state, write_state
from chipfit.graph.blocks import ActivatedBlock
from chipfit.methods.ran_e_inherit import inherit
from chipfit.methods.ran_e_options import BlockOption
from chipfit.supernet.gated_network import GatedNetwork
from chipfit.tasks.base import Batch, Task
from chipfit.tasks.wrapped import WrappedTask
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import Bench, TuneJob, tune
from chipfit.train.recipe import Recipe

#: Training images that batch norms are recalibrated with, and that options are judged on.
BATCHES, BATCH = 8, 64
#: Share of the distillation from the original while gates are trained.
DISTILLATION = 0.5


class GatedTask(WrappedTask):
    """A task whose loss also holds what the constraints of a gated network add to it.

    Args:
        task: The user's.
        gated: The network under training.
        share: Weight of the task's loss in the training's; the penalty is to count in full.
    """

    def __init__(self, task: Task, gated: GatedNetwork, share: float = 1.0 - DISTILLATION) -> None:
        super().__init__(task)
        self._gated, self._share = gated, share

    def criterion(self, outputs: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Return the task's loss and the penalty of the constraints."""
        loss = super().criterion(outputs, batch, label_smoothing)
        return loss + self._gated.penalty().to(loss.dtype) / self._share


def gate_recipe(recipe: Recipe, epochs: float, steps: int, learning_rate: float) -> Recipe:
    """Return how gates and weights are trained together.

    AdamW, whose steps do not depend on the size of gradients, so that neither the task's loss nor
    the unit of a cost decides how fast gates move.

    Args:
        recipe: How the original was trained.
        epochs: Passes over the training data.
        steps: Iterations instead, where positive.
        learning_rate: Highest of the schedule.
    """
    return recipe.replace(
        epochs=epochs, steps=steps or None, learning_rate=learning_rate, schedule="cosine",
        warmup=0.1, optimizer="adamw", ema_decay=0.0, label_smoothing=0.0,
        distillation_weight=DISTILLATION, temperature=4.0,
    )  # fmt: skip


@dataclass(frozen=True)
class Learned:
    """A gated network as workers make it again.

    Args:
        blocks: All blocks.
        gated: Names of those that have a gate.
        linear: Kernel and activation of each linear path.
        expanded: Whether factors stand apart.
        state: File of its weights.
    """

    blocks: tuple[ActivatedBlock, ...]
    gated: tuple[str, ...]
    linear: Mapping[str, tuple[int, str]]
    expanded: bool
    state: Path

    def build(self, net: nn.Module) -> GatedNetwork:
        """Return the gated network."""
        gated = self.empty(net)
        # Multipliers belong to the training of the gates, which is over.
        own = {n: v for n, v in gated.state_dict().items() if n.startswith("constraint.")}
        gated.load_state_dict(read_state(self.state) | own)
        return gated.eval()

    def empty(self, net: nn.Module, **settings: Any) -> GatedNetwork:
        """Return it before its training."""
        own = [block for block in self.blocks if block.module in self.gated]
        return GatedNetwork(net, own, self.linear, expanded=self.expanded, **settings)


@dataclass(frozen=True)
class WorthJob:
    """Judge options one at a time, all else as it was.

    Args:
        learned: The gated network.
        tries: Patterns to judge, options by block.
    """

    learned: Learned
    tries: Sequence[Mapping[str, BlockOption]]


def worth(bench: Bench, job: WorthJob) -> list[float]:
    """Return for every pattern how far its outputs are from the original's.

    The distance is the task's distillation loss at temperature 1 (for classification the
    Kullback-Leibler divergence, in nats) on training images, batch norms recalibrated. Lower is
    better; 0 is the original's own outputs.
    """
    gated = job.learned.build(bench.net)
    batches = bench.task.calibration_batches(BATCHES, BATCH)
    found = []
    with torch.no_grad():
        teacher = bench.net.eval()
        wanted = [teacher(x) for x in batches]
        for chosen in job.tries:
            net = inherit(bench.net, gated, job.learned.blocks, chosen)
            recalibrate_batchnorm(net, batches)
            net.eval()
            losses = [
                float(bench.task.distillation(net(x), w, 1.0))
                for x, w in zip(batches, wanted, strict=True)
            ]
            found.append(sum(losses) / len(losses))
    return found


@dataclass(frozen=True)
class ProposalJob:
    """Derive a network from the gated one and recover it shortly.

    Args:
        learned: The gated network.
        chosen: Its pattern, options by block.
        tuning: The recovery; its ``weights_before`` is written here.
    """

    learned: Learned
    chosen: Mapping[str, BlockOption]
    tuning: TuneJob


def propose(bench: Bench, job: ProposalJob) -> dict[str, Any]:
    """Run one proposal; returns what :func:`chipfit.train.jobs.tune` returns."""
    gated = job.learned.build(bench.net)
    net = inherit(bench.net, gated, job.learned.blocks, job.chosen)
    recalibrate_batchnorm(net, bench.task.calibration_batches(BATCHES, BATCH))
    assert job.tuning.weights_before is not None  # where the inherited weights go
    write_state(job.tuning.weights_before, net.state_dict())
    result = tune(bench, job.tuning)
    job.tuning.weights_before.unlink(missing_ok=True)
    return result
