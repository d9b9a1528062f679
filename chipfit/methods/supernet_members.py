# SPDX-License-Identifier: Apache-2.0
"""From a searched supernet to members of the family: judged, derived, explained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from chipfit.errors import BadInput, TrainingDiverged
from chipfit.files import write_state
from chipfit.methods.base import Problem
from chipfit.methods.space_costs import SpaceCosts
from chipfit.runs.candidate import ORIGINAL, Candidate
from chipfit.runs.run import Run
from chipfit.space.blocks import KEEP, BlockSpace, space_of
from chipfit.space.from_network import blocks_space
from chipfit.supernet.supernet import Supernet
from chipfit.train.batchnorm import recalibrate_batchnorm
from chipfit.train.randomness import private_global_stream, seed_global_stream, stream_seed

#: Training images that batch norms are recalibrated with.
BATCHES, BATCH = 8, 64


def open_space(problem: Problem, settings: Mapping[str, Any]) -> BlockSpace:
    """Return the space that the network carries, or one made of its inverted residuals.

    Raises:
        BadInput: It carries none and has no such block.
    """
    own = space_of(problem.net)
    if own is None:
        return blocks_space(
            problem.net, problem.example, kernels=tuple(settings["kernels"]),
            expansions=tuple(settings["expansions"]), skip=bool(settings["skip"]),
            alignment=problem.target.alignment, keep=problem.keep,
        )  # fmt: skip
    kept = tuple(c for c in own if not any(p.startswith(problem.keep) for p in c.places))
    if not kept:
        raise BadInput("nothing of the network's search space is left to choose", "keep fewer")
    return BlockSpace(kept)


@dataclass(frozen=True)
class Member:
    """What decides about one member of the family.

    Args:
        method: Prefix of its records.
        step: Its number.
        costs: Of the space.
        rows: Architectures to judge, the most probable first.
        settings: Of the method.
    """

    method: str
    step: int
    costs: SpaceCosts
    rows: Sequence[tuple[int, ...]]
    settings: Mapping[str, Any]


def judge(problem: Problem, run: Run, supernet: Supernet, asked: Member) -> dict[str, Any]:
    """Judge architectures by the supernet's weights, keep the best, and record it.

    Each is derived with inherited weights, its batch norms are recalibrated, and its metric on
    held-out images decides; equal ones go to the more probable.

    Raises:
        TrainingDiverged: No architecture can be judged.
    """
    if not asked.rows:
        raise TrainingDiverged(
            "the search left no architecture within the budget that has any probability",
            "lower architecture_rate or strength, or raise the budget",
        )
    metric = problem.val_metric
    batches = problem.task.calibration_batches(BATCHES, BATCH)
    found: list[tuple[float, nn.Module, tuple[int, ...]]] = []
    for row in asked.rows:
        net = supernet.derive(problem.net, asked.costs.names(row))
        recalibrate_batchnorm(net, batches)
        metrics = problem.task.evaluate(net, "val", limit=int(asked.settings["val_images"]))
        found.append((metrics[problem.task.metric], net.eval(), row))
    sign = 1 if problem.task.higher_is_better else -1
    best = max(range(len(found)), key=lambda i: (sign * found[i][0], -i))
    value, net, row = found[best]
    name = f"{asked.method}-{asked.step:02}"
    fresh = bool(asked.settings["retrain"])
    if fresh:
        net = freshly_drawn(net, stream_seed(problem.seed, asked.method, "fresh", asked.step))
    write_state(run.candidate_folder(name) / "short.safetensors", net.state_dict())
    predicted = asked.costs.networks([row])[0]
    return run.record(
        "step", f"{asked.method}/step/{asked.step}", step=asked.step, row=list(row), fresh=fresh,
        group=f"{len(found)} architectures judged", width=best + 1,
        predicted=dict(predicted.values), judged=[round(v, 6) for v, _, _ in found],
        **{metric: value},
    )  # fmt: skip


def freshly_drawn(net: nn.Module, seed: int) -> nn.Module:
    """Return a copy whose layers have drawn their weights anew, in PyTorch's default way.

    Parameters that stand in no layer of PyTorch (layer scales) stay.
    """
    net = copy.deepcopy(net)
    with private_global_stream():
        seed_global_stream(seed)
        for module in net.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return net


def member(
    problem: Problem, method: str, step: int, costs: SpaceCosts, done: Mapping[str, Any]
) -> Candidate:
    """Return the candidate of a step; its changes say choice by choice what it took and bought."""
    name, row = f"{method}-{step:02}", tuple(int(i) for i in done["row"])
    architecture = costs.names(row)
    # Costs of neighbours depend on each other: savings are told in order, and add up.
    path = [dict.fromkeys(architecture, KEEP)]
    for choice in architecture:
        path.append({**path[-1], choice: architecture[choice]})
    spent = costs.predicted(path)
    changes = []
    for before, after, (choice, operation) in zip(
        spent, spent[1:], architecture.items(), strict=False
    ):
        saved = {
            f"{key}_saved": before[key] - value
            for key, value in after.values.items()
            if key in before
        }
        changes.append(
            {"step": step, "group": choice, "from": "the original's", "to": operation, **saved}
        )
    return Candidate(
        id=name, edits=costs.block_space.edits(architecture),
        weights=f"candidates/{name}/short.safetensors", step=step, architecture=architecture,
        parent=ORIGINAL, predicted=dict(done["predicted"]), changes=changes,
        metrics={problem.val_metric: done[problem.val_metric]}, fresh=bool(done["fresh"]),
    )  # fmt: skip
