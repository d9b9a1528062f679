# SPDX-License-Identifier: Apache-2.0
"""Put a proposal of ``auto`` together and see how near the original it comes, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chipfit.files import write_state
from chipfit.methods.auto_blocks import solved_norms, solved_places, solving_and_judging
from chipfit.rewrite.edits import Edit
from chipfit.rewrite.reconstruct import reconstruct
from chipfit.rewrite.replay import Rewrite, replay
from chipfit.rewrite.swap import Swap
from chipfit.train.jobs import Bench


@dataclass(frozen=True)
class AssemblyJob:
    """One network.

    Args:
        edits: What replaces blocks of the original, and what is kept of the channels.
        norms: The batch norm behind each layer.
        images: Training images that weights are solved from; as many others judge.
        solve: Whether weights are solved at all, or stay as they were sliced.
        weights_after: Where the weights are written; ``None`` for nowhere.
        val_images: Validation images for the metric; none where ``weights_after`` is ``None``.
    """

    edits: tuple[Rewrite, ...]
    norms: Mapping[str, str]
    images: int
    solve: bool = True
    weights_after: Path | None = None
    val_images: int | None = None


def assemble(bench: Bench, job: AssemblyJob) -> dict[str, Any]:
    """Slice the original, solve the weights that are left, and judge.

    Returns:
        ``distance`` of the outputs from the original's on images that the weights were not solved
        from: the task's distillation loss at temperature 1, for classification the divergence of
        the probabilities; 0 for equal ones, higher is worse. ``val_<metric>`` where weights are
        written.
    """
    solving, judging = solving_and_judging(bench.task, job.images)
    net = replay(bench.net, job.edits).eval()
    if job.solve:
        places = solved_places(net, [edit for edit in job.edits if isinstance(edit, Swap)])
        reconstruct(
            net, bench.net, [edit for edit in job.edits if isinstance(edit, Edit)],
            solving, places=places,
            norms={**job.norms, **solved_norms(places, net, job.norms)},
        )  # fmt: skip
    bench.net.eval()
    with torch.no_grad():
        parts = [
            float(bench.task.distillation(net(batch), bench.net(batch), 1.0)) for batch in judging
        ]
    found: dict[str, Any] = {"distance": sum(parts) / len(parts)}
    if job.weights_after is not None:
        metric = bench.task.metric
        found[f"val_{metric}"] = bench.task.evaluate(net, "val", limit=job.val_images)[metric]
        write_state(job.weights_after, net.state_dict())
    return found
