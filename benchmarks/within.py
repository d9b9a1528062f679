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


def costs_beside(
    target: Target, example: torch.Tensor, net: nn.Module, cost: Mapping[str, float],
    nets: Sequence[nn.Module],
) -> list[dict[str, float]]:  # fmt: skip
    """Return what networks cost at the speed that the target had when the original was priced.

    Where the target measures, speed drifts from session to session: the original is then measured
    alongside, and figures that it was measured in are divided by what it now takes of ``cost``.

    Args:
        target: The device.
        example: Input of all networks, ``(1, C, H, W)``.
        net: The original.
        cost: Its cost, then.
        nets: To look at.
    """
    if target.provenance != "measured":
        return costs_of_networks(target, example, nets)
    now, *costs = costs_of_networks(target, example, [net, *nets])
    drift = {key: now[key] / figure for key, figure in cost.items() if figure and now.get(key)}
    return [{key: value / drift.get(key, 1.0) for key, value in one.items()} for one in costs]


def within_budget(
    target: Target, example: torch.Tensor, net: nn.Module, cost: Mapping[str, float],
    budget: Budget, nets: Sequence[nn.Module],
) -> list[bool]:  # fmt: skip
    """Tell of each network whether it is within the budget.

    Args:
        target: The device.
        example: Input of all networks, ``(1, C, H, W)``.
        net: The original.
        cost: Its cost when the budget was set (:func:`costs_beside`).
        budget: In absolute figures.
        nets: To look at.
    """
    return [
        all(one[key] <= limit for key, limit in budget.limits.items())
        for one in costs_beside(target, example, net, cost, nets)
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
