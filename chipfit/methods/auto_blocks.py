# SPDX-License-Identifier: Apache-2.0
"""Replacements of blocks that need no training.

Nothing at all, one convolution, or the same block with its dense convolutions depthwise and
pointwise. A block that becomes one convolution has lost the activations inside, which is what RAN-e
calls collapsing (Bhardwaj et al., arXiv 2208.08562); here its weights are the least-squares ones.
So are those of pointwise convolutions behind depthwise ones (:mod:`chipfit.rewrite.separate`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.joint_space import BLOCK, JointSpace
from chipfit.rewrite.reconstruct import reconstruct
from chipfit.rewrite.replay import replay
from chipfit.rewrite.separate import Separate
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import KEEP, BlockChoice, BlockSpace, Operation
from chipfit.space.replacements import Pool, choice_of, space_of
from chipfit.space.replacements_places import find_places
from chipfit.tasks.base import Task
from chipfit.train.jobs import Bench

#: Images of a batch.
BATCH = 64
#: Largest activation of all images together, which weights are solved from in one pass.
ACTIVATION_BYTES = 2**30
#: Kinds that can be solved.
SEPARABLE = "separable"
SOLVED = ("skip", "conv", SEPARABLE)
#: Least share of a block's work that counts as left, for its logarithm.
LEAST_SHARE = 1 / 64


def replacements(problem: Problem, kinds: Sequence[str]) -> BlockSpace | None:
    """Return what may stand for the blocks of a network; none where nothing may."""
    whole = tuple(kind for kind in kinds if kind != SEPARABLE)
    pool = Pool(whole, kernels=(3,), alignment=problem.target.alignment) if whole else None
    choices = []
    for place in find_places(problem.net, problem.example, keep=problem.keep):
        operations = choice_of(place, pool).operations if pool else (Operation(KEEP),)
        apart = Separate.of(place.module, problem.net.get_submodule(place.module))
        if SEPARABLE in kinds and apart is not None:
            operations = (*operations, Operation(SEPARABLE, (apart,)))
        choices.append(BlockChoice(place.module, (place.module,), operations))
    return space_of(choices)


def solved_places(net: nn.Module, swaps: Sequence[Swap]) -> dict[str, str]:
    """Return the place of each convolution that was swapped in, by the convolution's name.

    Of depthwise and pointwise ones, the latter are solved, to make what the dense one made.
    """
    found: dict[str, str] = {}
    for swap in swaps:
        if isinstance(swap, Separate):
            found |= swap.pointwise()
            continue
        block = net.get_submodule(swap.module)
        for name, module in block.named_modules(prefix=swap.module):
            if isinstance(module, nn.Conv2d):
                found[name] = swap.module
    return found


def solved_norms(
    places: Mapping[str, str], net: nn.Module, norms: Mapping[str, str]
) -> dict[str, str]:
    """Return the batch norm behind each of these convolutions: inside its place, else behind it.

    Args:
        places: Of them.
        net: That they are in.
        norms: The batch norm behind each layer of the original.
    """
    found = {conv: norms[place] for conv, place in places.items() if place in norms}
    for conv, place in places.items():
        for name, module in net.get_submodule(place).named_modules(prefix=place):
            if isinstance(module, nn.BatchNorm2d):
                found[conv] = name
    return found


@dataclass(frozen=True)
class BlockErrorJob:
    """One block's replacements to judge.

    Args:
        operations: Those that replace something.
        images: Training images that weights are solved from; as many others judge.
        norms: The batch norm behind each layer of the original.
    """

    operations: tuple[Operation, ...]
    images: int
    norms: Mapping[str, str]


def block_errors(bench: Bench, job: BlockErrorJob) -> list[float]:
    """Return the squared error of each replacement's output, relative to the output's variance.

    Lower is better, 0 for a perfect one. Each stands alone in the original network.
    """
    solving, judging = solving_and_judging(bench.task, job.images)
    (place,) = {swap.module for operation in job.operations for swap in operation.swaps}
    wanted = [_output(bench.net, place, batch) for batch in judging]
    spread = sum(float(((y - y.mean((0, 2, 3), keepdim=True)) ** 2).sum()) for y in wanted)
    errors = []
    for operation in job.operations:
        net = replay(bench.net, operation.swaps).eval()
        places = solved_places(net, operation.swaps)
        norms = solved_norms(places, net, job.norms)
        reconstruct(net, bench.net, [], solving, places=places, norms=norms, layers=places)
        missed = sum(
            float(((y - _output(net, place, batch)) ** 2).sum())
            for y, batch in zip(wanted, judging, strict=True)
        )
        errors.append(missed / max(spread, 1e-30))
    return errors


def images_that_fit(workload: Workload) -> int:
    """Return how many images may pass at once: at least :data:`BATCH`, else by memory alone.

    Large inputs give more positions to solve from an image, and need fewer of them.
    """
    largest = max(math.prod(workload.shapes[node.output]) for node in workload.nodes)
    return max(BATCH, ACTIVATION_BYTES // (4 * largest) // BATCH * BATCH)


def solving_and_judging(task: Task, images: int) -> tuple[Tensor, list[Tensor]]:
    """Return training images to solve weights from, in one batch, and as many others to judge by.

    Where there are too few, the same ones judge.
    """
    batches = task.calibration_batches(2 * max(1, images // BATCH), BATCH)
    half = len(batches) // 2
    return torch.cat(batches[: half or None]), batches[half:]


def shares_left(
    joint: JointSpace, original: Mapping[str, object]
) -> dict[str, NDArray[np.float64]]:
    """Return by choice what share of a block's multiply-accumulates each operation leaves."""
    found = {}
    whole = joint.workload(original)
    for choice in joint.blocks or ():
        own = sum(
            node.op.macs for node in whole.nodes
            if node.module and (node.module + ".").startswith(choice.name + ".")
        )  # fmt: skip
        left = [
            own - whole.macs + joint.workload({**original, BLOCK + choice.name: o.name}).macs
            for o in choice.operations
        ]
        shares = np.array(left, np.float64) / max(own, 1)
        found[BLOCK + choice.name] = np.clip(shares, LEAST_SHARE, None)
    return found


def _output(net: nn.Module, place: str, batch: Tensor) -> Tensor:
    box: list[Tensor] = []
    hook = net.get_submodule(place).register_forward_hook(lambda m, i, o: box.append(o))
    try:
        with torch.no_grad():
            net.eval()(batch)
    finally:
        hook.remove()
    return box[0]
