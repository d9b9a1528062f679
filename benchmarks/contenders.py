# SPDX-License-Identifier: Apache-2.0
"""Who takes part in :mod:`benchmarks.side_by_side`, and what share of the images a search gets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.narrowing import Ladder, LibraryPruning, UniformWidths, loss_gradients
from chipfit.errors import BadInput
from chipfit.methods.base import METHODS
from chipfit.tasks import Task

LIBRARY = "tp-"
AUTO, UNIFORM = "auto", "uniform"
BASELINES = (UNIFORM, "tp-magnitude", "tp-bn-scale", "tp-group-norm", "tp-taylor")
CONTENDERS = (AUTO, "lana", "smcp", "netadapt", "ran-e", *BASELINES)
#: Searched once, with seed 0; seeds vary their last fine-tune only.
ONCE = ("netadapt", "lana", AUTO)
#: Training batches that the Taylor importance of Torch-Pruning is summed over.
TAYLOR_BATCHES = 8
#: Steps of NetAdapt, proposals of RAN-e per budget at most, solutions of LANA.
NETADAPT_STEPS, RAN_E_PROPOSALS, LANA_SOLUTIONS = 8, 4, 3
#: Batch of LANA's block-wise learning; so many replacements of a block learn from each batch.
LANA_BATCH, TOGETHER = 64, 64

Options = dict[str, Any]


def _lana(images: int, batch: int) -> Options:
    """About 0.3 for all replacements at once, 0.1 to score them, 0.15 for short recoveries."""
    return {
        "together": TOGETHER, "batch_size": LANA_BATCH, "solutions": LANA_SOLUTIONS,
        "distil_steps": max(1, round(0.3 * images / LANA_BATCH)),
        # Every block is scored on as many images, and so is the original.
        "score_images": max(LANA_BATCH, images // 90),
        "short_steps": max(1, round(0.15 * images / batch / LANA_SOLUTIONS)),
    }  # fmt: skip


def _smcp(images: int, batch: int) -> Options:
    """Half of the images under masks, chosen anew about 25 times."""
    steps = max(2, round(0.5 * images / batch))
    return {"search_steps": steps, "every": max(1, steps // 25)}


def _netadapt(images: int, batch: int) -> Options:
    """A third of the images in the lineage of the last member."""
    return {
        "steps": NETADAPT_STEPS, "short_steps": max(1, round(images / batch / 3 / NETADAPT_STEPS))
    }  # fmt: skip


def _ran_e(images: int, batch: int) -> Options:
    """0.3 of the images for the gates, 0.2 for the short recoveries at one budget."""
    return {
        "steps": 1, "search_steps": max(2, round(0.3 * images / batch)),
        "short_steps": max(1, round(0.2 * images / batch / RAN_E_PROPOSALS)),
    }  # fmt: skip


#: Options by method, of the images in all and in a batch; ``auto`` reads what it needs forwards.
SCALED: Mapping[str, Callable[[int, int], Options]] = {
    "lana": _lana, "smcp": _smcp, "netadapt": _netadapt, "ran-e": _ran_e,
}  # fmt: skip


def method_of(contender: str) -> str:
    """Return the method behind ``METHOD`` or ``METHOD,VARIANT``."""
    return contender.partition(",")[0]


def options_of(name: str, images: int, batch: int, given: Mapping[str, Any]) -> Options:
    """Return all options of a method; empty for a baseline.

    Args:
        name: Of a contender; ``METHOD,VARIANT`` for a method with options of the user's.
        images: That every contender may train on.
        batch: Images of one step of the task's recipe.
        given: By the user; they count more than the scaled ones.

    Raises:
        BadInput: The method has no such option.
        UnknownName: There is no such contender.
    """
    if name in BASELINES:
        if given:
            raise BadInput(f"{name} has no options: {', '.join(given)}")
        return {}
    method = method_of(name)
    defaults = METHODS.get(method).value().defaults
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise BadInput(f"{method} has no option {', '.join(unknown)}", ", ".join(sorted(defaults)))
    scaled = {"levels": 1}
    if method in SCALED:
        scaled |= SCALED[method](images, batch)
    return {**defaults, **{k: v for k, v in scaled.items() if k in defaults}, **given}


def ladder_of(
    name: str, net: nn.Module, example: torch.Tensor, alignment: int, task: Task,
    everywhere: bool = False,
) -> tuple[Ladder, int]:  # fmt: skip
    """Return the networks of a baseline, and the training images that were read for them.

    Args:
        name: Of :data:`BASELINES`.
        net: The trained original.
        example: Its input, ``(1, C, H, W)``.
        alignment: Of the target.
        task: Gives batches for gradients.
        everywhere: For Torch-Pruning, the same ratio in every layer.
    """
    if name == UNIFORM:
        return UniformWidths(net, example, alignment), 0
    importance = name.removeprefix(LIBRARY)
    gradients, images = None, 0
    if importance == "taylor":
        gradients = loss_gradients(net, task, TAYLOR_BATCHES, 0)
        per_epoch = task.steps_per_epoch(task.recipe.batch_size)
        images = min(TAYLOR_BATCHES, per_epoch) * task.recipe.batch_size
    net = copy.deepcopy(net)
    return LibraryPruning(
        net, example, alignment, importance=importance, gradients=gradients, everywhere=everywhere
    ), images  # fmt: skip
