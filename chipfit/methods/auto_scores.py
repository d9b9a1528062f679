# SPDX-License-Identifier: Apache-2.0
"""How far changes move a network from the original, measured: the values ``auto`` allocates by.

Every option is put into the network alone and judged by the distance of the outputs from the
original's, as LANA judges operations (Molchanov et al., ECCV 2022, arXiv 2107.10624) by the loss.
The distance needs no labels and has less noise than the loss. Between widths that are measured it
is interpolated along Taylor importance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.rewrite.replay import Rewrite, replay
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.jobs import Bench

#: Images of a batch, for the distance and for batch norms.
BATCH = 64


@dataclass(frozen=True)
class DistanceJob:
    """Variants of the original to judge without training.

    Args:
        variants: Edits of each.
        images: Training images to judge by.
    """

    variants: tuple[tuple[Rewrite, ...], ...]
    images: int


def distances(bench: Bench, job: DistanceJob) -> list[float]:
    """Return the distance of each variant's outputs from the original's; 0 for equal ones.

    It is the task's distillation loss at temperature 1 (for classification the divergence of the
    probabilities), with the batch norms of both re-estimated on the same images.
    """
    batches = bench.task.calibration_batches(max(1, job.images // BATCH), BATCH)
    wanted = _outputs(replay(bench.net, ()), batches)
    found = []
    for variant in job.variants:
        outputs = _outputs(replay(bench.net, variant), batches)
        parts = [
            float(bench.task.distillation(mine, target, 1.0))
            for mine, target in zip(outputs, wanted, strict=True)
        ]
        found.append(float(np.mean(parts)))
    return found


def interpolated(
    options: Sequence[int], measured: Mapping[int, float], importance: Sequence[float]
) -> NDArray[np.float64]:
    """Return the distance at every width, not rising with the width, 0 at the widest.

    Args:
        options: Widths, ascending; the last is the present one.
        measured: Increase of the distance at some of them; the narrowest is among them.
        importance: Of the channels, ascending: narrowing removes the first ones.
    """
    removed = np.concatenate([[0.0], np.cumsum(np.asarray(importance, np.float64))])
    widest = options[-1]
    # Equal steps where importances are all zero, so that the axis always rises.
    axis = removed + 1e-9 * max(removed[-1], 1e-12) * np.arange(len(removed))
    known = sorted({**measured, widest: 0.0}, reverse=True)
    values = np.maximum.accumulate([{**measured, widest: 0.0}[width] for width in known])
    places = axis[[widest - width for width in known]]
    return np.interp(axis[[widest - width for width in options]], places, values)


def probed(options: Sequence[int], points: int) -> list[int]:
    """Return up to ``points`` widths to measure, the narrowest among them, the widest not."""
    below = list(options[:-1])
    if len(below) <= points:
        return below
    return [below[round(i * (len(below) - 1) / max(1, points - 1))] for i in range(points)]


def _outputs(net: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    recalibrate_batchnorm(net, batches)
    net.eval()
    with torch.no_grad():
        return [net(batch) for batch in batches]
