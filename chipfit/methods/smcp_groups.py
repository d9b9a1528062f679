# SPDX-License-Identifier: Apache-2.0
"""Which channel groups SMCP can prune: those whose masked channels act like removed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from chipfit.graph.channels import ChannelGroup, channel_groups
from chipfit.methods.base import Problem
from chipfit.rewrite.edits import edits_for
from chipfit.rewrite.slice import side_sizes, slice_channels
from chipfit.supernet.soft_masks import SoftMasks, unmaskable
from chipfit.train.randomness import generator

#: Largest difference between a masked and a sliced network, relative to the largest output.
TOLERANCE = 1e-3


def maskable_groups(problem: Problem) -> list[ChannelGroup]:
    """Return all groups of the network; those that masks cannot stand for are frozen and say why.

    Half of the channels of all groups are masked and, in another copy, removed; where the two
    networks differ, the groups that make the difference are found one by one.
    """
    return problem.once("maskable_groups", problem.keep, lambda: _maskable(problem))


def _maskable(problem: Problem) -> list[ChannelGroup]:
    coupled = channel_groups(problem.net, problem.example, problem.keep)
    frozen = {group.name for group in coupled if group.frozen}
    found = []
    for group in coupled:
        reason = group.frozen or unmaskable(problem.net, group)
        found.append(replace(group, frozen=reason))
    free = [group for group in found if not group.frozen]
    if free and not _agree(problem, free):
        apart = {group.name for group in free if not _agree(problem, [group])}
        reason = "masked channels would not act like removed ones"
        found = [replace(g, frozen=reason) if g.name in apart else g for g in found]
    for group in found:
        if group.frozen and group.name not in frozen:
            problem.progress(f"{group.name} stays as it is: {group.frozen}")
    return found


def _agree(problem: Problem, groups: Sequence[ChannelGroup]) -> bool:
    masks = SoftMasks(problem.net, groups)
    kept = {group.name: range(0, group.channels, 2) for group in groups}
    masks.keep(kept)
    masked = masks.net.eval()
    sliced = slice_channels(masks.finished(), edits_for(groups, kept, side_sizes(problem.net)))
    shape = problem.example.shape
    x = torch.randn(shape, generator=generator(0)).to(problem.example.dtype)
    try:
        return largest_difference(masked, sliced, x, relative=True) < TOLERANCE
    except (RuntimeError, ValueError):  # the sliced network does not run
        return False


@torch.no_grad()
def largest_difference(
    masked: nn.Module, sliced: nn.Module, x: torch.Tensor, *, relative: bool = False
) -> float:
    """Return the largest difference of outputs in evaluation mode; 0 for outputs not compared.

    Args:
        masked: In evaluation mode.
        sliced: Put into evaluation mode.
        x: Input ``(N, C, H, W)``.
        relative: To the largest absolute output.
    """
    a, b = masked(x), sliced.eval()(x)
    if isinstance(a, torch.Tensor):
        a, b = [a], [b]
    pairs = zip(a, b, strict=True) if isinstance(a, list | tuple) else ()
    tensors = [(p, q) for p, q in pairs if isinstance(p, torch.Tensor)]
    if not tensors:
        return 0.0
    unit = max(float(p.abs().max()) for p, _ in tensors) if relative else 1.0
    return max(float((p - q).abs().max()) for p, q in tensors) / max(unit, 1e-30)
