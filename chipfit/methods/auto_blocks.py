# SPDX-License-Identifier: Apache-2.0
"""Replacements of blocks that need no training: nothing at all, and one solved convolution.

A block that becomes one convolution has lost the activations inside, which is what RAN-e calls
collapsing (Bhardwaj et al., arXiv 2208.08562); here its weights are the least-squares ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chipfit.errors import BadInput
from chipfit.graph.workload import Workload
from chipfit.methods.base import Problem
from chipfit.methods.joint_space import BLOCK, JointSpace
from chipfit.rewrite.reconstruct import reconstruct
from chipfit.rewrite.replay import replay
from chipfit.rewrite.swap import Swap
from chipfit.space.blocks import BlockSpace, Operation
from chipfit.space.replacements import Pool, replacement_space
from chipfit.tasks.base import Task
from chipfit.train.jobs import Bench

#: Images of a batch.
BATCH = 64
#: Largest activation of all images together, which weights are solved from in one pass.
ACTIVATION_BYTES = 2**30
#: Kinds that can be solved.
SOLVED = ("skip", "conv")
#: Least share of a block's work that counts as left, for its logarithm.
LEAST_SHARE = 1 / 64


def replacements(problem: Problem, kinds: Sequence[str]) -> BlockSpace | None:
    """Return what may stand for the blocks of a network; none where nothing may."""
    if not kinds:
        return None
    pool = Pool(tuple(kinds), kernels=(3,), alignment=problem.target.alignment)
    try:
        return replacement_space(problem.net, problem.example, pool, keep=problem.keep)
    except BadInput:
        return None  # widths are left


def solved_places(net: nn.Module, swaps: Sequence[Swap]) -> dict[str, str]:
    """Return the place of each convolution that was swapped in, by the convolution's name."""
    return {
        name: swap.module
        for swap in swaps
        for name, module in net.get_submodule(swap.module).named_modules(prefix=swap.module)
        if isinstance(module, nn.Conv2d)
    }


def solved_norms(places: Mapping[str, str], net: nn.Module) -> dict[str, str]:
    """Return the batch norm behind each of these convolutions."""
    found = {}
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
    """

    operations: tuple[Operation, ...]
    images: int


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
        norms = solved_norms(places, net)
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
