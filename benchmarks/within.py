# SPDX-License-Identifier: Apache-2.0
"""What networks cost with their own weights, and whether that is within a budget."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.narrowing import Ladder
from chipfit.cost.budget import Budget
from chipfit.export.onnx import to_onnx
from chipfit.flow.finalise import cost_fields
from chipfit.graph.capture import capture
from chipfit.graph.workload import Program, Workload
from chipfit.targets import Target

#: A ladder is stepped down by this share of it where a measurement is not confirmed.
CONFIRMATION_STEPS = 50


def costs_of_networks(
    target: Target, example: torch.Tensor, nets: Sequence[nn.Module]
) -> list[dict[str, float]]:
    """Return what networks cost with their own weights, compared in one session."""
    programs = [capture(net, example) for net in nets]
    with tempfile.TemporaryDirectory(prefix="chipfit-bench-") as folder:
        subjects: list[Workload | Program | Path] = list(programs)
        if target.provenance == "measured":  # the files are what a run measures, too
            subjects = [
                to_onnx(net, example, Path(folder) / f"{i}.onnx") for i, net in enumerate(nets)
            ]
        found = target.cost_many(subjects)
    return [
        cost_fields(cost, target, program.workload)["cost"]
        for cost, program in zip(found, programs, strict=True)
    ]


def within_budget(
    target: Target, example: torch.Tensor, net: nn.Module, cost: Mapping[str, float],
    budget: Budget, nets: Sequence[nn.Module],
) -> list[bool]:  # fmt: skip
    """Tell of each network whether it is within the budget.

    Where the target measures, speed drifts from session to session: bounds are then taken as
    a share of the original, which is measured alongside.

    Args:
        target: The device.
        example: Input of all networks, ``(1, C, H, W)``.
        net: The original.
        cost: Its cost when the budget was set.
        budget: In absolute figures.
        nets: To look at.
    """
    drift = dict.fromkeys(budget.keys, 1.0)
    if target.provenance == "measured":
        now, *costs = costs_of_networks(target, example, [net, *nets])
        drift = {key: now[key] / cost[key] for key in budget.keys}
    else:
        costs = costs_of_networks(target, example, nets)
    return [
        all(one[key] <= limit * drift[key] for key, limit in budget.limits.items()) for one in costs
    ]


def confirmed(
    target: Target, within: Callable[[Sequence[nn.Module]], Sequence[bool]], ladder: Ladder,
    rung: int,
) -> int:  # fmt: skip
    """Return the rung, or a lower one that is within the budget when it is measured once more.

    The largest of many noisy measurements that was within the budget was partly lucky.
    """
    step = max(1, len(ladder) // CONFIRMATION_STEPS)
    while target.provenance == "measured" and rung >= step:
        if within([ladder[rung]])[0]:
            break
        rung -= step
    return rung
